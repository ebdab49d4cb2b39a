"""What a worker does with a chunk: call the function on each item, and pack what became of them.

Three evaluators share one frame (`Evaluator`): `MapEvaluator` keeps whatever the function returns, `ScoreEvaluator` keeps
numbers as columns, `BatchEvaluator` calls once for many. None of them ever raises because of an item.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from admf_dask import ranking
from admf_dask.errors import TaskError
from admf_dask.objectives import SCORE, BatchObjective, Scores, read_score, read_scores
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.space import Combinable
from admf_dask.text import did_you_mean

SLICE = 512
"""Items made at a time; a worker that stops early has made at most this many for nothing."""
GROUP_SECONDS = 0.001
GROUP_MOST = 256
"""Items that are timed together at the most, and how long they may take together."""
FAILURES_KEPT = 1_000
"""Failures with a traceback in one block of a run that keeps the best n only."""


Mask = NDArray[np.bool_] | None


class Watch(Protocol):
    """What an evaluator tells while it works, and what tells it to stop."""

    cancelled: threading.Event

    def note(self, start: int, count: int) -> None:
        """Executing `count` items from `start` on."""

    def cells_of_single_items(self) -> tuple[MutableSequence[int] | memoryview, int]:
        """Where to store the index of each item before it is called: `cells[at] = index`."""


@dataclass(slots=True)
class Rows:
    """What has been gathered of a chunk so far."""

    spans: list[Sequence[int]] = field(default_factory=list)
    """Indices of what has a value, in pieces."""
    values: list[Any] = field(default_factory=list)
    seconds: list[tuple[float, int]] = field(default_factory=list)
    """Seconds of each item, and of how many."""
    failures: list[FailedItem] = field(default_factory=list)
    rejected: int = 0
    rejected_example: int | None = None
    group: int = 1
    """Items that are timed together, by how long the last ones took."""

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices and seconds of what has a value, each of shape (n,)."""
        indices = [
            np.arange(span.start, span.stop) if isinstance(span, range) else np.array(span, int) for span in self.spans
        ]
        each, counts = zip(*self.seconds, strict=True) if self.seconds else ((), ())
        seconds = np.repeat(np.array(each, np.float32), np.array(counts, np.int64))
        return np.concatenate(indices) if indices else np.empty(0, np.int64), seconds


class CallError(TaskError):
    """The call itself is wrong, not an item of it: the run stops with this message."""


@dataclass(frozen=True)
class Keep:
    """Which rows of an optimisation come back."""

    score: str | None = None
    maximize: bool = True
    count: int | None = None
    """The best `count` of each chunk; None for all."""

    def ranking_column(self, columns: Scores) -> str | None:
        """The column that ranks. Raises CallError if that cannot be told; None if there is no row."""
        if not columns:
            return None
        if self.score is not None:
            if self.score not in columns:
                hint = did_you_mean(self.score, columns)
                raise CallError(f"score={self.score!r} must be one of the numbers that the objective returns{hint}")
            return self.score
        if len(columns) > 1:
            names = ", ".join(columns)
            raise CallError(
                f"the objective returns {len(columns)} numbers ({names}), and one of them must rank; "
                f"write optimize(..., score={next(iter(columns))!r})"
            )
        return next(iter(columns))


