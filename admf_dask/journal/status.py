"""What another terminal can know of a run: from its journal alone, while the run goes on or after it ended."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

from admf_dask.text import format_count, format_rate, format_seconds


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One sitting of a run, as its journal tells it. Seconds since the epoch; counts of items."""

    kind: str
    name: str
    state: str
    """`running`, `finished`, `interrupted`, `failed`, or `killed`: it says running, but its process is gone."""
    total: int
    recalled: int
    """Settled by earlier sittings."""
    done: int
    """Settled by this one."""
    evaluated: int
    rejected: int
    """Turned away by constraints, by earlier sittings over the same items too."""
    failed: int
    """Of all that is settled, by earlier sittings over the same items too."""
    began: float
    last: float
    """When the last block was written, or the run ended."""
    pid: int
    score: str | None
    best_score: float | None
    best_item: object

    @property
    def rate(self) -> float:
        """Items settled a second, 0 where nothing is known."""
        return self.done / (self.last - self.began) if self.last > self.began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the mean rate; None where nothing is known or nothing is under way."""
        left = self.total - self.recalled - self.done
        return left / self.rate if self.state == "running" and self.rate > 0 else None

    def words(self) -> str:
        """A few lines for a terminal."""
        settled = self.recalled + self.done
        share = f"{settled / self.total:.0%}".replace("%", " %") if self.total else "100 %"
        counts = [f"{format_count(settled)} of {format_count(self.total)} done ({share})"]
        if self.recalled:
            counts.append(f"{format_count(self.recalled)} of them by earlier runs")
        if self.rejected:
            counts.append(f"{format_count(self.rejected)} constrained out")
        counts.append(f"{format_count(self.failed)} failed")
        end = time.time() if self.state == "running" else self.last
        lines = [
            f"run        {self.name} ({self.kind}), {self.state}{f', process {self.pid}' if self.state == 'running' else ''}",
            f"items      {', '.join(counts)}",
            f"time       {format_seconds(max(0.0, end - self.began))}, {format_rate(self.rate)}"
            + (f", {format_seconds(left)} left" if (left := self.seconds_left) is not None else ""),
        ]
        if self.best_score is not None:
            lines.append(f"best       {self.score or 'score'} {self.best_score:.6g} at {self.best_item}")
        return "\n".join(lines)


def state_now(state: str, pid: int, process_began: float) -> str:
    """`killed` where the record says running and the process that said so is gone."""
    if state != "running":
        return state
    try:
        alive = abs(psutil.Process(pid).create_time() - process_began) < 1.0
    except psutil.Error:
        alive = False
    return "running" if alive else "killed"


def this_process() -> tuple[int, float]:
    """Process id, and when the process began: together they are never used again."""
    return os.getpid(), psutil.Process().create_time()
