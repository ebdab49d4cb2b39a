"""Items that wait for each other, importable by workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from distributed import get_worker

from admf_dask.runtime import blackbox, job

PATIENCE = 30.0
LONGER_THAN_A_BUDGET = 0.6


def last_meets_the_one_before(item: tuple[int, str]) -> bool:
    """Of 80: the first of the upper half goes on until its chunk is cut; the next one and the last wait for each other.

    What is worth a chunk of its own follows from how long the first took, so there are enough of them for two in any case.
    """
    number, folder = item
    if number == 40:
        return wait(_cut)
    if number in (41, 79):
        Path(folder, str(number)).touch()
        return wait(Path(folder, str(120 - number)).exists)
    return True


def waits_for(gate: str) -> bool:
    return wait(Path(gate).exists)


def waits_for_those_behind(item: tuple[int, str]) -> bool:
    """Of 80: the first of the upper half waits for all after it."""
    number, folder = item
    if number == 40:
        return wait(lambda: len(list(Path(folder).iterdir())) == 39)
    if number > 40:
        Path(folder, str(number)).touch()
    return True


def batch_meets(columns: dict[str, np.ndarray], folder: str) -> np.ndarray:
    """The first call over the upper half goes on until its chunk is cut; two later ones wait for each other."""
    numbers = columns["number"]
    if numbers[0] == 2000:
        return np.full(len(numbers), float(wait(_cut)))
    if numbers[0] > 2000:
        Path(folder, str(numbers[0])).touch()
        return np.full(len(numbers), float(wait(lambda: len(list(Path(folder).iterdir())) > 1)))
    return np.ones(len(numbers))


def waits_until_the_first_is_seen(item: tuple[int, str]) -> str:
    """Of 24: item 10 takes longer than a budget; 11, the last of its chunk, ends when the driver has the value of 10. The key of
    the task.

    The other slot is busy meanwhile, or the chunk would be cut.
    """
    number, folder = item
    _takes(number)
    if number > 10 and not wait(Path(folder, f"seen-{min(11, number - 1)}").exists):
        raise TimeoutError("nobody saw it")
    return str(get_worker().get_current_task())


def dies_once_after_it_told(item: tuple[int, str]) -> int:
    """Item 10 takes longer than a budget; 11, the last of its chunk, takes its worker along once. Till then slots are busy."""
    number, folder = item
    calls = len(list(Path(folder).glob(f"call-{number}-*")))
    Path(folder, f"call-{number}-{calls}").touch()
    _takes(number)
    if number == 11 and not calls:
        # What was told has to have left this process.
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if number > 11:
        wait(Path(folder, "call-11-0").exists)
    return number


def _takes(number: int) -> None:
    """Items before the eleventh are not so quick that they are evaluated in groups."""
    time.sleep(LONGER_THAN_A_BUDGET if number == 10 else 0.002)


def _cut() -> bool:
    box = job._box
    assert box is not None
    return any(box._cells[base + blackbox._TAKEN] for base in range(0, len(box._cells), blackbox._FIELDS))


def wait(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    return condition()
