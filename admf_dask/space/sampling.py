"""Exact sampling without replacement from a grid of any size, in memory of the sample."""

from __future__ import annotations

import random
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.space.constraints import Constraint
from admf_dask.space.items import Combinable
from admf_dask.text import format_count

ENUMERABLE = 2_000_000
"""Grids up to this size are enumerated, so that the sample is exact however few points satisfy the constraints."""
TRIES = 1_000
"""Draws for each point asked for, before a larger grid is given up as too thin."""


class ParameterSample(Combinable):
    """Chosen combinations of a grid, in the order drawn; a space like any other."""

    def __init__(self, grid: Combinable, chosen: list[int], *, constraints: tuple[Constraint, ...] = ()) -> None:
        """`chosen` are positions in `grid`."""
        self.grid = grid
        self._chosen = np.array(chosen, np.int64 if grid.size < 2**62 else object)
        self.names, self.conditional, self.size = grid.names, grid.conditional, len(chosen)
        self.constraints = constraints

    @property
    def positions(self) -> list[int]:
        """Where the combinations stand in the grid."""
        return [int(position) for position in self._chosen]

    def take(self, indices: NDArray[Any], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """The combinations at `indices` of this sample."""
        return self.grid.take(self._chosen[indices.astype(np.int64)], natives=natives)

    def axis_values(self, name: str) -> list[Any]:
        """The values of one parameter in the whole grid."""
        values: list[Any] = self.grid.axis_values(name)  # type: ignore[attr-defined]
        return values

    def without_constraints(self) -> Self:
        """The same sample, of a grid that has none either."""
        return type(self)(self.grid.without_constraints(), self.positions)

    def __repr__(self) -> str:
        """Sizes."""
        return f"<ParameterSample of {format_count(self.size)} combinations of {self.grid!r}>"


def draw(grid: Combinable, count: int, seed: int) -> ParameterSample:
    """`count` distinct points of `grid` that satisfy its constraints, the same for the same seed on every platform."""
    if type(count) is not int or count < 1:
        raise SpaceError(f"the number of samples must be a whole number of at least 1, but is {count!r}")
    chance = random.Random(seed)
    if grid.size <= ENUMERABLE or not grid.constraints:
        allowed = _allowed(grid, 0, grid.size) if grid.constraints else None
        size = grid.size if allowed is None else len(allowed)
        if count > size:
            raise SpaceError(
                f"{format_count(count)} samples were asked for, but only {format_count(size)} combinations "
                f"{'satisfy the constraints' if grid.constraints else 'exist'}; ask for fewer"
            )
        places = _distinct(chance, size, count)
        return ParameterSample(grid, places if allowed is None else [allowed[place] for place in places])
    return ParameterSample(grid, _by_rejection(grid, count, chance))


def _distinct(chance: random.Random, size: int, count: int) -> list[int]:
    """`count` distinct numbers below `size`, in random order."""
    if count > size // 3:
        order = list(range(size))
        chance.shuffle(order)
        return order[:count]
    seen: dict[int, None] = {}
    while len(seen) < count:
        seen.setdefault(chance.randrange(size))
    return list(seen)


def _by_rejection(grid: Combinable, count: int, chance: random.Random) -> list[int]:
    seen: set[int] = set()
    found: list[int] = []
    tries, most = 0, TRIES * count + 1_000_000
    while len(found) < count:
        batch: list[int] = []
        while len(batch) < 4096 and tries < most:
            tries += 1
            point = chance.randrange(grid.size)
            if point not in seen:
                seen.add(point)
                batch.append(point)
        if not batch:
            raise SpaceError(
                f"only {format_count(len(found))} of {format_count(tries)} random combinations satisfy the constraints, where "
                f"{format_count(count)} were asked for; make the axes narrower, so that the constraints reject less"
            )
        probe = ParameterSample(grid, batch, constraints=grid.constraints)
        found += [batch[place] for place in _allowed(probe, 0, len(batch))]
    return found[:count]


def _allowed(items: Combinable, start: int, stop: int) -> list[int]:
    found: list[int] = []
    for low in range(start, stop, 65_536):
        high = min(stop, low + 65_536)
        allowed, broken = items.mask(low, high)
        if broken:
            raise broken[0][1]
        found += list(range(low, high)) if allowed is None else (low + np.flatnonzero(allowed)).tolist()
    return found