@dataclass(frozen=True)
class MapEvaluator:
    """Evaluate `function(item)` or `function(item, data)` and keep the values as they are."""

    function: Callable[..., Any]
    items: Sequence[Any]
    data: tuple[Any, ...] = ()
    interruptible: bool = False
    """Whether KeyboardInterrupt means the user (this thread) or the item (a worker)."""
    keep: Keep | None = None
    """How rows rank and which come back; None where values are not scores."""

    def __call__(self, start: int, stop: int, budget: float, watch: Watch) -> Block:
        """Evaluate `[start, stop)`, or the part of it that fits in `budget` seconds."""
        began = perf_counter()
        rows = Rows()
        low = start
        while low < stop:
            high = min(stop, low + self._slice_size(rows))
            reached = self._slice(low, high, rows, began + budget, watch)
            if reached < high or perf_counter() > began + budget or watch.cancelled.is_set():
                low = reached
                break
            low = high
        return self._pack(start, low, rows, began)

    def _slice_size(self, rows: Rows) -> int:
        # Items may be large, so no more of them are held than are evaluated together.
        return rows.group

    def _slice(self, start: int, stop: int, rows: Rows, deadline: float, watch: Watch) -> int:
        indices = range(start, stop)
        return self._loop(indices, [self.items[index] for index in indices], rows, deadline, watch)

    def _loop(self, indices: Sequence[int], items: list[Any], rows: Rows, deadline: float, watch: Watch) -> int:
        """Evaluate items until the deadline. Returns the index after the last done.

        The clock is read once for a group. A group is one item, unless items take microseconds; then it grows to about a
        millisecond, and its time is divided evenly.
        """
        before, low = perf_counter(), 0
        while low < len(items):
            high = min(len(items), low + rows.group)
            done, failed = len(rows.values), len(rows.failures)
            self._group(indices[low:high], items[low:high], rows, watch)
            now = perf_counter()
            each = (now - before) / (high - low)
            rows.seconds.append((each, len(rows.values) - done))
            if len(rows.failures) > failed:
                rows.failures[failed:] = [replace(item, seconds=each) for item in rows.failures[failed:]]
            rows.group = 1 if now - before > GROUP_SECONDS else min(2 * rows.group, GROUP_MOST)
            before, low = now, high
            if now > deadline or watch.cancelled.is_set():
                break
        return indices[low - 1] + 1 if low else -1

    def _group(self, indices: Sequence[int], items: list[Any], rows: Rows, watch: Watch) -> None:
        """The hot loop: one store of the index, one call and one append for each item."""
        # Without data the call is a plain one, which the interpreter does without a C frame of its own.
        function = partial(_with_data, self.function, self.data) if self.data else self.function
        read = self._read
        cells, at = watch.cells_of_single_items()
        add, pairs = rows.values.append, zip(indices, items, strict=True)
        index, failed = -1, set()
        while True:
            try:
                for index, item in pairs:
                    cells[at] = index
                    value = function(item)
                    if read is not None and type(value) is not float:
                        value = read(value)
                    add(value)
                break
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and self.interruptible:
                    raise
                failed.add(index)
                rows.failures.append(FailedItem(index, 0.0, Failure.from_exception(error, skip_frames=1)))
        rows.spans.append([index for index in indices if index not in failed] if failed else indices)

    @property
    def _read(self) -> Callable[[Any], Any] | None:
        """What to make of a value that is not a float already; None to keep it."""
        return None

    def _pack(self, start: int, reached: int, rows: Rows, began: float) -> Block:
        payload = self._payload(rows)
        return _block(start, reached, rows, began, *rows.table(), payload=payload)

    def _payload(self, rows: Rows) -> bytes:
        try:
            return pickle.dumps(rows.values, protocol=5)
        except Exception:  # noqa: BLE001 - tried again one by one, so that only the guilty item fails
            return self._payload_singly(rows)

    def _payload_singly(self, rows: Rows) -> bytes:
        kept: list[tuple[int, Any, float]] = []
        indices, timed = rows.table()
        for index, value, seconds in zip(indices.tolist(), rows.values, timed.tolist(), strict=True):
            try:
                cloudpickle.loads(cloudpickle.dumps(value))
            except BaseException as error:  # noqa: BLE001 - __reduce__ is user code
                rows.failures.append(FailedItem(index, seconds, _unpicklable(value, error)))
            else:
                kept.append((index, value, seconds))
        rows.spans[:] = [[index for index, _, _ in kept]]
        rows.values[:] = [value for _, value, _ in kept]
        rows.seconds[:] = [(seconds, 1) for _, _, seconds in kept]
        packed: bytes = cloudpickle.dumps(rows.values)
        return packed


