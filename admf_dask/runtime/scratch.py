"""The folder that a session works in, and the sweeping of folders whose owners were killed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import psutil

_NAME = re.compile(r"admf-dask-(\d+)-\w+")


def make_scratch() -> str:
    """A new folder for this process's session, readable by its owner only; folders of dead processes are removed."""
    home = Path(tempfile.gettempdir())
    for entry in home.glob("admf-dask-*"):
        match = _NAME.fullmatch(entry.name)
        if match and not psutil.pid_exists(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"admf-dask-{os.getpid()}-", dir=home)
