"""Printing that outlives its reader."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print a line at once. When the reader has left (`| head`), this and all that follows goes nowhere, and the work goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
