"""How shared data gets to a machine that does not see the driver's files: once for the machine, in pieces, through Dask.

A worker that lacks a file answers its chunk with what is missing and where it is; the driver sends the pieces, and the chunk
again. So machines that join late, and restarted ones, need no special case.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from admf_dask.runtime.leases import Lease, sweep

PREFIX = "admf-dask-shared-"
PIECE = 16 * 2**20
_leases: dict[Path, Lease] = {}
_lock = threading.Lock()


def local_path(path: str, size: int) -> str:
    """Where this machine has the driver's file `path`: there, or among what arrived. It may not exist."""
    if _is_whole(Path(path), size):
        return path
    return str(arrived_path(path))


def arrived_path(path: str) -> Path:
    """Where the driver's file `path` goes on a machine that does not see it."""
    original = Path(path)
    return _home() / f"{PREFIX}{os.getuid()}-from-{original.parent.name.removeprefix(PREFIX)}" / original.name


def is_here(path: str, size: int) -> bool:
    """Whether this machine has all of the driver's file `path`."""
    return _is_whole(Path(path), size) or _is_whole(arrived_path(path), size)


def place_here() -> str:
    """What is the same for all processes that share files with this one."""
    facts = os.stat(_home())
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()}-{facts.st_dev}-{facts.st_ino}"
    return f"{os.uname().nodename}-{facts.st_dev}-{facts.st_ino}"


def receive(path: str, size: int, offset: int, content: bytes) -> None:
    """Write one piece; the file gets its name with the last one. Pieces come in order."""
    target = arrived_path(path)
    _hold(target.parent)
    partial = target.with_name(f".{target.name}.partial")
    with open(partial, "wb" if offset == 0 else "r+b") as file:
        file.seek(offset)
        file.write(content)
    if offset + len(content) == size:
        partial.rename(target)


def drop(path: str) -> None:
    """Remove what arrived from the driver's folder `path`."""
    folder = arrived_path(os.path.join(path, "any")).parent
    with _lock:
        lease = _leases.pop(folder, None)
    if lease is not None:
        lease.release()
    shutil.rmtree(folder, ignore_errors=True)


def pieces(path: str) -> Iterator[tuple[int, bytes]]:
    """A file in pieces, each with its offset; one at a time is in memory."""
    offset = 0
    with open(path, "rb") as file:
        while content := file.read(PIECE):
            yield offset, content
            offset += len(content)


def _hold(folder: Path) -> None:
    with _lock:
        if folder not in _leases:
            sweep(folder.parent, PREFIX)
            folder.mkdir(mode=0o700, exist_ok=True)
            _leases[folder] = Lease(folder)


def _home() -> Path:
    return Path(tempfile.gettempdir())


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
