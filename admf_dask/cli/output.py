"""Printing that outlives its reader."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from admf_dask.errors import DataError


def say(text: str) -> None:
    """Print a line at once. When the reader has left (`| head`), this and all that follows goes nowhere, and the work goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def not_saved(error: OSError, out: Path) -> DataError:
    """What to say where the tables cannot be written: the journal has what was computed."""
    return DataError(
        f"the tables cannot be saved in {out}: {error.strerror or error}; make room there and type the same command with --out "
        f"{out}: what was computed is in its journal and is not computed again"
    )
