"""One contender, from the outside: a fresh process to start, to command, to weigh and to end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from foreign import LIMIT, foreign_share, wait_for_calm
from gauge import Gauge
from loads import Load
from memory import Peak, peak_of_tree

HERE = Path(__file__).resolve().parent
PATIENCE = 300.0
"""Seconds after which an answer is given up."""


class ContenderFailed(Exception):
    """The contender raised, died, gave a wrong result or did not answer; the text says which."""


def environment() -> dict[str, str]:
    """The variables of a child: this checkout comes first on the path."""
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(frozen=True)
class Lap:
    """One timed run."""

    seconds: float
    ideal: float
    """Pure work / slots: the mean of a measurement just before and one just after."""
    foreign: float
    """The largest share of the CPUs that others used during the three measurements."""

    @property
    def efficiency(self) -> float:
        """Ideal / time."""
        return self.ideal / self.seconds

    @property
    def calm(self) -> bool:
        """Whether nobody else disturbed it."""
        return self.foreign <= LIMIT


class Trial:
    """A running contender; a context manager that leaves no process behind.

    `cold` holds the seconds from the start of the interpreter to the first result and their parts.
    """

    def __init__(self, name: str, slots: int, gauge: Gauge) -> None:
        """`name` as in `contenders.CONTENDERS`."""
        self.name, self.slots, self.gauge = name, slots, gauge
        self.cold: dict[str, float] = {}

    def __enter__(self) -> Self:
        """Start the process and wait for its first result."""
        began = time.perf_counter()
        self._pipe, theirs = Pipe()
        command = [sys.executable, str(HERE / "contender.py"), str(theirs.fileno()), self.name, str(self.slots)]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment())
        theirs.close()
        try:
            self.cold = {**self._answer(), "total": time.perf_counter() - began}
        except BaseException:
            self._end()
            raise
        return self

    def rehearse(self, load: Load) -> Peak:
        """Check every value of a load, and return the peak memory meanwhile."""
        with peak_of_tree(self._process.pid) as peak:
            self._ask("time", load.fresh())
        return peak

    def time(self, load: Load, repeats: int, limit: float, patience: float) -> list[Lap]:
        """Time the load until `repeats` laps were undisturbed; at most twice as often, none begun after `limit` seconds.

        `patience`: how long to wait for a calm machine before it begins.
        """
        wait_for_calm(patience)
        deadline = time.monotonic() + limit
        laps: list[Lap] = []
        before = self._measured(self.gauge.seconds, load)
        while not laps or (
            len(laps) < 2 * repeats and sum(lap.calm for lap in laps) < repeats and time.monotonic() < deadline
        ):
            run = self._measured(lambda load: float(self._ask("time", load.fresh())), load)
            after = self._measured(self.gauge.seconds, load)
            foreign = max(before[1], run[1], after[1])
            laps.append(Lap(run[0], (before[0] + after[0]) / 2, foreign))
            before = after
        return laps

    @staticmethod
    def _measured(measure: Callable[[Load], float], load: Load) -> tuple[float, float]:
        """(seconds, foreign share meanwhile)."""
        with foreign_share() as foreign:
            spent = measure(load)
        return spent, foreign.share

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the contender in good order, or end it."""
        try:
            if error is None:
                self.cold["close"] = self._ask("close")
                self._process.wait(timeout=30)
        finally:
            self._end()

    def _ask(self, *order: Any) -> Any:
        self._pipe.send(order)
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(PATIENCE):
                raise ContenderFailed(f"{self.name} did not answer within {PATIENCE:.0f} s")
            verdict, value = self._pipe.recv()
        except EOFError:
            raise ContenderFailed(f"{self.name} ended with exit code {self._process.wait(timeout=30)}") from None
        if verdict == "error":
            raise ContenderFailed(f"{self.name}:\n{value}")
        return value

    def _end(self) -> None:
        self._pipe.close()
        if self._process.poll() is None:
            family = psutil.Process(self._process.pid)
            for process in [*family.children(recursive=True), family]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(timeout=30)
