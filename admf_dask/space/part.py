"""Part of a sequence, by position: what is left of a run that goes on after some of it was done before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from admf_dask.space.items import Combinable

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranges:
    """A set of positions as ascending, disjoint ranges: a hole in 10^9 points costs nothing. Immutable."""

    starts: Positions
    stops: Positions

    @classmethod
    def of(cls, ranges: Iterable[Sequence[int]]) -> Ranges:
        """The union of ranges `[start, stop)`, in any order."""
        pairs = np.array([tuple(pair) for pair in ranges if pair[0] < pair[1]], np.int64).reshape(-1, 2)
        return cls._union(pairs[:, 0], pairs[:, 1])

    @classmethod
    def of_positions(cls, positions: Positions) -> Ranges:
        """The ranges that some positions, in any order, make up."""
        return cls._union(positions, positions + 1)

    @classmethod
    def _union(cls, starts: Positions, stops: Positions) -> Ranges:
        order = np.argsort(starts, kind="stable")
        starts, reach = starts[order], np.maximum.accumulate(stops[order]) if len(stops) else stops
        new = np.ones(len(starts), bool)
        new[1:] = starts[1:] > reach[:-1]
        last = np.append(np.flatnonzero(new)[1:] - 1, len(starts) - 1) if len(starts) else np.empty(0, np.int64)
        return cls(starts[new], reach[last])

    @property
    def size(self) -> int:
        """How many positions."""
        return int((self.stops - self.starts).sum())

    def union(self, other: Ranges) -> Ranges:
        """What is in either."""
        return self._union(np.concatenate([self.starts, other.starts]), np.concatenate([self.stops, other.stops]))

    def missing(self, total: int) -> Ranges:
        """The positions of `[0, total)` that are not in here."""
        starts = np.concatenate([[0], self.stops]).astype(np.int64)
        stops = np.concatenate([self.starts, [total]]).astype(np.int64)
        kept = starts < stops
        return Ranges(starts[kept], stops[kept])

    def positions(self, places: Positions) -> Positions:
        """The positions at places 0 to size - 1, shape (n,)."""
        before = np.concatenate([[0], np.cumsum(self.stops - self.starts)])
        which = np.searchsorted(before, places, side="right") - 1
        found: Positions = self.starts[which] + (places - before[which])
        return found

    def spans(self, start: int, stop: int) -> Ranges:
        """The ranges of positions that the places `[start, stop)` stand for."""
        if start >= stop:
            return Ranges(np.empty(0, np.int64), np.empty(0, np.int64))
        before = np.concatenate([[0], np.cumsum(self.stops - self.starts)])
        first = int(np.searchsorted(before, start, side="right")) - 1
        last = int(np.searchsorted(before, stop - 1, side="right")) - 1
        starts, stops = self.starts[first : last + 1].copy(), self.stops[first : last + 1].copy()
        starts[0] += start - before[first]
        stops[-1] = self.starts[last] + stop - before[last]
        return Ranges(starts, stops)

    def pairs(self) -> NDArray[np.int64]:
        """Shape (n, 2)."""
        return np.stack([self.starts, self.stops], axis=1)


class PartOfSpace(Combinable):
    """The combinations of a space at some positions, with its constraints."""

    def __init__(self, whole: Combinable, ranges: Ranges) -> None:
        """Nothing is copied."""
        self.whole, self.ranges = whole, ranges
        self.names, self.conditional, self.size = whole.names, whole.conditional, ranges.size
        self.constraints = whole.constraints

    def take(self, indices: NDArray[Any], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """The combinations at `indices` of this part."""
        return self.whole.take(self.ranges.positions(indices.astype(np.int64)), natives=natives)

    def without_constraints(self) -> Self:
        """The same part, of a whole that has none either."""
        return type(self)(self.whole.without_constraints(), self.ranges)


class PartOfSequence(Sequence[Any]):
    """The items of any sequence at some positions."""

    def __init__(self, whole: Sequence[Any], ranges: Ranges) -> None:
        """Only these items are kept, so that a worker is not sent the others."""
        self._items = [whole[index] for start, stop in ranges.pairs().tolist() for index in range(start, stop)]

    def __len__(self) -> int:
        """How many."""
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """The item at a place of this part."""
        return self._items[index]


def part_of(items: Any, ranges: Ranges) -> Any:
    """The part of `items` at the positions of `ranges`."""
    return PartOfSpace(items, ranges) if isinstance(items, Combinable) else PartOfSequence(items, ranges)
