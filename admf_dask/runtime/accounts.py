"""Who holds how much memory: private pages against shared ones, for each process and for the machine.

Private memory is what a process would give back by ending: its anonymous pages (`RssAnon` of proc(5)). Pages of mapped files are
shared by all who map them, and the kernel drops them when it needs room, unless the file lies in memory itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psutil
from distributed import Nanny
from distributed.worker_memory import NannyMemoryManager

from admf_dask.machine import Machine

if TYPE_CHECKING:
    import pandas as pd

LOOK_SECONDS = 0.2
"""Between two looks at a worker process that is near its limit, where every look counts."""
LONGEST_LOOK_SECONDS = 1.0
"""And at one that is far from it: so old is at the most what is said of its memory when it is killed from outside."""
GROWS_BY = 4 * 2**30
"""Bytes a second by which a thread makes its process grow at the most: what a CPU can write into new pages."""
_LOOKS = "memory_monitor"


def private_memory(pid: int) -> int:
    """Bytes that belong to one process alone. Raises ProcessLookupError when it is gone."""
    return private_and_shared(pid)[0]


def private_and_shared(pid: int) -> tuple[int, int]:
    """Bytes of a process's own, and of files mapped into it (data shared by a session, program code)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            facts = dict(line.split(":", 1) for line in status if line.startswith("Rss"))
        sizes = {name: int(words.split()[0]) * 1024 for name, words in facts.items()}
        return sizes["RssAnon"], sizes["RssFile"] + sizes["RssShmem"]
    except FileNotFoundError as error:
        if os.path.isdir("/proc/self"):
            raise ProcessLookupError(f"there is no process {pid}") from error
    except KeyError as error:
        # A process that has ended and was not waited for yet has no memory.
        raise ProcessLookupError(f"process {pid} has ended") from error
    # Where the kernel does not tell them apart, all is private: too careful rather than too late.
    try:
        return int(psutil.Process(pid).memory_info().rss), 0
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(f"there is no process {pid}") from error


class PrivateMemoryManager(NannyMemoryManager):  # type: ignore[misc]
    """Stops a worker process whose private memory outgrows its limit; the stock one counts shared pages in each process."""

    _last_terminated_pid: int
    peaks: dict[int, int]
    """Process id -> the most bytes that were seen of it."""

    def __init__(self, nanny: Nanny, **kwargs: Any) -> None:
        """As the stock one."""
        super().__init__(nanny, **kwargs)
        self.peaks = {}
        if (looks := nanny.periodic_callbacks.get(_LOOKS)) is not None:
            looks.callback_time = 1_000 * LOOK_SECONDS

    def memory_monitor(self, nanny: Nanny) -> None:
        """Called one to five times a second."""
        looks = nanny.periodic_callbacks[_LOOKS]
        looks.callback_time = 1_000 * LOOK_SECONDS
        process = getattr(nanny.process, "process", None)
        if nanny.status.name != "running" or process is None or process.pid is None or not self.memory_limit:
            return
        try:
            private = private_memory(process.pid)
        except ProcessLookupError:
            return
        self.peaks[process.pid] = max(private, self.peaks.get(process.pid, 0))
        room = self.memory_limit * float(self.memory_terminate_fraction) - private
        if room >= 0:
            looks.callback_time = 1_000 * pause_before_next_look(room, nanny.nthreads)
            return
        if self._last_terminated_pid == process.pid:
            process.kill()
            return
        self._last_terminated_pid = process.pid
        nanny.log_event("worker-restart-memory", {"worker": nanny.worker_address, "pid": process.pid, "rss": private})
        process.terminate()


def pause_before_next_look(room: float, threads: int) -> float:
    """Seconds until a process may have outgrown its limit, from which it is `room` bytes away; within bounds."""
    return min(LONGEST_LOOK_SECONDS, max(LOOK_SECONDS, room / (GROWS_BY * threads)))


def count_private_memory(worker: Any) -> None:
    """Make the memory that a worker tells of (dashboard, spilling) its private memory."""
    worker.monitor.get_process_memory = lambda: private_memory(os.getpid())


def memory_table(workers: dict[str, tuple[int, int]], shared: int) -> pd.DataFrame:
    """The table of `Session.memory`: `workers` maps a name to process id and limit in bytes; `shared` are bytes shared."""
    import pandas as pd

    rows: dict[str, tuple[int | None, ...]] = {}
    processes = {"driver": (os.getpid(), 0), **workers}
    for name, (pid, limit) in processes.items():
        try:
            private, mapped = private_and_shared(pid)
        except ProcessLookupError:
            continue
        rows[name] = (pid, private, mapped, limit or None, private + mapped)
    machine = Machine.probe(interval=0)
    ours = sum(int(row[1] or 0) for row in rows.values()) + shared
    used = machine.memory_total - machine.memory_available
    rows |= {
        "shared data": (None, None, shared, None, shared),
        "used by us": (None, None, None, None, ours),
        "used by others": (None, None, None, None, max(0, used - ours)),
        "free": (None, None, None, None, machine.memory_available),
        "machine": (None, None, None, None, machine.memory_total),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["pid", "private", "shared", "limit", "total"])
    return table.astype("Int64").rename_axis("process")
