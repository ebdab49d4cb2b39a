"""What a progress line says, from events alone: counts, rate, time left, best so far. No clock and no stream in here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from admf_dask.events import BlockFinished, BlockRecalled, Event, RunFinished, RunStarted
from admf_dask.outcomes import Block
from admf_dask.ranking import better
from admf_dask.text import format_count, format_rate, format_seconds
from admf_dask.weights import Weights

WINDOW_SECONDS = 15.0


@dataclass(slots=True)
class ProgressState:
    """The state of one run, fed with its events."""

    name: str = ""
    total: int = 0
    done: int = 0
    recalled: int = 0
    evaluated: int = 0
    rejected: int = 0
    failed: int = 0
    best: float | None = None
    began: float = 0.0
    now: float = 0.0
    ended: str | None = None
    _score: str | None = None
    _maximize: bool = True
    _weights: Weights | None = None
    _work: int = 0
    """Work done, in the unit of the weights."""
    _recent: deque[tuple[float, int, int]] = field(default_factory=deque)
    """When how many items, and how much work, were done."""

    def take(self, event: Event) -> None:
        """Learn from an event."""
        self.now = event.at
        if isinstance(event, RunStarted):
            self.name, self.total, self.began = event.name, event.total, event.at
            self._score, self._maximize = event.score, event.maximize
            self.done = self.recalled = event.recalled
            self._weights = event.weights
            self._recent.append((event.at, self.done, 0))
        elif isinstance(event, BlockRecalled):
            self._count(event.block)
            self._recent[-1] = (self._recent[-1][0], self.done, self._work)
        elif isinstance(event, BlockFinished):
            block = event.block
            self.done += block.stop - block.start
            self._count(block)
            self._recent.append((event.at, self.done, self._work))
            while len(self._recent) > 2 and self._recent[1][0] < event.at - WINDOW_SECONDS:
                self._recent.popleft()
        elif isinstance(event, RunFinished):
            self.ended = event.state

    def _count(self, block: Block) -> None:
        self.evaluated += block.evaluated
        self.rejected += block.rejected
        self.failed += block.failed
        self._see_scores(block.columns)
        if self._weights is not None:
            settled = [*block.indices.tolist(), *(failed.index for failed in block.failures)]
            self._work += int(self._weights.work[np.array(settled, np.int64)].sum())

    def _see_scores(self, columns: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] | None) -> None:
        if not columns:
            return
        scores = columns.get(self._score) if self._score else next(iter(columns.values()))
        if scores is None or not len(scores) or np.isnan(scores).all():
            return
        best = float(np.nanmax(scores) if self._maximize else np.nanmin(scores))
        if self.best is None or better(best, self.best, maximize=self._maximize):
            self.best = best

    @property
    def rate(self) -> float:
        """Items a second over the last 15 seconds; 0 when nothing is known."""
        (since, before, _), (until, after, _) = self._recent[0], self._recent[-1]
        return (after - before) / (until - since) if until > since else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the recent rate of items, or of work where items weigh differently; None when nothing is known."""
        if self._weights is None:
            return (self.total - self.done) / self.rate if self.rate > 0 else None
        (since, _, before), (until, _, after) = self._recent[0], self._recent[-1]
        if after <= before or until <= since:
            return None
        return (self._weights.work_of(0, self.total) - after) * (until - since) / (after - before)

    @property
    def share(self) -> float:
        """Done, from 0 to 1."""
        return self.done / self.total if self.total else 1.0

    def words(self) -> str:
        """Everything but name and bar: `1,200/10,000 (12 %), 3 failed, best 1.612, 5,100/s, 1.7 s left`."""
        parts = [f"{format_count(self.done)}/{format_count(self.total)} ({self.share:.0%})".replace("%", " %")]
        if self.recalled:
            parts.append(f"{format_count(self.recalled)} from the journal")
        if self.rejected:
            parts.append(f"{format_count(self.rejected)} constrained out")
        if self.failed:
            parts.append(f"{format_count(self.failed)} failed")
        if self.best is not None:
            parts.append(f"best {self.best:.4g}")
        elapsed = self.now - self.began
        if self.ended:
            done = self.done - self.recalled
            overall = f", {format_rate(done / elapsed)}" if elapsed > 0 and done else ""
            parts.append(f"{self.ended} in {format_seconds(elapsed)}{overall}")
        elif (left := self.seconds_left) is not None:
            parts.append(f"{format_rate(self.rate)}, {format_seconds(left)} left")
        return ", ".join(parts)
