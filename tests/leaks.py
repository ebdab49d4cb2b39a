"""What a test may leave behind by mistake, and how to see it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Seen:
    """A look at the process."""

    processes: frozenset[int]
    threads: frozenset[int]
    ports: frozenset[tuple[str, int]]
    files: frozenset[str]


def look(folder: str) -> Seen:
    """What there is now: children, threads, listening ports, entries of `folder`. About 2 ms."""
    me = psutil.Process()
    children = me.children(recursive=True)
    return Seen(
        frozenset(child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE or child.ppid() == me.pid),
        frozenset(
            thread.ident or 0 for thread in threading.enumerate() if not thread.name.startswith(TOLERATED_THREADS)
        ),
        frozenset(_ports(me)),
        frozenset(os.listdir(folder)),
    )


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
    named = {thread.ident: thread.name for thread in threading.enumerate()}
    words += [f"thread {named.get(ident, ident)!r}" for ident in now.threads - before.threads]
    words += [f"listening port {ip}:{port}" for ip, port in now.ports - before.ports]
    words += [f"file {Path(folder, name)}" for name in now.files - before.files if not name.startswith("pytest-of-")]
    return words


def wait_until_gone(folder: str, before: Seen, seconds: float = 5.0) -> list[str]:
    """What is still new after up to `seconds`; at once when nothing is."""
    deadline = time.monotonic() + seconds
    while True:
        left = describe(before, look(folder), folder)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
