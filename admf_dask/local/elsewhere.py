"""Where the tasks of a queue run that has a session: on its cluster, each as a future under its id.

Dask must carry neither exceptions nor results that do not pickle (some of them hang it), and blames every task that was
on a worker when that dies. So what travels is bytes, and a task whose worker died is run again with no other beside it
before it is told that it is to blame.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import cloudpickle

from admf_dask.endings import Ending
from admf_dask.errors import ClusterLost, SessionClosed, SessionError, TaskFailed
from admf_dask.outcomes import Failure

WORDS_SECONDS = 2.0
"""How long to wait for what the nanny of a dead worker has to say."""
_parcels: dict[str, _Parcel] = {}
"""Of clusters whose workers are threads of this process: nothing is pickled for them."""


@dataclass(slots=True)
class _Parcel:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any = None


@dataclass(frozen=True, slots=True)
class _Death:
    """Of the worker process with this id."""

    pid: int


class Elsewhere:
    """Runs calls on a cluster, for the threads of one queue. Thread-safe."""

    def __init__(self, client: Any, *, in_process: bool) -> None:
        """`client` is a `distributed.Client`; `in_process` says that its workers are threads of this process."""
        self._client, self._in_process = client, in_process
        self._group = f"task-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._under_way = 0
        self._alone = False

    @classmethod
    def of(cls, session: Any) -> Elsewhere | None:
        """For a `Session` or a `distributed.Client`; None for a session that runs everything in the calling thread."""
        try:
            client = getattr(session, "client", session)
        except SessionClosed:
            raise
        except SessionError:
            return None
        if not callable(getattr(client, "submit", None)):
            raise TypeError(f"session must be a Session or a distributed.Client, but is {session!r:.80}")
        own = client is not session and getattr(session.layout, "mode", "") == "thread"
        return cls(client, in_process=own)

    def run(
        self, task_id: Hashable, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[BaseException | None, Any]:
        """Call there and wait. Returns the task's own error, WorkerDied if it took two workers along, or None and the value."""
        parcel = _Parcel(function, args, kwargs)
        with self._beside_others():
            answer = self._sent(task_id, parcel)
        if not isinstance(answer, _Death):
            return answer
        with self._with_nothing_beside():
            answer = self._sent(task_id, parcel)
        if not isinstance(answer, _Death):
            return answer
        ending = self._ending(answer)
        message = f"its worker process {ending} while it ran task {task_id!r:.100}, twice, the last time alone"
        return ending.error(message, item=task_id, attempts=2), None

    def _sent(self, task_id: Hashable, parcel: _Parcel) -> tuple[BaseException | None, Any] | _Death:
        """Send it until there is an answer, or the death of a process that no run ended on purpose."""
        ended = getattr(getattr(self._client, "cluster", None), "ended", {})
        while True:
            answer = self._send(task_id, parcel)
            if not (isinstance(answer, _Death) and answer.pid in ended):
                return answer

    def _send(self, task_id: Hashable, parcel: _Parcel) -> tuple[BaseException | None, Any] | _Death:
        name = uuid.uuid4().hex
        packed = None if self._in_process else _pack(task_id, parcel)
        if packed is None:
            _parcels[name] = parcel
        # Ids may print alike, and a key that was used must not be used again.
        key = (self._group, str(task_id), next(self._numbers))
        future = self._client.submit(_call, name, packed, key=key, pure=False)
        try:
            answer = future.result()
        except CancelledError as error:
            raise ClusterLost(f"the cluster was lost while task {task_id!r:.100} ran: {error}") from error
        except Exception as error:
            # Dask's class for it may be imported in the runtime only.
            if type(error).__name__ != "KilledWorker":
                raise
            return _Death(error.last_worker.pid)  # type: ignore[attr-defined]
        except BaseException:
            with suppress(Exception):
                future.cancel(force=True)
            raise
        finally:
            future.release()
            _parcels.pop(name, None)
        if answer is None:
            return None, parcel.value
        if answer[:1] == b"R":
            return None, pickle.loads(answer[1:])
        failure: Failure = pickle.loads(answer[1:])
        return failure.exception(task_id), None

    @contextmanager
    def _beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    @contextmanager
    def _with_nothing_beside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._under_way)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _ending(self, death: _Death) -> Ending:
        """What the nannies of a cluster of our own saw."""
        why_died = getattr(getattr(self._client, "cluster", None), "why_died", None)
        deadline = time.monotonic() + WORDS_SECONDS
        while why_died is not None and time.monotonic() < deadline:
            if (seen := why_died(death.pid)) is not None:
                ending: Ending = seen.ending
                return ending
            time.sleep(0.05)
        return Ending()


def _pack(task_id: Hashable, parcel: _Parcel) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps((parcel.function, parcel.args, parcel.kwargs), protocol=5)
    except Exception as error:
        raise TaskFailed(
            f"a task must survive pickling to reach a worker, but {parcel.function!r:.80} or its arguments do not: {error}",
            item=task_id,
        ) from error
    return packed


def _call(name: str, packed: bytes | None) -> bytes | None:
    """On the worker. Never raises, whatever the task does."""
    try:
        if packed is None:
            parcel = _parcels[name]
            parcel.value = parcel.function(*parcel.args, **parcel.kwargs)
            return None
        function, args, kwargs = pickle.loads(packed)
        value = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - raised again by who asks for the result
        return b"F" + pickle.dumps(Failure.from_exception(error, inside=__file__))
    try:
        answer: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:  # noqa: BLE001 - __reduce__ is user code
        words = f"a result must survive pickling to travel back, but {type(value).__name__} does not ({error})"
        return b"F" + pickle.dumps(Failure("error", "TypeError", words, ""))
    return b"R" + answer
