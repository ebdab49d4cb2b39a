"""`admf-dask dashboard DIR`: the page over the journal of a run, while it goes on or afterwards."""

from __future__ import annotations

import argparse
from pathlib import Path

from admf_dask.cli.codes import OK
from admf_dask.cli.output import say
from admf_dask.cli.status import journal_folder


def run(parsed: argparse.Namespace) -> int:
    """Serve it until Ctrl-C."""
    from admf_dask.dashboard.standalone import serve

    folder = journal_folder(Path(parsed.directory))

    def ready(link: str, tunnel: str | None) -> None:
        say(f"{link}  (Ctrl-C ends it)")
        if tunnel:
            say(f"on your own machine first: {tunnel}")

    try:
        serve(folder, parsed.dashboard, ready)
    except KeyboardInterrupt:
        return OK
    return OK
