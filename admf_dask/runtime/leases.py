"""Folders that last as long as somebody who works in them: a lease that the kernel ends, however its holder dies.

Each holder keeps a shared lock on a file in the folder. Who can lock it for himself alone knows that nobody is left, whatever
became of process ids meanwhile, and removes the folder.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from pathlib import Path

LEASE = ".lease"
_UNBORN = ".unborn-"


class Lease:
    """A hold on a folder, from construction to `release`."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError if the folder is gone."""
        self.folder = folder
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor: int | None = os.open(folder / LEASE, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give up the hold; the folder stays. Twice is no error."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def remove(self) -> None:
        """Give up the hold and remove the folder, whoever else holds it."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def new_folder(home: Path, prefix: str) -> Lease:
    """A new folder `prefix<random>` in `home`, readable by its owner only; abandoned ones beside it are removed.

    Raises OSError where `home` cannot be written.
    """
    sweep(home, prefix)
    name = f"{prefix}{secrets.token_hex(6)}"
    # Under its own name only when it is held, so that nobody sweeps it in between.
    unborn = home / f"{_UNBORN}{name}"
    unborn.mkdir(mode=0o700)
    try:
        lease = Lease(unborn)
        unborn.rename(home / name)
    except BaseException:
        shutil.rmtree(unborn, ignore_errors=True)
        raise
    lease.folder = home / name
    return lease


def sweep(home: Path, prefix: str) -> None:
    """Remove the folders `prefix*` of `home` that nobody holds."""
    for folder in home.glob(f"{prefix}*"):
        try:
            descriptor = os.open(folder / LEASE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            # Not one of ours, of another user, or gone already.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
