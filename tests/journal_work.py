"""What the journal tests evaluate; a module of its own so that drivers in other processes import it too."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from admf_dask import Journal, ParallelConfig, ParallelOptimizer, ParameterSpace, Session
from admf_dask.runtime import chunks

FOLDER_OF_MARKS = "ADMF_DASK_TEST_MARKS"
FILE_TO_WAIT_FOR = "ADMF_DASK_TEST_FILE"


def mark(item: Any) -> None:
    """Leave a trace of the call that outlives this process."""
    folder = os.environ.get(FOLDER_OF_MARKS)
    if folder:
        name = str(item).replace("/", "-").replace(" ", "")
        with open(Path(folder, name), "ab") as file:
            file.write(b"x")


def hold() -> None:
    """Wait for a file, where there is one to wait for."""
    path = os.environ.get(FILE_TO_WAIT_FOR)
    while path and not Path(path).exists():
        time.sleep(0.01)


def score(params: dict[str, Any]) -> float:
    if (params["fast"], params["slow"]) == (20, 44):
        # The last of all: a driver does not come to its end before its test is done with it.
        hold()
    mark((params["fast"], params["slow"]))
    time.sleep(0.002)
    if params["fast"] == 13:
        raise ValueError("thirteen")
    return params["fast"] * 100.0 - params["slow"]


def text(item: str) -> str:
    mark(item)
    return item.upper()


def long_text(item: str) -> str:
    return item * 200_000


def space(width: int = 20) -> ParameterSpace:
    return ParameterSpace({"fast": range(1, width + 1), "slow": range(5, 45)}, constraints=["fast < slow"])


def drive(journal: str) -> None:
    """A driver of its own, to be killed."""
    chunks.FIRST_BUDGET_SECONDS = chunks.TARGET_SECONDS = 0.05  # many small blocks
    mode = os.environ.get("ADMF_DASK_TEST_MODE", "process")
    config = (
        ParallelConfig(mode=mode, max_workers=2, dashboard=None) if mode != "inline" else ParallelConfig(enabled=False)
    )
    with Session(config) as session:
        ParallelOptimizer(session=session).optimize(space(), score, journal=Journal(journal), progress=False)


if __name__ == "__main__":
    drive(sys.argv[1])
