"""The one rule of what is better: higher or lower first, ties in grid order, NaN last.

Workers use it to keep the best of a chunk, the driver to keep the best of all, results to sort tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def rank(scores: Floats, indices: Integers, *, maximize: bool) -> Integers:
    """Positions from best to worst, shape (n,): by score, equal scores by grid index, NaN last (also by index).

    Cost: O(n log n).
    """
    # lexsort sorts NaN last in a key, and negation keeps NaN a NaN, so NaN is last either way.
    return np.lexsort((indices, -scores if maximize else scores)).astype(np.int64, copy=False)


def best(scores: Floats, indices: Integers, count: int, *, maximize: bool) -> Integers:
    """Positions of the `count` best in `rank` order. Cost: O(n) + O(count log count), so a chunk can be large."""
    if len(scores) > 4 * count:
        keys = np.where(np.isnan(scores), np.inf, -scores if maximize else scores)
        bound = np.partition(keys, count - 1)[count - 1]
        # Everything at the bound stays a candidate: which of the ties is kept is for the grid order to say. NaN and a
        # real infinity share a key here and are told apart by rank().
        candidates = np.flatnonzero(keys <= bound)
        return candidates[rank(scores[candidates], indices[candidates], maximize=maximize)[:count]].astype(np.int64)
    return rank(scores, indices, maximize=maximize)[:count]


def first(scores: Floats, indices: Integers, *, maximize: bool) -> int:
    """Position of the best: `rank(...)[0]`, in O(n). Raises ValueError where there are no rows."""
    value = (np.fmax if maximize else np.fmin).reduce(scores)
    if np.isnan(value):
        return int(indices.argmin())
    ties = np.flatnonzero(scores == value)
    return int(ties[indices[ties].argmin()])


def better(score: Any, than: Any, *, maximize: bool) -> bool:
    """Whether `score` beats `than` outright (a NaN never beats, anything real beats NaN)."""
    if np.isnan(score):
        return False
    return bool(np.isnan(than) or (score > than if maximize else score < than))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of scores: aligned arrays of shape (n,)."""

    indices: Integers
    columns: dict[str, Floats]
    seconds: NDArray[np.float32]

    def __len__(self) -> int:
        """Rows."""
        return len(self.indices)

    def take(self, rows: Integers) -> Table:
        """The rows at these positions."""
        return Table(self.indices[rows], {name: c[rows] for name, c in self.columns.items()}, self.seconds[rows])

    def best(self, name: str, count: int, *, maximize: bool) -> Table:
        """The `count` best by the column `name`, in the order in which they are here."""
        return self.take(np.sort(best(self.columns[name], self.indices, count, maximize=maximize)))

    @classmethod
    def join(cls, tables: Sequence[Table]) -> Table:
        """One below the other; NaN where a table lacks a column that others have."""
        if len(tables) == 1:
            return tables[0]
        if not tables:
            return cls(np.empty(0, np.int64), {}, np.empty(0, np.float32))
        names = dict.fromkeys(name for table in tables for name in table.columns)
        columns = {
            name: np.concatenate([t.columns[name] if name in t.columns else np.full(len(t), np.nan) for t in tables])
            for name in names
        }
        return cls(np.concatenate([t.indices for t in tables]), columns, np.concatenate([t.seconds for t in tables]))
