"""Faults of all kinds mixed at random over many items, and workers killed from outside meanwhile: every innocent item is
evaluated, each item stands exactly once in the record, and each guilty one is named with its cause.

Short here; `ADMF_DASK_SOAK_ITEMS=5000 python -m pytest tests/test_soak.py` is the long form (a few minutes).
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import warnings
from pathlib import Path
from typing import Any

import fault_work as work
import psutil
import pytest

from admf_dask import Journal, Session, TaskError, TaskTimeout, WorkerDied
from admf_dask.journal.store import read_blocks
from admf_dask.runtime import FailedItemsWarning
from admf_dask.runtime.forkserver import server_pid

ITEMS = int(os.environ.get("ADMF_DASK_SOAK_ITEMS", "300"))
CAUSES: dict[str, tuple[Any, str]] = {
    "raise": (ValueError, "invalid literal"),
    "segfault": (WorkerDied, "SIGSEGV"),
    "exit": (WorkerDied, "exit code 3"),
    "kill": (WorkerDied, "SIGKILL"),
    "memory in big steps": (WorkerDied, "outgrew the memory limit"),
    "python loop": (TaskTimeout, "was stopped where the traceback shows"),
    "c loop that holds the interpreter": (TaskTimeout, "did not return to the interpreter"),
    "unpicklable result": (TaskError, "must survive pickling"),
    "system exit": (SystemExit, "4"),
}


def step(item: Any) -> Any:
    """An innocent item takes a few milliseconds, so that faults meet neighbours at work."""
    return work.act(item) if isinstance(item, str) else work.sleeps(item % 7)


class Killer(threading.Thread):
    """Ends a worker process from outside, each time that a tenth of the items has finished."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(name="killer")
        self.chance, self.due, self.over, self.kills = chance, threading.Semaphore(0), False, 0
        self.others = {child.pid for child in psutil.Process().children(recursive=True)}
        self.finished = 0

    def on_event(self, event: Any) -> None:
        block = getattr(event, "block", None)
        if block is not None:
            before, self.finished = self.finished, self.finished + len(block.indices)
            # Not at the end: a guilty item that is killed from outside while it runs alone dies of that.
            if before * 4 // ITEMS < self.finished * 4 // ITEMS < 4:
                self.due.release()

    def run(self) -> None:
        while self.due.acquire() and not self.over:
            children = psutil.Process().children(recursive=True)
            self.chance.shuffle(children)
            for child in children:
                # One may have ended since it was listed.
                with contextlib.suppress(psutil.Error):
                    forked = "multiprocessing.forkserver" in " ".join(child.cmdline()) and child.pid != server_pid()
                    if child.pid not in self.others and forked:
                        child.kill()
                        self.kills += 1
                        break

    def stop(self) -> None:
        self.over = True
        self.due.release()
        self.join()


@pytest.mark.cluster
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(("mode", "threads"), [("process", 1), ("hybrid", 2)])
def test_nothing_is_lost(mode: str, threads: int, tmp_path: Path) -> None:
    chance = random.Random(ITEMS + threads)
    guilty = [*CAUSES, *chance.choices(list(CAUSES), k=ITEMS // 100)]
    items: list[Any] = [*range(ITEMS), *guilty]
    chance.shuffle(items)
    killer = Killer(chance)
    killer.start()
    try:
        with (
            Session(
                mode=mode, workers=2 * threads, threads_per_process=threads, memory_limit="600MB", dashboard=None
            ) as session,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", FailedItemsWarning)
            outcomes = session.map(step, items, timeout=3.0, journal=tmp_path / "journal", progress=killer)
    finally:
        killer.stop()
    assert killer.kills > 0
    assert len(outcomes) == len(items)
    wrong = [outcome for outcome in outcomes if outcome.ok == isinstance(outcome.item, str)]
    assert not wrong, f"innocent items were blamed, or guilty ones passed: {wrong}"
    for outcome in outcomes:
        if not outcome.ok:
            kind, words = CAUSES[outcome.item]
            assert isinstance(outcome.error, kind), outcome
            assert words in str(outcome.error), outcome
    recorded = sorted(positions(tmp_path / "journal"))
    assert recorded == list(range(len(items))), "an item is missing from the record, or stands there twice"
    assert Journal(tmp_path / "journal").status().failed == len(guilty)


def positions(journal: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(journal / "journal.sqlite")) as connection:
        blocks = [stored.block for stored in read_blocks(connection, 1)]
    return [i for block in blocks for i in [*block.indices.tolist(), *(failed.index for failed in block.failures)]]
