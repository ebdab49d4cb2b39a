"""Evaluators of objectives: `ScoreEvaluator` keeps numbers as columns, `BatchEvaluator` calls once for many combinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import compress
from time import monotonic_ns, perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.identity import keys_of_columns
from admf_dask.objectives import SCORE, BatchObjective, Scores, read_score, read_scores
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.policy import pause_after
from admf_dask.ranking import Table
from admf_dask.runtime.calls import BEGAN, row_seeds, takes
from admf_dask.runtime.chunks import Budget
from admf_dask.runtime.evaluate import Keep, MapEvaluator, Rows, Stretch, Watch, make_block
from admf_dask.space import ABSENT, Combinable

FIRST_LOOK, LARGEST_LOOK, LOOK_SECONDS = 512, 16_384, 0.005
"""Combinations whose constraints are looked at together, first and at the most, and how long that may take: a worker that stops
early has looked at the rest of them in vain. The longer a look reaches the better: evaluating goes on slower after each.
"""
FIRST_ROWS = 256
"""Rows of the first call in a chunk; a chunk may be far larger than memory, so each next call grows by what was measured."""
FAILURES_KEPT = 1_000
"""Failures with a traceback in one block of a run that keeps the best n only."""
ROWS_HELD = 16_384
"""Rows that a chunk may gather beyond what is kept of them, before the others go."""
MOST_ROWS = 16_384
"""Rows of one call of a batch objective: enough to make nothing of its cost, few enough to hold."""
Mask = NDArray[np.bool_] | None


@dataclass(frozen=True)
class ScoreEvaluator(MapEvaluator):
    """Evaluate an objective over a grid, skipping what its constraints reject; numbers come back as float64 columns."""

    items: Combinable
    keep: Keep = field(default_factory=Keep)

    def _evaluate(self, start: int, stop: int, rows: Rows, budget: Budget, watch: Watch) -> int:
        low, size = start, FIRST_LOOK if self.items.constraints else stop - start
        while low < stop:
            high, before = min(stop, low + size), perf_counter()
            allowed, rejected = self._constrain(low, high, rows)
            looked = perf_counter() - before
            reached = self._loop(self._stretch(low, high, allowed), low, high, rows, budget, watch)
            _count_rejected(rejected, low, reached, rows)
            low = reached
            if low < high or budget.is_spent(low, perf_counter()) or self._fails(rows, low):
                break
            size = max(1, min(LARGEST_LOOK, int(size * LOOK_SECONDS / max(looked, 1e-9))))
        return low

    def _stretch(self, start: int, stop: int, allowed: Mask) -> Stretch:
        """What is allowed of `[start, stop)`."""
        if allowed is None:
            return Stretch(range(start, stop), lambda low, high: self.items.each(start + low, start + high))
        places = start + np.flatnonzero(allowed)
        indices = places.tolist()

        def most(low: int, high: int) -> Iterator[dict[str, Any]]:
            first, last = indices[low], indices[high - 1] + 1
            return compress(self.items.each(first, last), allowed[first - start : last - start].tolist())

        def few(low: int, high: int) -> Iterator[dict[str, Any]]:
            return self.items.pick_each(places[low:high])

        return Stretch(indices, most if 2 * len(indices) > len(allowed) else few)

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
            rows.failures += [FailedItem(index, 0.0, _of_constraint(error)) for index, error in broken]
        return allowed, rejected

    @property
    def _read(self) -> Callable[[Any], Any] | None:
        return read_score

    def _pack(self, start: int, reached: int, rows: Rows, began: float) -> Block:
        return self._pack_columns(start, reached, rows, began, _gathered(rows))

    def _pack_columns(
        self,
        start: int,
        reached: int,
        rows: Rows,
        began: float,
        table: Table,
        let_go: int = 0,
    ) -> Block:
        # A constraint that raised on an item not yet reached comes again with that item's chunk.
        failures = rows.failures = [failed for failed in rows.failures if failed.index < reached]
        evaluated = len(table) + let_go + len(failures)
        kept = self._best(table)
        failed = len(failures)
        if self.keep.count is not None:
            rows.failures = failures[:FAILURES_KEPT]
        return make_block(
            start,
            reached,
            rows,
            began,
            kept.indices,
            kept.seconds,
            columns=kept.columns,
            evaluated=evaluated,
            failed=failed,
        )

    def _best(self, table: Table) -> Table:
        """The best n of some rows, in order; all where all are kept."""
        name = None if self.keep.count is None else self.keep.ranking_column(table.columns)
        if name is None or self.keep.count is None:
            return table
        return table.best(name, self.keep.count, maximize=self.keep.maximize)


@dataclass(frozen=True)
class BatchEvaluator(ScoreEvaluator):
    """Evaluate a `BatchObjective`: one call for many items, halved where it raises."""

    function: BatchObjective

    def __call__(self, start: int, stop: int, budget: float, watch: Watch) -> Block:
        """Evaluate `[start, stop)`, in growing batches while the `budget` lasts."""
        began = perf_counter()
        rows, let_go = Rows(), 0
        parts: list[Table] = []
        # With a timeout, which bounds a call, the first rows tell how many fit.
        low, size = start, self._cap(FIRST_ROWS) if self.policy.timeout is None else 1
        budget = budget if self.policy.timeout is None else min(budget, self.policy.timeout / 4)
        while low < stop:
            until = min(stop, low + size)
            high = watch.claim(until)
            if high > low:
                self._batch(low, high, rows, parts, watch)
                let_go += self._let_go(parts)
                low = high
            spent = perf_counter() - began
            if high < until or spent > budget or self._fails(rows, low):
                break
            affordable = int(min(stop - low, (low - start) / max(spent, 1e-9) * (budget - spent)))
            size = self._cap(max(64 if self.policy.timeout is None else 1, min(4 * size, affordable)))
        return self._pack_columns(start, low, rows, began, Table.join(parts), let_go)

    def _let_go(self, parts: list[Table]) -> int:
        """Keep the best n of what a chunk has so far, where they are far fewer than that; returns how many rows went."""
        held = sum(map(len, parts))
        if self.keep.count is None or held <= 2 * self.keep.count + ROWS_HELD:
            return 0
        parts[:] = [self._best(Table.join(parts))]
        return held - len(parts[0])

    def _cap(self, size: int) -> int:
        return min(size, self.function.max_rows or MOST_ROWS)

    def _batch(self, start: int, stop: int, rows: Rows, parts: list[Table], watch: Watch) -> None:
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
        self, columns: dict[str, Any], indices: NDArray[np.int64], rows: Rows, parts: list[Table], watch: Watch
    ) -> None:
        cells, at = watch.note(int(indices[0]), int(indices[-1] - indices[0]) + 1)
        began = perf_counter()
        try:
            cells[at + BEGAN] = monotonic_ns()
            data = [take() for take in self._takes]
            scores = read_scores(self.function(columns, *data, **self._seeds(columns, indices)), len(indices))
            cells[at + BEGAN] = 0
        except BaseException as error:
            cells[at + BEGAN] = 0
            if isinstance(error, KeyboardInterrupt) and self.interruptible:
                raise
            raised = error
        else:
            each = (perf_counter() - began) / len(indices)
            parts.append(Table(indices, scores, np.full(len(indices), each, np.float32)))
            return
        if len(indices) == 1:
            self._single_failed(raised, columns, int(indices[0]), perf_counter() - began, rows, parts, watch)
            return
        half = len(indices) // 2
        for part in (slice(None, half), slice(half, None)):
            self._call({name: column[part] for name, column in columns.items()}, indices[part], rows, parts, watch)

    def _single_failed(
        self,
        error: BaseException,
        columns: dict[str, Any],
        index: int,
        seconds: float,
        rows: Rows,
        parts: list[Table],
        watch: Watch,
    ) -> None:
        attempt = rows.attempts.get(index, 1)
        again = attempt <= self.policy.retries and isinstance(error, self.policy.retry_on)
        if again and not watch.cancelled.wait(pause_after(attempt)):
            rows.attempts[index] = attempt + 1
            self._call(columns, np.array([index], np.int64), rows, parts, watch)
            return
        rows.failures.append(FailedItem(index, seconds, self._failure(error), rows.attempts.pop(index, 1)))

    def _seeds(self, columns: dict[str, Any], indices: NDArray[np.int64]) -> dict[str, Any]:
        if self.policy.seed is None or not takes(self.function.function, "seeds"):
            return {}
        return {"seeds": row_seeds(self.policy.seed, keys_of_columns(columns, len(indices), ABSENT))}


def _gathered(rows: Rows) -> Table:
    indices, seconds = rows.table()
    return Table(indices, _score_columns(rows.values), seconds)


def _of_constraint(error: Exception) -> Failure:
    """Of the type that the constraint raised, in words that name the constraint."""
    return replace(Failure.from_exception(error), error_type=type(error.__cause__ or error).__name__)


def _score_columns(values: list[Any]) -> Scores:
    """Floats and dicts of floats as columns; a name that an item lacks is NaN there."""
    if not values:
        return {}
    # Whatever is no float was read as a dict, which is refused here: so no look at each is needed, and those go on below.
    with suppress(TypeError):
        return {SCORE: np.fromiter(values, np.float64, len(values))}
    named = [{SCORE: value} if type(value) is float else value for value in values]
    names = dict.fromkeys(name for scores in named for name in scores)
    return {name: np.array([scores.get(name, np.nan) for scores in named], np.float64) for name in names}


def _count_rejected(rejected: Mask, start: int, reached: int, rows: Rows) -> None:
    if rejected is None:
        return
    turned_away = np.flatnonzero(rejected[: reached - start])
    rows.rejected += len(turned_away)
    if len(turned_away) and rows.rejected_example is None:
        rows.rejected_example = start + int(turned_away[0])
