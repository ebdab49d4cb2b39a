"""What a worker tells of itself with each heartbeat, for the page: shared memory, and the items under way."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Protocol

from admf_dask.runtime.accounts import private_and_shared
from admf_dask.runtime.alarm import stop_softly
from admf_dask.runtime.calls import BEGAN, Cells


class Watch(Protocol):
    """Where a thread notes what it executes."""

    cells: Cells
    at: int


_watches: dict[tuple[str, int], weakref.ref[Watch]] = {}
"""By run and thread."""
_lock = threading.Lock()


def watched(run: str, watch: Watch) -> None:
    """A thread begins a chunk."""
    with _lock:
        _watches[run, threading.get_ident()] = weakref.ref(watch)


def forgotten(run: str) -> None:
    """A thread has ended a chunk."""
    with _lock:
        _watches.pop((run, threading.get_ident()), None)


def stop_what_runs(run: str) -> None:
    """End softly the items of a run that are under way in this process: nobody waits for them any more."""
    with _lock:
        # A thread that leaves the run waits for this lock, so what its cells say meanwhile is of this run.
        watches = [(thread, found()) for (of, thread), found in _watches.items() if of == run]
        for thread, watch in watches:
            if watch is None:
                continue
            index, began = watch.cells[watch.at], watch.cells[watch.at + BEGAN]
            if index >= 0 and began:
                stop_softly(thread, watch.cells, watch.at, index, began)


def tell(worker: Any) -> dict[str, Any]:
    """A metric of the worker: plain numbers and texts. Costs a tenth of a millisecond, once a second."""
    now = time.monotonic_ns()
    with _lock:
        watches = [(run, watch) for (run, _), found in _watches.items() if (watch := found()) is not None]
    executing = []
    for run, watch in watches:
        start, count, began = (int(watch.cells[watch.at + place]) for place in (0, 1, BEGAN))
        if start >= 0 and count > 0 and began > 0:
            executing.append((run, start, count, max(0.0, (now - began) / 1e9)))
    return {"shared": private_and_shared(os.getpid())[1], "executing": executing}


def tell_from_now_on(worker: Any) -> None:
    """Add the metric; again is no harm."""
    worker.metrics["admf_dask"] = tell
