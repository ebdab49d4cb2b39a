"""What a worker process is executing, readable by the driver also after the process was killed.

A file of fixed slots, one for each thread of the worker, mapped into memory: `(run tag, start, count, began, taken from, until,
end)` as seven int64. A worker notes an item by one store of eight bytes, which costs less than 0.1 microseconds and survives any
death of the process (the page belongs to the kernel). Readers may see a slot half written only between two items, never torn:
an aligned store of eight bytes is atomic on the platforms that Dask runs on.

Two fields go the other way: the driver writes the number of a chunk into `taken from`, of which the items from `end` on are to go
to others. The worker first says before which item it will look next (`until`), then looks, then begins. So who has written those
two and after that sees it at an item may give away what is neither before `end` nor before `until`: it will not begin that.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SLOTS = 256
_FIELDS = 7
_TAKEN, _END = 4, 6
_SIZE = SLOTS * _FIELDS * 8


def run_tag(run: str) -> int:
    """A run's 32 hexadecimal digits as a positive int64."""
    return int(run[:15], 16) + 1


class BlackBox:
    """The worker's side. One in a process; a thread owns its slot. Thread-safe."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Create the file for this process in `folder`."""
        path = _path(folder, os.getpid())
        with open(path, "w+b") as file:
            file.truncate(_SIZE)
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._cells = memoryview(self._map).cast("q")
        self._lock = threading.Lock()
        self._own = threading.local()
        self._free = list(range(SLOTS - 1, -1, -1))

    def slot(self, run: str) -> Slot:
        """This thread's slot, marked as working for `run`."""
        base = getattr(self._own, "base", None)
        if base is None:
            with self._lock:
                # More threads than slots share the last one: the driver then sees one of them, and finds the others by
                # running suspects alone.
                base = (self._free.pop() if len(self._free) > 1 else self._free[0]) * _FIELDS
            self._own.base = base
        for place in range(base + 1, base + _FIELDS):
            self._cells[place] = 0
        self._cells[base] = run_tag(run)
        return Slot(self._cells, base)


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one thread notes what it executes."""

    cells: memoryview
    base: int

    def note(self, start: int, count: int) -> None:
        """Executing `count` items from `start` on (none yet if it is -1); a loop over single items moves `cells[at]` alone."""
        self.cells[self.base + 2] = 0
        self.cells[self.base + 1] = start
        self.cells[self.base + 2] = count

    @property
    def at(self) -> int:
        """The cell that holds `start`."""
        return self.base + 1

    def clear(self) -> None:
        """Executing nothing."""
        self.cells[self.base] = 0
        self.cells[self.base + 2] = self.cells[self.base + 3] = 0


@dataclass(frozen=True, slots=True)
class Executing:
    """What one thread is at: the items `[start, stop)`, begun `began` nanoseconds after the machine's monotonic zero."""

    start: int
    stop: int
    began: int
    slot: int
    """Which thread of the process."""
    until: int
    """Before which item it looks whether something was taken from its chunk."""


def read_executing(folder: str | os.PathLike[str], pid: int, run: str | None = None) -> tuple[Executing, ...] | None:
    """What the threads of process `pid` were executing of `run`, or of all runs; None if it left no black box."""
    cells = _cells(folder, pid)
    if cells is None:
        return None
    tag = None if run is None else run_tag(run)
    noted = [
        (base, *cells[base : base + _FIELDS].tolist())
        for base in range(0, len(cells), _FIELDS)
        if cells[base] and tag in (None, cells[base])
    ]
    return tuple(
        Executing(start, start + count, began, base, until)
        for base, _, start, count, began, _, until, _ in noted
        if count > 0 and start >= 0
    )


def is_busy(folder: str | os.PathLike[str], pid: int) -> bool:
    """Whether process `pid` is executing anything, of any run."""
    cells = _cells(folder, pid)
    return cells is not None and any(cells[base] for base in range(0, len(cells), _FIELDS))


def cut(folder: str | os.PathLike[str], pid: int, slot: int, number: int, end: int) -> None:
    """Have a thread of process `pid` end chunk `number` before item `end`, if it is still at that one. Costs 15 microseconds."""
    with suppress(OSError), open(_path(folder, pid), "r+b", buffering=0) as file:
        for field, value in ((_END, end), (_TAKEN, number)):
            file.seek((slot + field) * 8)
            file.write(value.to_bytes(8, sys.byteorder))


def _cells(folder: str | os.PathLike[str], pid: int) -> memoryview | None:
    try:
        content = _path(folder, pid).read_bytes()
    except OSError:
        return None
    return memoryview(content).cast("q") if len(content) == _SIZE else None


def _path(folder: str | os.PathLike[str], pid: int) -> Path:
    return Path(folder) / f"executing-{pid}"
