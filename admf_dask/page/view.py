"""`RunView`: what the page knows of one run, built from updates. No Bokeh, no cluster, bounded memory."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.outcomes import Curve
from admf_dask.progress.digest import Update
from admf_dask.space import Combinable
from admf_dask.space.axes import known_by

MOST_ROWS = 2**20
"""Rows kept of a run: 16 bytes each. Beyond, every second one is let go, again and again; the best are in the leaderboard."""
ROWS_OF_OLD = 2**16
"""Rows kept of a run that ended a while ago: a megabyte."""
MOST_CELLS = 64
"""Cells of a heatmap's side; more values than that share cells."""
MOST_RISES = 400
"""Of the best so far, kept of one batch of rows."""
RATES = 600
"""Seconds of throughput that are drawn."""

Floats = NDArray[np.float64]
_NO_ROWS = np.empty(0, np.int64), np.empty(0)


@dataclass
class RunView:
    """One run."""

    last: Update
    labels: tuple[str, ...] | None = None
    space: Combinable | None = None
    client: str = ""
    lost: bool = False
    """Whether its driver went away before it ended."""
    indices: NDArray[np.int64] = field(default_factory=lambda: np.empty(1024, np.int64))
    scores: Floats = field(default_factory=lambda: np.empty(1024))
    size: int = 0
    seen: int = 0
    """Rows that came, kept or not."""
    stride: int = 1
    """One row in so many is kept."""
    version: int = 0
    """Grows with each update."""
    improvements: list[tuple[int, float]] = field(default_factory=list)
    """The best so far: rows seen, score."""
    rates: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=4 * RATES))
    """Moments and items done until then."""
    finished_items: set[int] = field(default_factory=set)
    failed_items: set[int] = field(default_factory=set)
    curves: tuple[Curve, ...] = ()
    """Of the best few, best first."""
    _surfaces: dict[tuple[str, str, str], Surface] = field(default_factory=dict)

    @classmethod
    def of(cls, update: Update, client: str = "") -> RunView:
        """From the first update."""
        view = cls(update, labels=update.labels, client=client)
        if update.axes is not None:
            view.space = pickle.loads(update.axes)
        view.rates.append((update.began, update.recalled))
        view.take(update)
        return view

    def take(self, update: Update) -> None:
        """Learn from an update; they come in order."""
        self.last = update
        self.version += 1
        if not self.rates or update.at > self.rates[-1][0]:
            self.rates.append((update.at, update.done))
        if self.labels is not None:
            self.finished_items.update(update.indices.tolist())
            self.failed_items.update(update.failed_items)
        if update.curves is not None:
            self.curves = update.curves
        if len(update.scores):
            self._keep(update.indices[: len(update.scores)], update.scores)
        # What was new of it is taken; a million rows of a run that ended would stay with it.
        self.last = replace(update, indices=_NO_ROWS[0], scores=_NO_ROWS[1], failed_items=(), axes=None)

    def _keep(self, indices: NDArray[np.int64], scores: Floats) -> None:
        self._improve(scores)
        offset = -self.seen % self.stride
        self.seen += len(scores)
        indices, scores = indices[offset :: self.stride], scores[offset :: self.stride]
        if self.size + len(scores) > MOST_ROWS:
            self._thin()
            indices, scores = indices[::2], scores[::2]
        needed = self.size + len(scores)
        if needed > len(self.scores):
            room = min(max(2 * len(self.scores), needed), max(MOST_ROWS, needed))
            self.indices, self.scores = _grown(self.indices, room, self.size), _grown(self.scores, room, self.size)
        self.indices[self.size : needed] = indices
        self.scores[self.size : needed] = scores
        self.size = needed

    def _thin(self) -> None:
        kept = len(range(0, self.size, 2))
        self.indices[:kept] = self.indices[: self.size : 2].copy()
        self.scores[:kept] = self.scores[: self.size : 2].copy()
        self.size, self.stride = kept, 2 * self.stride
        self._surfaces.clear()

    def shrink(self) -> None:
        """Keep few rows: for a run that is old."""
        while self.size > ROWS_OF_OLD:
            self._thin()
        if len(self.scores) > ROWS_OF_OLD:
            self.indices, self.scores = self.indices[: self.size].copy(), self.scores[: self.size].copy()

    def _improve(self, scores: Floats) -> None:
        """Where within the new rows the best so far rises; a few hundred points for each batch, never more than 2,000 in all."""
        sign = 1.0 if self.last.maximize else -1.0
        values = np.where(np.isnan(scores), -np.inf, sign * scores)
        before = sign * self.improvements[-1][1] if self.improvements else -np.inf
        running = np.maximum.accumulate(np.maximum(values, before))
        # Not by differences, which infinities have none of.
        rises = np.flatnonzero(running > np.concatenate(([before], running[:-1])))
        # Scores that come in their own order rise at every row; the last rise is the best, so it stays.
        rises = rises[::-1][:: 1 + len(rises) // MOST_RISES][::-1]
        self.improvements += [(self.seen + place + 1, float(sign * running[place])) for place in rises.tolist()]
        if len(self.improvements) > 2000:
            self.improvements = self.improvements[::2] + self.improvements[-1:]

    # -- what is drawn -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`running`, `finished`, `interrupted`, `failed` or `driver gone`."""
        return "driver gone" if self.lost and self.last.state == "running" else self.last.state

    def elapsed(self, now: float) -> float:
        """Seconds since the start; until the end if it has ended."""
        return max(0.0, (now if self.state == "running" else self.last.at) - self.last.began)

    def rate(self, now: float, window: float = 15.0) -> float:
        """Items a second over the last `window` seconds, or over all of a run that ended."""
        if self.state != "running":
            elapsed = self.elapsed(now)
            return (self.last.done - self.last.recalled) / elapsed if elapsed > 0 else 0.0
        since = max(self.rates[0][0], now - window)
        count = np.interp(since, [at for at, _ in self.rates], [done for _, done in self.rates])
        return float(self.last.done - count) / (now - since) if now > since else 0.0

    def time_left(self, now: float) -> tuple[float, float, float] | None:
        """Seconds left: low, likely, high, from the slowest and the fastest fifth of the recent time; None if unknown."""
        left = self.last.total - self.last.done
        likely = self.rate(now)
        if self.state != "running" or likely <= 0 or self.last.open_ended:
            return None
        rates = sorted(self.throughput(now)[1][-20:]) or [likely]
        low, high = rates[len(rates) // 5] or likely / 2, rates[-1 - len(rates) // 5] or likely
        return left / max(high, likely), left / likely, left / min(low or likely, likely)

    def throughput(self, now: float) -> tuple[list[float], list[float]]:
        """Moments (seconds since the epoch) and items a second there, at most 240 points, the latest last."""
        pairs = list(self.rates)
        if len(pairs) < 2:
            return [], []
        # Updates come a few times a second; only a longer silence is a fall of the rate.
        until = now if self.state == "running" and now > pairs[-1][0] + 3 else pairs[-1][0]
        began = max(pairs[0][0], until - RATES)
        step = max(0.5, (until - began) / 240)
        edges = np.arange(began, until, step)
        if len(edges) < 3:
            # One point is no line.
            return [], []
        counts = np.interp(edges, [at for at, _ in pairs], [done for _, done in pairs])
        return edges[1:].tolist(), (np.diff(counts) / step).tolist()

    def points(self, most: int = 4000) -> tuple[NDArray[np.int64], Floats]:
        """How many were done, and scores, of at most `most` rows spread evenly; those that are shown stay while it grows."""
        step = 1 << max(0, -(-self.size // most) - 1).bit_length()
        places = np.arange(0, self.size, step)
        return places * self.stride + 1, self.scores[places]

    def told(self, parameters: Iterable[str]) -> list[str]:
        """Those of some parameters that differ from item to item; all where that is not known, or none does."""
        names = list(parameters)
        return [name for name in names if name in self._several] or names

    @cached_property
    def _several(self) -> frozenset[str]:
        if self.space is None:
            return frozenset()
        return frozenset(name for name in self.space.names if len(self._axis(name)) > 1)

    @property
    def names(self) -> list[str]:
        """Parameters that a heatmap can be drawn over: those with at least two values."""
        if self.space is None:
            return []
        several = [name for name in self.space.names if name in self._several and len(self._axis(name)) <= 100_000]
        # Numbers first: they are what a surface is looked at over.
        return sorted(several, key=lambda name: not all(map(_is_number, self._axis(name))))

    def _axis(self, name: str) -> list[Any]:
        values: list[Any] = self.space.axis_values(name)  # type: ignore[union-attr]
        return values

    def surface(self, x: str, y: str, how: str) -> Surface:
        """The heatmap over two parameters: `how` is `best`, `worst` or `mean` over the others."""
        assert self.space is not None
        surface = self._surfaces.get((x, y, how))
        if surface is None:
            if len(self._surfaces) > 8:
                self._surfaces.clear()
            sides = Side.of(x, self._axis(x)), Side.of(y, self._axis(y))
            surface = self._surfaces[x, y, how] = Surface(*sides, how, self.last.maximize)
        if surface.upto < self.size:
            rows = slice(surface.upto, self.size)
            surface.add(self.space.take(self.indices[rows]), self.scores[rows])
            surface.upto = self.size
        return surface

    def what(self, index: int) -> str:
        """An item in one line."""
        if self.space is not None and 0 <= index < self.space.size:
            item = self.space[index]
            return "  ".join(f"{name} {_short(item[name])}" for name in self.told(item))
        if self.labels is not None and 0 <= index < len(self.labels):
            return self.labels[index]
        return f"item {index:,}"


@dataclass
class Side:
    """One axis of a heatmap: the values of a parameter, in cells."""

    name: str
    labels: list[str]
    first: list[Any]
    """The lowest value of each cell."""
    numeric: bool
    _places: dict[Any, int]

    @classmethod
    def of(cls, name: str, values: list[Any]) -> Side:
        numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        ordered = sorted(value for value in values if value == value) if numeric else values
        cells = min(len(ordered), MOST_CELLS)
        edges = [len(ordered) * cell // cells for cell in range(cells)]
        first = [ordered[edge] for edge in edges]
        places = {} if numeric else {known_by(v): place * cells // len(ordered) for place, v in enumerate(ordered)}
        return cls(name, _labels(first), first, numeric, places)

    def codes(self, column: NDArray[Any]) -> NDArray[np.int64]:
        """The cell of each value; -1 where the parameter does not exist, or is NaN."""
        if self.numeric and column.dtype == object:
            # Not all of them fit into an array of numbers.
            known = (value if _is_number(value) and value == value else None for value in column.tolist())
            return np.array([-1 if value is None else bisect_right(self.first, value) - 1 for value in known], np.int64)
        if self.numeric:
            cells = np.searchsorted(np.asarray(self.first), column, side="right") - 1
            return np.where(np.isnan(column), -1, cells)
        return np.array([self._places.get(known_by(value), -1) for value in column.tolist()], np.int64)


@dataclass
class Surface:
    """A heatmap that grows with the rows."""

    x: Side
    y: Side
    how: str
    maximize: bool
    upto: int = 0
    _values: Floats = field(init=False)
    _counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        shape = len(self.y.first), len(self.x.first)
        self._highest = (self.how == "best") == self.maximize
        start = 0.0 if self.how == "mean" else -np.inf if self._highest else np.inf
        self._values, self._counts = np.full(shape, start), np.zeros(shape, np.int64)

    def add(self, columns: dict[str, NDArray[Any]], scores: Floats) -> None:
        """More rows."""
        across, down = self.x.codes(columns[self.x.name]), self.y.codes(columns[self.y.name])
        there = ~np.isnan(scores) & (across >= 0) & (down >= 0)
        cells = down[there], across[there]
        np.add.at(self._counts, cells, 1)
        gather = np.add if self.how == "mean" else np.maximum if self._highest else np.minimum
        gather.at(self._values, cells, scores[there])

    @property
    def values(self) -> Floats:
        """Shape (cells of y, cells of x); NaN where nothing was evaluated."""
        filled = self._values / np.maximum(self._counts, 1) if self.how == "mean" else self._values
        return np.where(self._counts > 0, filled, np.nan)

    @property
    def best(self) -> tuple[int, int] | None:
        """Row and column of the best cell."""
        values = self.values
        if np.isnan(values).all():
            return None
        at = np.nanargmax(values) if self.maximize else np.nanargmin(values)
        row, column = np.unravel_index(int(at), values.shape)
        return int(row), int(column)


def _labels(values: list[Any]) -> list[str]:
    """Short, and different where the values are."""
    if all(isinstance(value, (int, float)) and abs(value) < 1000 for value in values):
        labels = [f"{value:.3g}" for value in values]
        if len(set(labels)) == len(labels):
            return labels
    return [_short(value) for value in values]


def _grown(array: NDArray[Any], room: int, used: int) -> NDArray[Any]:
    larger = np.empty(room, array.dtype)
    larger[:used] = array[:used]
    return larger


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]
