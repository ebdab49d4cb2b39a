"""Run by each worker process of our own clusters before it takes work (Dask's `preload`)."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from typing import Any

from distributed import profile

from admf_dask import above
from admf_dask.local.child import die_with_parent
from admf_dask.runtime import sources
from admf_dask.runtime.accounts import count_private_memory
from admf_dask.runtime.forkserver import leave_server
from admf_dask.runtime.job import ANNOUNCE, plugin_name

_SWITCH_SECONDS = 0.001
"""A worker's event loop waits so long for the interpreter when an item holds it: at Python's own 5 ms each result and each next
chunk came that much later."""


def dask_setup(worker: Any) -> None:
    """Count private memory, leave Ctrl-C to the driver, and end with it, also where a C call holds this interpreter."""
    count_private_memory(worker)
    profile.linecache = sources
    _hear_of_jobs(worker)
    # What items print on the driver's terminal goes above its bar; of child processes and C code it goes where it goes.
    above.begin()
    leave_server()
    # As in `cluster.PromptStreams`, the other way: that a chunk is done follows its answer by less than Dask's 2 ms.
    worker.batched_stream.interval = 0.0
    sys.setswitchinterval(_SWITCH_SECONDS)
    # The mask it was started with may be gone: who starts multiprocessing's resource tracker unblocks the signal. Terminals and
    # notebooks send it to the whole group; what it means is decided by the driver.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As in any worker of Dask. Where the name has "fork" in it numba makes a lock between processes, and of a worker that is
    # killed Python says as the session ends that it has leaked a semaphore.
    multiprocessing.set_start_method("spawn", force=True)
    die_with_parent()


def _hear_of_jobs(worker: Any) -> None:
    """A job comes on the stream, or when the worker joins; it is taken away by a call, which can overtake both.

    So what is taken away before it came does not come: nobody would take it away again, nor stop what runs of it.
    """
    gone: set[str] = set()
    add, remove = worker.plugin_add, worker.plugin_remove

    async def arrive(plugin: Any, name: str | None = None, **options: Any) -> Any:
        if name not in gone:
            return await add(plugin=plugin, name=name, **options)
        gone.discard(name)
        return {"status": "OK"}

    async def leave(name: str) -> Any:
        if name in worker.plugins or not name.startswith(plugin_name("")):
            return await remove(name=name)
        gone.add(name)
        return {"status": "OK"}

    # The first is what a worker calls as it joins.
    worker.plugin_add = worker.stream_handlers[ANNOUNCE] = arrive
    worker.handlers["plugin-remove"] = leave
