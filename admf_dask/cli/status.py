"""`admf-dask status DIR`: how far a run is, or how it ended."""

from __future__ import annotations

import argparse
from pathlib import Path

from admf_dask.cli.codes import INTERRUPTED, OK, SOME_FAILED
from admf_dask.cli.output import say
from admf_dask.journal import Journal
from admf_dask.journal.store import FILE


def journal_folder(folder: Path) -> Path:
    """Where the journal is of a run that was told `--out folder`, or that folder itself."""
    for name in ("", "journal", ".journal"):
        if (folder / name / FILE).exists():
            return folder / name
    return folder


def run(parsed: argparse.Namespace) -> int:
    """Print it. Returns 0 while it runs and when all is well, 1 when items failed, 130 when it did not come to its end."""
    status = Journal(journal_folder(Path(parsed.directory))).status()
    say(status.words())
    if status.state in ("interrupted", "killed"):
        say("it goes on where it ended with the same command and the same folder")
        return INTERRUPTED
    return SOME_FAILED if status.failed else OK
