"""`Digest`: the events of a run as small updates for those who watch from elsewhere (the page, a report).

An `Update` holds what is new since the last one: rows as two arrays, counts as they stand, the best few and the latest failures
with their parameters in words. So whoever takes it needs neither the items nor the user's modules, and a million evaluations
cost 16 bytes each on the way.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.events import BlockFinished, BlockRecalled, Event, Notice, RunFinished, RunStarted
from admf_dask.outcomes import Block, Curve, FailedItem
from admf_dask.space import Combinable
from admf_dask.space.combinations import Combinations

TOP = 20
"""Rows of the leaderboard."""
CURVES = 5
"""Curves of the best that are told."""
FAILURES = 20
"""Latest failures that are told in full."""
MOST_LABELS = 10_000
"""Items up to which each has its name in the first update; beyond, they are known by their number."""
_LARGEST_AXES = 4 * 2**20
_TEXT = 20_000

Parameters = dict[str, str]
"""Parameters in words, in order; an item that is no mapping is under the name `item`."""


@dataclass(frozen=True)
class FailureTold:
    """A failed item in words."""

    index: int
    item: Parameters
    kind: str
    """Class of the error."""
    summary: str
    traceback: str
    at: float


@dataclass(frozen=True)
class Update:
    """What is new of a run, and how it stands."""

    run: str
    kind: str
    name: str
    total: int
    slots: int
    score: str | None
    """The column that ranks."""
    maximize: bool
    began: float
    at: float
    state: str
    """`running`, `finished`, `interrupted` or `failed`."""
    recalled: int
    done: int
    evaluated: int
    failed: int
    rejected: int
    indices: NDArray[np.int64]
    """Items whose rows are new, in the order in which they finished, shape (n,)."""
    scores: NDArray[np.float64]
    """Their scores, shape (n,); empty where values are no scores."""
    best: tuple[tuple[float, int, Parameters], ...]
    """The best so far: score, item, parameters; best first."""
    failures: tuple[FailureTold, ...]
    """The latest, newest first."""
    kinds: dict[str, int]
    """Class of error -> how often."""
    notices: tuple[tuple[float, str], ...]
    failed_items: tuple[int, ...] = ()
    """Items that failed and are new."""
    labels: tuple[str, ...] | None = None
    """In the first update, for few items: the name of each."""
    axes: bytes | None = None
    """In the first update, for combinations: the space without its constraints, pickled."""
    curves: tuple[Curve, ...] | None = None
    """Of the best few, best first; None where they are as they were."""
    open_ended: bool = False
    """Whether nobody knows the total, which is then what is done."""

    def pack(self) -> bytes:
        """For the wire."""
        return pickle.dumps(self, protocol=5)


@dataclass
class Digest:
    """Takes events, gives updates. Not thread-safe."""

    items: Sequence[Any]
    _started: RunStarted | None = None
    _state: str = "running"
    _at: float = 0.0
    _score: str | None = None
    _counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("done", "evaluated", "failed", "rejected"), 0)
    )
    _indices: list[NDArray[np.int64]] = field(default_factory=list)
    _scores: list[NDArray[np.float64]] = field(default_factory=list)
    _unranked: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=list)
    """Indices and scores of blocks that the best do not know of yet."""
    _best: list[tuple[float, int]] = field(default_factory=list)
    _failures: list[tuple[FailedItem, float]] = field(default_factory=list)
    _failed_items: list[int] = field(default_factory=list)
    _kinds: dict[str, int] = field(default_factory=dict)
    _notices: list[tuple[float, str]] = field(default_factory=list)
    _curves: dict[int, Curve] = field(default_factory=dict)
    _curves_told: tuple[int, ...] = ()
    _told: bool = False
    _words: dict[int, Parameters] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Learn from an event."""
        self._at = event.at
        if isinstance(event, RunStarted):
            self._started, self._score = event, event.score
            self._counts["done"] = event.recalled
        elif isinstance(event, BlockRecalled):
            self._count(event.block, event.at)
        elif isinstance(event, BlockFinished):
            self._counts["done"] += event.block.stop - event.block.start
            self._count(event.block, event.at)
        elif isinstance(event, Notice):
            self._notices = [*self._notices, (event.at, event.text)][-FAILURES:]
        elif isinstance(event, RunFinished):
            self._state = event.state

    def _count(self, block: Block, at: float) -> None:
        for name in ("evaluated", "failed", "rejected"):
            self._counts[name] += getattr(block, name)
        for failed in block.failures:
            kind = failed.failure.error_type
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
        self._failures = [*self._failures, *((failed, at) for failed in block.failures[-FAILURES:])][-FAILURES:]
        self._failed_items += [failed.index for failed in block.failures]
        self._indices.append(block.indices)
        if block.columns:
            self._score = self._score or next(iter(block.columns))
            scores = block.columns.get(self._score)
            if scores is not None:
                self._scores.append(scores)
                self._unranked.append((block.indices, scores))
        if block.curves:
            self._rank()
            self._curves |= {curve.index: curve for curve in block.curves}
            # A block knows the best of its own; what is not among the best of all is let go.
            leaders = {index for _, index in self._best[:CURVES]}
            self._curves = {index: curve for index, curve in self._curves.items() if index in leaders}

    def _rank(self) -> None:
        """Bring the best up to date: seldom and of many blocks at once, because the run waits for what a block costs here."""
        if not self._unranked:
            return
        indices, scores = (np.concatenate(parts) for parts in zip(*self._unranked, strict=True))
        self._unranked = []
        sign = -1.0 if self._started is None or self._started.maximize else 1.0
        keys = np.where(np.isnan(scores), np.inf, sign * scores)
        if len(self._best) == TOP:
            # Most scores are not for the board, and are seen through at once.
            keys = np.where(keys < sign * self._best[-1][0], keys, np.inf)
        places = np.flatnonzero(np.isfinite(keys) | np.isneginf(keys))
        if not len(places):
            return
        if len(places) > TOP:
            places = places[np.argpartition(keys[places], TOP)[:TOP]]
        found = [*self._best, *((float(scores[place]), int(indices[place])) for place in places.tolist())]
        found.sort(key=lambda pair: (sign * pair[0], pair[1]))
        self._best = found[:TOP]

    def update(self) -> Update | None:
        """What is new; None before the run has started."""
        started = self._started
        if started is None:
            return None
        first, self._told = not self._told, True
        self._rank()
        indices, scores, failed = self._indices, self._scores, self._failed_items
        self._indices, self._scores, self._failed_items = [], [], []
        return Update(
            run=started.run, kind=started.kind, name=started.name, total=started.total, slots=started.slots,
            score=self._score, maximize=started.maximize, began=started.at, at=self._at, state=self._state,
            recalled=started.recalled, done=self._counts["done"], evaluated=self._counts["evaluated"],
            failed=self._counts["failed"], rejected=self._counts["rejected"],
            indices=np.concatenate(indices) if indices else np.empty(0, np.int64),
            scores=np.concatenate(scores) if scores else np.empty(0, np.float64),
            best=tuple((score, index, self._in_words(index)) for score, index in self._best),
            failures=tuple(self._told_failure(*pair) for pair in reversed(self._failures)),
            kinds=dict(self._kinds), notices=tuple(self._notices), failed_items=tuple(failed),
            labels=labels_of(self.items) if first else None, axes=axes_of(self.items) if first else None,
            curves=self._new_curves(),
        )  # fmt: skip

    def _new_curves(self) -> tuple[Curve, ...] | None:
        leaders = tuple(index for _, index in self._best[:CURVES] if index in self._curves)
        if leaders == self._curves_told:
            return None
        self._curves_told = leaders
        return tuple(self._curves[index] for index in leaders)

    def _told_failure(self, failed: FailedItem, at: float) -> FailureTold:
        failure = failed.failure
        trace = failure.traceback if len(failure.traceback) <= _TEXT else f"...{failure.traceback[-_TEXT:]}"
        return FailureTold(
            failed.index, self._in_words(failed.index), failure.error_type, failure.summary[:500], trace, at
        )

    def _in_words(self, index: int) -> Parameters:
        if index not in self._words:
            if len(self._words) > 1000:
                self._words.clear()
            self._words[index] = in_words(self.items[index])
        return self._words[index]


