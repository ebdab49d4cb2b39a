"""A scheduler and workers that somebody else started, as `dask scheduler` and `dask worker` do, with their own settings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_work import wait_for_file

HERE = Path(__file__).parent
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Remote:
    """What was started, and where it is."""

    address: str
    scheduler: Process
    nannies: list[Process]
    page_port: int | None
    """Of the scheduler's dashboard."""


@contextlib.contextmanager
def remote(
    folder: Path, *, workers: int = 2, workers_under: Sequence[str] = (), pages: Sequence[str] | None = None
) -> Iterator[Remote]:
    """A scheduler, and nanny processes with a worker process each.

    `workers_under` is a command that runs the command after it. With `pages` the scheduler has a dashboard, and these options.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
        "DASK_TEMPORARY_DIRECTORY": str(folder),
    }
    where = folder / "scheduler.json"
    quiet: dict[str, Any] = {
        "env": environment, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
    }  # fmt: skip
    shared = ["--scheduler-file", str(where), "--host", "127.0.0.1"]
    dashboard = ["--no-dashboard"] if pages is None else ["--dashboard-address", "127.0.0.1:0", *pages]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *shared, "--port", "0", *dashboard]
    scheduler = subprocess.Popen(command, **quiet)
    try:
        wait_for_file(str(where))
        while not (text := where.read_text()).endswith("}"):
            pass
        facts = json.loads(text)
        worker = [*workers_under, sys.executable, "-m", "distributed.cli.dask_worker", *shared]
        worker += ["--no-dashboard", "--nthreads=1", "--local-directory", str(folder)]
        nannies = [subprocess.Popen(worker, start_new_session=True, **quiet) for _ in range(workers)]
        try:
            yield Remote(facts["address"], scheduler, nannies, facts["services"].get("dashboard"))
        finally:
            for nanny in nannies:
                # With its worker: a nanny without a scheduler takes half a minute to end.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(nanny.pid, signal.SIGKILL)
                nanny.wait(30)
    finally:
        scheduler.kill()
        scheduler.wait(30)
