"""`TaskQueue`: tasks by id, a bounded queue between those who add and those who run them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from admf_dask.local.elsewhere import Elsewhere
from admf_dask.text import whole

PATIENCE_SECONDS = 30.0
"""How long a result is waited for, without a timeout, while nothing at all happens in the queue."""


@dataclass(slots=True)
class _Task:
    id: Hashable
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class TaskQueue:
    """A queue of calls under unique ids; some threads add, `process_tasks` runs them, any thread asks for results.

    ```python
    queue = TaskQueue(max_size=100)
    queue.add_task("AAPL", load, "AAPL")
    queue.process_tasks(worker_count=4)
    frame = queue.get_result("AAPL")
    ```

    Every method may be called from any thread. Results are kept until `get_result(id, forget=True)` or `clear`.

    Parameters
    ----------
    max_size
        Tasks that may wait; `add_task` then blocks until one is taken. 0 is without a bound.
    session
        A `Session` or `distributed.Client`: `process_tasks` then runs the tasks on its cluster, each as a future with its id in
        the key. A task that takes its worker along is WorkerDied for who asks for its result, and no other task is lost.
    """

    def __init__(self, max_size: int = 0, *, session: Any = None) -> None:
        """Raises ValueError for a size below 0 and TypeError for a session that is none."""
        max_size = whole(max_size)
        if type(max_size) is not int or max_size < 0:
            raise ValueError(f"max_size must be a whole number of at least 0 (0: no bound), but is {max_size!r}")
        self.max_size = max_size
        self._elsewhere = None if session is None else Elsewhere.of(session)
        self._waiting: deque[_Task] = deque()
        self._futures: dict[Hashable, Future[Any]] = {}
        self._under_way = 0
        self._parked = 0
        self._stack = threading.local()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def add_task(self, task_id: Hashable, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Queue `func(*args, **kwargs)`; returns the id. Blocks while the queue is full.

        Raises ValueError for an id that was used before and TypeError if `func` is no function.
        """
        return self._add(_Task(task_id, func, args, kwargs), None)

    def try_add_task(
        self, timeout: float, task_id: Hashable, func: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """As `add_task`, but raises TimeoutError if the queue is still full after `timeout` seconds."""
        return self._add(_Task(task_id, func, args, kwargs), timeout)

    def _add(self, task: _Task, timeout: float | None) -> Any:
        if not callable(task.function):
            raise TypeError(
                f"expected a function, but got {task.function!r:.60}; write add_task(id, function, *arguments), without calling "
                "it"
            )
        with self._changed:
            if task.id in self._futures:
                raise ValueError(f"a task's id must be unique, but {task.id!r} was added before")
            self._futures[task.id] = Future()
            try:
                if not self._changed.wait_for(self._has_room, timeout):
                    raise TimeoutError(
                        f"the queue is full ({self.max_size} tasks wait) and nobody took one in {timeout:g} seconds; call "
                        "process_tasks in another thread, or make max_size larger"
                    )
            except BaseException:
                del self._futures[task.id]
                raise
            self._waiting.append(task)
            self._changed.notify_all()
        return task.id

    def _has_room(self) -> bool:
        return not self.max_size or len(self._waiting) < self.max_size

    def process_tasks(self, worker_count: int = 1) -> int:
        """Run tasks in `worker_count` threads until the queue is empty and nothing is under way; returns how many were run.

        A task that raises is counted; its error is for who asks for its result. Tasks added meanwhile are run too, also those
        that a running task adds. Several threads may process at the same time: each counts its own. With a session, tasks
        run on the cluster, `worker_count` of them at a time. After Ctrl-C no other task begins; what waits can be run later.
        """
        worker_count = whole(worker_count)
        if type(worker_count) is not int or worker_count < 1:
            raise ValueError(f"worker_count must be a whole number of at least 1, but is {worker_count!r}")
        counts: list[int] = []
        ended = threading.Event()
        threads = [
            threading.Thread(target=self._work, args=(counts, ended), name=f"admf-dask-tasks-{number}", daemon=True)
            for number in range(worker_count - 1)
        ]
        for thread in threads:
            thread.start()
        try:
            self._work(counts, ended)
        except BaseException:
            # After Ctrl-C the others end what they are at, and what waits stays in the queue.
            ended.set()
            with self._changed:
                self._changed.notify_all()
            raise
        finally:
            for thread in threads:
                thread.join()
        return sum(counts)

    def _work(self, counts: list[int], ended: threading.Event) -> None:
        done = 0
        while (task := self._take(ended)) is not None:
            self._run(task)
            done += 1
        with self._lock:
            counts.append(done)

    def _take(self, ended: threading.Event) -> _Task | None:
        """The next task; waits while others are under way, for they may add more. None at the end, or once it has `ended`.

        A task that itself calls `process_tasks` is parked while it waits here: nobody need wait for it.
        """
        mine = getattr(self._stack, "depth", 0)
        with self._changed:
            self._parked += mine
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._waiting or self._under_way <= self._parked or ended.is_set())
            finally:
                self._parked -= mine
            if not self._waiting or ended.is_set():
                return None
            self._under_way += 1
            self._changed.notify_all()
            return self._waiting.popleft()

    def _run(self, task: _Task) -> None:
        future = self._futures[task.id]
        self._stack.depth = getattr(self._stack, "depth", 0) + 1
        failed: BaseException | None = None
        try:
            if self._elsewhere is None:
                value = task.function(*task.args, **task.kwargs)
            else:
                failed, value = self._elsewhere.run(task.id, task.function, task.args, task.kwargs)
        except BaseException as error:
            self._finish(future, error=error)
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            self._finish(future, value=value, error=failed)

    def _finish(self, future: Future[Any], *, value: Any = None, error: BaseException | None = None) -> None:
        self._stack.depth -= 1
        with self._changed:
            self._under_way -= 1
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
            self._changed.notify_all()

    def get_result(self, task_id: Hashable, timeout: float | None = None, *, forget: bool = False) -> Any:
        """The task's result; waits until it is there, up to `timeout` seconds.

        Raises the task's own error, KeyError for an id that was never added, and TimeoutError in time. Without a timeout it
        does not wait for ever for what nobody runs: TimeoutError when nothing at all was processed for half a minute.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if task_id not in self._futures:
                known = ", ".join(repr(one) for one in list(self._futures)[:5])
                raise KeyError(f"no task {task_id!r} was added{f' (there are {known}...)' if known else ''}")
            future = self._futures[task_id]
            while not future.done():
                wait = PATIENCE_SECONDS if deadline is None else deadline - time.monotonic()
                if self._changed.wait(max(0.0, wait)) or (deadline is None and self._under_way):
                    continue
                idle = "" if self._under_way else "; nothing is being processed: call process_tasks()"
                raise TimeoutError(
                    f"task {task_id!r} has no result after {wait if deadline is None else timeout:g} seconds{idle}"
                )
            if forget:
                self._futures.pop(task_id, None)
        return future.result()

    def __len__(self) -> int:
        """Tasks that wait."""
        with self._lock:
            return len(self._waiting)

    def clear(self) -> None:
        """Forget tasks that wait and results that are there; their ids may be used again."""
        with self._changed:
            for task in self._waiting:
                del self._futures[task.id]
            self._waiting.clear()
            self._futures = {name: future for name, future in self._futures.items() if not future.done()}
            self._changed.notify_all()
