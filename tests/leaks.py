"""What a test may leave behind by mistake, and how to see it."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import psutil

TOLERATED_THREADS = (
    "IO loop",  # Dask's event loop, kept for as long as a client of the process lives
    "Profile",  # Dask's profiler, one for the process
    "Dask-Offload",  # Dask's pool for large messages, one for the process
    "Dask-Callback-Thread",  # Dask's pool for future callbacks, one for the process
    "asyncio_",  # the event loop's own executor
    "IPythonHistorySavingThread",  # one for the process
    "pytest_timeout",  # the watch of the running test itself
)
OF_A_WORKER = ("AsyncProcess", "QueueFeederThread")
"""Threads that a nanny has for each worker process: one that waits for it, and one that feeds the queue over which it is told to
stop. The second ends when the queue of a dead process is collected, which a cycle through a traceback may put off."""
TOLERATED_PROCESSES = (
    "multiprocessing.resource_tracker",  # started with the first spawned process, kept for the life of this one
    "admf_dask.local.forkserver",  # started with the first isolated call, kept for the life of this process
)
TOLERATED_FILES = (
    "pytest-of-",
    "admf-dask-server-",  # the socket of multiprocessing's fork server, kept for the life of this process
)


@dataclass(frozen=True)
class Seen:
    """A look at the process."""

    processes: frozenset[int]
    zombies: frozenset[int]
    threads: frozenset[int]
    ports: frozenset[tuple[str, int]]
    files: frozenset[str]


def look(folder: str) -> Seen:
    """What there is now: children, threads, listening ports, entries of `folder`. About 2 ms."""
    me = psutil.Process()
    states = {child.pid: _state(child) for child in me.children(recursive=True)}
    return Seen(
        frozenset(pid for pid, state in states.items() if state not in (psutil.STATUS_ZOMBIE, None)),
        frozenset(pid for pid, state in states.items() if state == psutil.STATUS_ZOMBIE),
        frozenset(
            thread.ident or 0 for thread in threading.enumerate() if not thread.name.startswith(TOLERATED_THREADS)
        ),
        frozenset(_ports(me)),
        frozenset(os.listdir(folder)),
    )


def _state(process: psutil.Process) -> str | None:
    """None for a tolerated process, and for one that ended since it was listed."""
    try:
        state = str(process.status())
        command = "" if state == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
        # The server that worker processes are forked from is kept for the life of this one; its children look like it.
        server = getattr(forkserver._forkserver, "_forkserver_pid", None)
        tolerated = process.pid == server or any(name in command for name in TOLERATED_PROCESSES)
        return None if tolerated else state
    except psutil.NoSuchProcess:
        return None


def _ports(process: psutil.Process) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def describe(before: Seen, now: Seen, folder: str) -> list[str]:
    """What is new, in words."""
    words = []
    # A shared session's nanny may have replaced a worker that a test killed: other processes, but not more.
    more = len(now.processes) > len(before.processes)
    for pid in now.processes - before.processes if more else ():
        try:
            words.append(f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:120]})")
        except psutil.NoSuchProcess:
            continue
    words += [f"process {pid} (ended, and never waited for)" for pid in now.zombies - before.zombies]
    named = {thread.ident: thread.name for thread in threading.enumerate()}
    new = {ident: str(named.get(ident, ident)) for ident in now.threads - before.threads}
    # The same of the threads that go with a process.
    if len(now.threads) <= len(before.threads):
        new = {ident: name for ident, name in new.items() if not name.startswith(OF_A_WORKER)}
    words += [f"thread {name!r}" for name in new.values()]
    words += [f"listening port {ip}:{port}" for ip, port in now.ports - before.ports]
    words += [f"file {Path(folder, name)}" for name in now.files - before.files if not name.startswith(TOLERATED_FILES)]
    return words


def wait_until_gone(folder: str, before: Seen, seconds: float = 20.0) -> list[str]:
    """What is still new after up to `seconds`; at once when nothing is.

    A worker of a shared session that the test killed is waited for as well: the next test's first look could fall into the
    gap before its replacement, which would then look like a process of that test.
    """
    deadline = time.monotonic() + seconds
    collect = time.monotonic() + 0.5
    while True:
        now = look(folder)
        left = describe(before, now, folder)
        complete = len(now.processes) >= len(before.processes)
        if (complete and not left) or time.monotonic() > deadline:
            return left
        if time.monotonic() > collect:
            # What only a cycle holds is not left behind.
            gc.collect()
            collect += 1.0
        time.sleep(0.02)


def still_there(folder: str, seconds: float = 10.0) -> list[int]:
    """Processes, whoever their parent is, that have a folder of ours for temporary files; some time to end."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TMPDIR") == folder:
                    found.append(process.pid)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
