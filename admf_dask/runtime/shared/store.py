"""`SharedStore`: the driver's files of shared data, in memory where there is room, else on disk.

What the user shares stays until the session closes. What a run shares by itself stays for the next run with the same data, and
goes, the longest unused first, when new data want the room.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from admf_dask.errors import ResourceError, TaskError
from admf_dask.machine import Machine
from admf_dask.runtime.leases import Lease, new_folder
from admf_dask.runtime.shared.arrival import PREFIX
from admf_dask.runtime.shared.data import SharedData, describe, forget
from admf_dask.runtime.shared.parcel import Parcel
from admf_dask.text import format_bytes

IN_MEMORY = Path("/dev/shm")
_SPARE = 1.1
"""Room that a file needs before it is begun, as a multiple of its size."""
_MOST_OF_FREE = 0.5
"""Share of the memory now available that one file may take; beyond, it goes to disk, where the kernel can drop its pages."""
_MOST_IDLE = 1 / 8
"""Share of the machine's memory that files may take which no run uses now; a guess, room for some data sets in turn."""


class SharedStore:
    """What a session shares. A file is named by its content, so equal content is there once. Thread-safe."""

    def __init__(self) -> None:
        """No folder is made before something is shared."""
        self._leases: dict[Path, Lease] = {}
        self._found: OrderedDict[str, SharedData] = OrderedDict()
        """By content; the longest unused first."""
        self._kept: set[str] = set()
        """What the user shared."""
        self._used: dict[str, set[str]] = {}
        """What the runs that are under way use."""
        self._dropped: list[SharedData] = []
        self._lock = threading.Lock()
        self._closed = False
        self.sent_away = False
        """Whether other machines have some of it."""

    def share(self, value: Any) -> SharedData:
        """Write a value once, and give its handle; equal content costs only the look (0.1 s for a gigabyte).

        Raises TaskError for what cannot be pickled, ResourceError when neither memory nor disk has room.
        """
        if isinstance(value, SharedData):
            return value
        try:
            parcel = Parcel.of(value)
        except Exception as error:
            raise TaskError(
                f"{describe(value)} cannot be shared, because it cannot be pickled: {type(error).__name__}: {error}"
            ) from error
        return self.put(parcel, describe(value))

    def put(self, parcel: Parcel, words: str, run: str | None = None) -> SharedData:
        """As `share`, of a parcel; one that a `run` shares by itself is kept for it, and after it as long as there is room."""
        with self._lock:
            if self._closed:
                raise ResourceError("the session is closed, so nothing can be shared in it")
            handle = self._known(parcel)
            if handle is None:
                self._drop_idle(int(Machine.probe(interval=0).memory_total * _MOST_IDLE) - parcel.size)
                handle = self._written(parcel, words)
                self._dropped = [dropped for dropped in self._dropped if dropped != handle]
            self._found[handle.key] = handle
            self._found.move_to_end(handle.key)
            if run is None:
                self._kept.add(handle.key)
            else:
                self._used.setdefault(run, set()).add(handle.key)
            return handle

    def _known(self, parcel: Parcel) -> SharedData | None:
        for known in self._found.values():
            # Who cleans up temporary files may have taken it.
            if known.size == parcel.size and os.path.exists(known.path) and parcel.is_in(known.path):
                return known
        return None

    def end(self, run: str) -> None:
        """A run is over. Nothing is removed before something else wants the room."""
        with self._lock:
            self._used.pop(run, None)

    def take_dropped(self) -> list[SharedData]:
        """What was removed since the last call: workers that have it mapped or received it should let go."""
        with self._lock:
            dropped, self._dropped = self._dropped, []
            return dropped

    def _drop_idle(self, room: int) -> None:
        """Remove what nobody uses, the longest unused first, until all of that fits into `room` bytes."""
        used = self._kept.union(*self._used.values())
        idle = [handle for key, handle in self._found.items() if key not in used]
        total = sum(handle.size for handle in idle)
        for handle in idle:
            if total <= room:
                return
            forget(handle.path)
            Path(handle.path).unlink(missing_ok=True)
            del self._found[handle.key]
            self._dropped.append(handle)
            total -= handle.size

    def _written(self, parcel: Parcel, words: str) -> SharedData:
        refused: list[str] = []
        for home in (IN_MEMORY, Path(tempfile.gettempdir())):
            room = _room(home)
            if room < parcel.size * _SPARE:
                self._drop_idle(0)
                room = _room(home)
            if room < parcel.size * _SPARE:
                refused.append(f"{home} has room for {format_bytes(room)}")
                continue
            try:
                return self._write(parcel, words, home)
            except OSError as error:
                refused.append(f"{home}: {error.strerror or error}")
        raise ResourceError(
            f"there is no room to share {format_bytes(parcel.size)} ({words}): {'; '.join(refused)}. Free some, set TMPDIR to "
            "a larger disk, or share less of it (fewer columns, float32)"
        )

    def _write(self, parcel: Parcel, words: str, home: Path) -> SharedData:
        if home not in self._leases:
            self._leases[home] = new_folder(home, PREFIX)
        folder = self._leases[home].folder
        partial = folder / f".{len(self._found)}.partial"
        try:
            key = parcel.write(partial)
            partial.rename(folder / key)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return SharedData(str(folder / key), parcel.size, words)

    @property
    def in_memory(self) -> int:
        """Bytes of the files that lie in memory."""
        return sum(handle.size for handle in list(self._found.values()) if Path(handle.path).is_relative_to(IN_MEMORY))

    @property
    def folders(self) -> list[str]:
        """Where they lie."""
        return [str(lease.folder) for lease in self._leases.values()]

    def close(self) -> None:
        """Remove the files. Who has them mapped can still read them."""
        with self._lock:
            self._closed = True
            for handle in self._found.values():
                forget(handle.path)
            for lease in self._leases.values():
                lease.remove()
            self._leases.clear()
            self._found.clear()


def _room(home: Path) -> int:
    """Bytes that may be written below `home`."""
    if not os.access(home, os.W_OK):
        return 0
    room = 0
    with contextlib.suppress(OSError):
        room = shutil.disk_usage(home).free
    if home == IN_MEMORY:
        # What a container may still take counts, not what its host has.
        room = min(room, int(Machine.probe(interval=0).memory_available * _MOST_OF_FREE))
    return room
