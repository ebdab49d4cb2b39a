"""`ThreadPool`: ordered `map` over threads, on the standard executor.

The standard executor is right here, not Dask's threaded scheduler: it runs calls as they are, keeps its threads between
maps, and costs microseconds a call. What this adds: the caller works too, so that a nested map cannot wait for threads that
wait for it; the first error stops the rest; and BLAS or OpenMP threads inside a call are kept to the machine.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from admf_dask.resources import Machine
from admf_dask.text import whole


class ThreadPool:
    """A pool of threads; `with ThreadPool(4) as pool: pool.map(function, items)`.

    Threads share the interpreter: they help for work that waits (files, network) or that releases it (NumPy, pandas in part,
    numba with nogil); pure Python gains nothing. All methods may be called from any thread, also from inside a mapped function.

    Parameters
    ----------
    workers
        Threads, the calling one included; None is the number of CPUs this process may use. Raises ValueError below 1.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Nothing is started before `start`, `with` or the first `map`."""
        workers = whole(workers)
        if workers is not None and (type(workers) is not int or workers < 1):
            raise ValueError(
                f"workers must be a whole number of at least 1, or None for the CPUs there are, but is {workers!r}"
            )
        self.workers = workers or _cpus()
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    @property
    def running(self) -> bool:
        """Whether threads are kept between maps."""
        return self._executor is not None

    def start(self) -> Self:
        """Keep threads from now on; starting twice is no error."""
        with self._lock:
            if self._executor is None:
                self._executor = _executor(self.workers)
        return self

    def stop(self) -> None:
        """Let what is under way finish, end the threads; the pool may be started again."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def map(self, func: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`[func(item) for item in items]`, in threads; results in item order.

        The first error is raised as it is, and calls that have not begun are left out. Concurrent and nested calls share
        the threads without waiting for each other. A pool that is not running starts threads for this call alone.
        """
        if not callable(func):
            raise TypeError(f"expected a function, but got {func!r:.60}; write pool.map(function, items)")
        work = _Work(func, list(items))
        with self._lock:
            executor = self._executor
        if executor is None:
            with ThreadPool(self.workers) as own:
                assert own._executor is not None
                return work.run(own._executor, self.workers)
        return work.run(executor, self.workers)


def _executor(workers: int) -> ThreadPoolExecutor:
    """Threads for all but the caller."""
    return ThreadPoolExecutor(
        max(1, workers - 1), thread_name_prefix="admf-dask-pool", initializer=_limit_own_openmp, initargs=(workers,)
    )


def _limit_own_openmp(workers: int) -> None:
    """In a thread of a pool: OpenMP counts its threads for each thread that calls it."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=max(1, _cpus() // workers), user_api="openmp")


class _Work:
    """One map: whoever is free takes the next item, the caller too."""

    def __init__(self, func: Callable[[Any], Any], items: list[Any]) -> None:
        self._func, self._items = func, items
        self._results: list[Any] = [None] * len(items)
        self._next = 0
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(self, executor: ThreadPoolExecutor, workers: int) -> list[Any]:
        helpers: list[Future[None]] = []
        with _inner_pools_limited(workers):
            try:
                for _ in range(min(workers, len(self._items)) - 1):
                    try:
                        helpers.append(executor.submit(self._help))
                    except RuntimeError:
                        # The pool was stopped meanwhile: the caller does the rest.
                        break
                self._help()
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                for helper in helpers:
                    # A helper that has not begun has nothing left to do; one that has is at its last item.
                    if not helper.cancel():
                        helper.exception()
        if self._error is not None:
            raise self._error
        return self._results

    def _help(self) -> None:
        while (place := self._take()) is not None:
            try:
                self._results[place] = self._func(self._items[place])
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                self._fail(error)
                return

    def _take(self) -> int | None:
        with self._lock:
            if self._error is not None or self._next >= len(self._items):
                return None
            self._next += 1
            return self._next - 1

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error


_limit_lock = threading.Lock()
_maps = 0
_limits: Any = None


@contextmanager
def _inner_pools_limited(workers: int) -> Iterator[None]:
    """Inner pools at cpus / workers while any map runs; the last one to end restores them."""
    global _maps, _limits
    if workers == 1:
        yield
        return
    from threadpoolctl import threadpool_limits

    with _limit_lock:
        if not _maps:
            _limits = threadpool_limits(limits=max(1, _cpus() // workers))
        _maps += 1
    try:
        yield
    finally:
        with _limit_lock:
            _maps -= 1
            if not _maps:
                _limits.restore_original_limits()


@functools.cache
def _cpus() -> int:
    return Machine.probe(interval=0).cpu_count