@dataclass(frozen=True)
class ScoreEvaluator(MapEvaluator):
    """Evaluate an objective over a grid, skipping what its constraints reject; numbers come back as float64 columns."""

    items: Combinable
    keep: Keep = Keep()

    def _slice_size(self, rows: Rows) -> int:
        return SLICE

    def _slice(self, start: int, stop: int, rows: Rows, deadline: float, watch: Watch) -> int:
        allowed, rejected = self._constrain(start, stop, rows)
        indices: Sequence[int] = range(start, stop)
        if allowed is not None:
            places = start + np.flatnonzero(allowed)
            indices, made = places.tolist(), self.items.pick(places)
        else:
            made = self.items.rows(start, stop)
        reached = self._loop(indices, made, rows, deadline, watch)
        # Past the last one allowed there is nothing to do.
        reached = stop if not made or reached > indices[-1] else reached
        _count_rejected(rejected, start, reached, rows)
        return reached

    def _constrain(self, start: int, stop: int, rows: Rows) -> tuple[Mask, Mask]:
        """What to evaluate and what was turned away; a point on which a constraint raised is neither but a failure."""
        allowed, broken = self.items.mask(start, stop)
        if allowed is None:
            return None, None
        rejected = ~allowed
        if broken:
            at = [index - start for index, _ in broken]
            allowed = allowed.copy()
            allowed[at] = rejected[at] = False
            rows.failures += [FailedItem(index, 0.0, Failure.from_exception(error)) for index, error in broken]
        return allowed, rejected

    @property
    def _read(self) -> Callable[[Any], Any] | None:
        return read_score

    def _pack(self, start: int, reached: int, rows: Rows, began: float) -> Block:
        return self._pack_columns(start, reached, rows, began, (*rows.table(), _score_columns(rows.values)))

    def _pack_columns(
        self,
        start: int,
        reached: int,
        rows: Rows,
        began: float,
        table: tuple[NDArray[np.int64], NDArray[np.float32], Scores],
    ) -> Block:
        indices, seconds, columns = table
        # A constraint that raised on an item not yet reached comes again with that item's chunk.
        failures = rows.failures = [failed for failed in rows.failures if failed.index < reached]
        evaluated = len(indices) + len(failures)
        name = None if self.keep.count is None else self.keep.ranking_column(columns)
        if name is not None and self.keep.count is not None:
            chosen = np.sort(ranking.best(columns[name], indices, self.keep.count, maximize=self.keep.maximize))
            indices, seconds = indices[chosen], seconds[chosen]
            columns = {key: column[chosen] for key, column in columns.items()}
        failed = len(failures)
        if self.keep.count is not None:
            rows.failures = failures[:FAILURES_KEPT]
        return _block(
            start, reached, rows, began, indices, seconds, columns=columns, evaluated=evaluated, failed=failed
        )


