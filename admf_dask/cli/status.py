"""`admf-dask status DIR`: how far a run is, or how it ended."""

from __future__ import annotations

import argparse
from pathlib import Path

from admf_dask.cli.codes import INTERRUPTED, OK, SOME_FAILED
from admf_dask.cli.output import say
from admf_dask.journal import Journal
from admf_dask.journal.store import FILE


def run(parsed: argparse.Namespace) -> int:
    """Print it. Returns 0 while it runs and when all is well, 1 when items failed, 130 when it did not come to its end."""
    folder = Path(parsed.directory)
    status = Journal(folder / "journal" if not (folder / FILE).exists() else folder).status()
    say(status.words())
    if status.state in ("interrupted", "killed"):
        say("it goes on where it ended with the same command and the same folder")
        return INTERRUPTED
    return SOME_FAILED if status.failed else OK