def in_words(item: Any) -> Parameters:
    """An item as names and short texts."""
    if isinstance(item, Mapping):
        return {str(name)[:80]: value_words(value) for name, value in list(flat(item).items())[:50]}
    return {"item": value_words(item)}


def flat(item: Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping whose values are mappings as one: `parameters: {fast: 5}` is `fast: 5`. The first of equal names stays."""
    found: dict[Any, Any] = {}
    for name, value in item.items():
        for inner, one in value.items() if isinstance(value, Mapping) and value else ((name, value),):
            found.setdefault(inner, one)
    return found


def value_words(value: Any) -> str:
    """A parameter as a person writes it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value[:200]
    if isinstance(value, type):
        return value.__qualname__[:200]
    try:
        return repr(value)[:200]
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may do anything
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def labels_of(items: Sequence[Any]) -> tuple[str, ...] | None:
    """The names of a few items that are no combinations; None for many, and for combinations."""
    if isinstance(items, Combinable) or len(items) > MOST_LABELS:
        return None
    return tuple(", ".join(in_words(items[place]).values())[:80] for place in range(len(items)))


def axes_of(items: Sequence[Any]) -> bytes | None:
    """Combinations without their constraints, which may need modules that only the user has; None for other items.

    A few thousand mappings, such as strategy configs, are combinations too, as far as their values are plain.
    """
    if not isinstance(items, Combinable):
        if len(items) > MOST_LABELS or not all(isinstance(item, Mapping) for item in items):
            return None
        items = Combinations([_plain(item) for item in items])
    try:
        packed = pickle.dumps(items.without_constraints(), protocol=5)
    except Exception:  # noqa: BLE001 - values that only cloudpickle knows: then there is no heatmap, and the rest is there
        return None
    return packed if len(packed) <= _LARGEST_AXES else None


def _plain(item: Mapping[Any, Any]) -> dict[str, Any]:
    found = {str(name): value for name, value in flat(item).items() if value is not None}
    return {n: v if isinstance(v, (str, int, float, bool)) else value_words(v) for n, v in found.items()}