@dataclass(frozen=True)
class BatchEvaluator(ScoreEvaluator):
    """Evaluate a `BatchObjective`: one call for many items, halved where it raises."""

    function: BatchObjective

    def __call__(self, start: int, stop: int, budget: float, watch: Watch) -> Block:
        """Evaluate `[start, stop)`, in growing batches while the `budget` lasts."""
        began = perf_counter()
        rows = Rows()
        parts: list[tuple[NDArray[np.int64], NDArray[np.float32], Scores]] = []
        low, size = start, self._first(stop - start, budget)
        while low < stop:
            high = min(stop, low + size)
            self._batch(low, high, rows, parts, watch)
            low, spent = high, perf_counter() - began
            if spent > budget or watch.cancelled.is_set():
                break
            size = self._cap(max(64, min(4 * size, int((low - start) / max(spent, 1e-9) * (budget - spent)))))
        return self._pack_columns(start, low, rows, began, _join(parts))

    def _first(self, size: int, budget: float) -> int:
        # A chunk that the driver sized by measurement is one call; the first chunks feel their way.
        return self._cap(size if budget > 0.1 else min(size, 256))

    def _cap(self, size: int) -> int:
        return min(size, self.function.max_rows) if self.function.max_rows else size

    def _batch(self, start: int, stop: int, rows: Rows, parts: list[Any], watch: Watch) -> None:
        allowed, rejected = self._constrain(start, stop, rows)
        columns = self.items.columns(start, stop)
        indices = np.arange(start, stop, dtype=np.int64)
        if allowed is not None:
            indices = indices[allowed]
            columns = {name: column[allowed] for name, column in columns.items()}
        _count_rejected(rejected, start, stop, rows)
        if len(indices):
            self._call(columns, indices, rows, parts, watch)

    def _call(
        self, columns: dict[str, Any], indices: NDArray[np.int64], rows: Rows, parts: list[Any], watch: Watch
    ) -> None:
        watch.note(int(indices[0]), int(indices[-1] - indices[0]) + 1)
        began = perf_counter()
        try:
            scores = read_scores(self.function(columns, *self.data), len(indices))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self.interruptible:
                raise
            if len(indices) == 1:
                spent = perf_counter() - began
                rows.failures.append(FailedItem(int(indices[0]), spent, Failure.from_exception(error, skip_frames=1)))
                return
            half = len(indices) // 2
            for part in (slice(None, half), slice(half, None)):
                self._call({name: column[part] for name, column in columns.items()}, indices[part], rows, parts, watch)
        else:
            each = (perf_counter() - began) / len(indices)
            parts.append((indices, np.full(len(indices), each, np.float32), scores))


def _with_data(function: Callable[..., Any], data: tuple[Any, ...], item: Any) -> Any:
    return function(item, *data)


def _score_columns(values: list[Any]) -> Scores:
    """Floats and dicts of floats as columns; a name that an item lacks is NaN there."""
    if not values:
        return {}
    if set(map(type, values)) == {float}:
        return {SCORE: np.array(values, np.float64)}
    named = [{SCORE: value} if type(value) is float else value for value in values]
    names = dict.fromkeys(name for scores in named for name in scores)
    return {name: np.array([scores.get(name, np.nan) for scores in named], np.float64) for name in names}


def _join(parts: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32], Scores]:
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.float32), {}
    if len(parts) == 1:
        only: tuple[NDArray[np.int64], NDArray[np.float32], Scores] = parts[0]
        return only
    names = dict.fromkeys(name for _, _, columns in parts for name in columns)
    columns = {
        name: np.concatenate([c[name] if name in c else np.full(len(i), np.nan) for i, _, c in parts]) for name in names
    }
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), columns


def _count_rejected(rejected: Mask, start: int, reached: int, rows: Rows) -> None:
    if rejected is None:
        return
    turned_away = np.flatnonzero(rejected[: reached - start])
    rows.rejected += len(turned_away)
    if len(turned_away) and rows.rejected_example is None:
        rows.rejected_example = start + int(turned_away[0])


def _block(
    start: int,
    reached: int,
    rows: Rows,
    began: float,
    indices: NDArray[np.int64],
    seconds: NDArray[np.float32],
    *,
    columns: Scores | None = None,
    payload: bytes | None = None,
    evaluated: int | None = None,
    failed: int | None = None,
) -> Block:
    return Block(
        start=start,
        stop=reached,
        indices=indices,
        columns=columns,
        payload=payload,
        seconds=seconds,
        failures=tuple(rows.failures),
        evaluated=len(indices) + len(rows.failures) if evaluated is None else evaluated,
        rejected=rows.rejected,
        busy=perf_counter() - began,
        worker=f"pid {os.getpid()}",
        failed=len(rows.failures) if failed is None else failed,
        rejected_example=rows.rejected_example,
    )


def _unpicklable(value: Any, error: BaseException) -> Failure:
    rule = TaskError(
        f"a result must survive pickling to travel back, but {type(value).__name__} does not "
        f"({type(error).__name__}: {error}); return plain data, an array or a frame instead"
    )
    rule.__cause__ = error
    return Failure.from_exception(rule)
