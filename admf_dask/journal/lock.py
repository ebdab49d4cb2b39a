"""One writer: an advisory lock that the kernel takes back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from admf_dask.errors import JournalError

FILE = "journal.lock"


class Lock:
    """Held from construction to `release`. Raises JournalError, with the holder's process id, if another holds it."""

    def __init__(self, folder: Path) -> None:
        """Take it, or say who has it."""
        path = folder / FILE
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 100).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise JournalError(
                f"one run at a time can write a journal, but process {holder or 'unknown'} is writing the one in {folder}; "
                "wait for it, or give this run a folder of its own"
            ) from None
        except OSError:
            # A file system without locks.
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)
