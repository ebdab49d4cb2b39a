"""`ParameterGrid`: the product of axes by mixed radix, so that any point is made from its index and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.space.axes import Axis, make_axis
from admf_dask.space.conditional import Branch, Conditional, make_branches
from admf_dask.space.constraints import describe, make_constraints
from admf_dask.space.items import Combinable
from admf_dask.text import did_you_mean, format_count


class ParameterGrid(Combinable):
    """All combinations of some axes; the last axis varies fastest.

    Parameters
    ----------
    axes
        Name -> list, tuple, range, NumPy array, `IntRange`, `FloatRange`, `LogRange`, `Choice` or `Conditional`.
    constraints
        Functions `f(params) -> bool` or expressions such as `"fast < slow"`. `len(space)` and `space[i]` are of the whole grid;
        the constraints are applied where combinations are used.

    A grid of 10^9 points costs nothing to hold; `space[i]` costs O(axes). Immutable and thread-safe. Raises SpaceError for
    names, bounds, duplicates or constraints that break a rule.
    """

    def __init__(self, axes: Mapping[str, Any], *, constraints: Any = ()) -> None:
        """Check everything; nothing is expanded but conditional parameters."""
        if not isinstance(axes, Mapping):
            raise SpaceError(f"axes must be a mapping of name -> values, but are {axes!r:.80}")
        self._given = dict(axes)
        plain = {name: make_axis(name, spec) for name, spec in axes.items() if not isinstance(spec, Conditional)}
        branches = make_branches(plain, {name: spec for name, spec in axes.items() if isinstance(spec, Conditional)})
        inside = {name for branch in branches for name in branch.names}
        self._factors: list[Axis | Branch] = [
            *(branch for branch in branches), *(axis for name, axis in plain.items() if name not in inside)
        ]  # fmt: skip
        order = list(axes)
        self._factors.sort(
            key=lambda factor: order.index(factor.names[0] if isinstance(factor, Branch) else factor.name)
        )
        self.names = tuple(order)
        self.conditional = bool(branches)
        self.size = prod(len(factor) for factor in self._factors) if order else 0
        self._strides = [
            prod(len(factor) for factor in self._factors[place + 1 :]) for place in range(len(self._factors))
        ]
        self.constraints = make_constraints(constraints, self.names)

    @classmethod
    def from_mapping(cls, mapping: Any, *, strategy: str | None = None) -> Self:
        """From plain data: name -> values, or one of the lists of ADMF-style files; see `admf_dask.space.mapping`."""
        from admf_dask.space.mapping import read_axes

        return cls(read_axes(mapping, strategy=strategy))

    @classmethod
    def from_yaml(cls, path: Any, *, strategy: str | None = None) -> Self:
        """As `from_mapping`, from a YAML file; errors name the file."""
        from admf_dask.space.mapping import read_axes
        from admf_dask.yamlfile import read_yaml

        return cls(read_axes(read_yaml(path), strategy=strategy, source=str(path)))

    @property
    def axes(self) -> dict[str, Any]:
        """The axes as they were given."""
        return dict(self._given)

    def axis_values(self, name: str) -> list[Any]:
        """The distinct values of one parameter, in order. Raises SpaceError with the nearest name."""
        for factor in self._factors:
            if isinstance(factor, Branch) and name in factor.names:
                return factor.distinct(name)
            if isinstance(factor, Axis) and factor.name == name:
                return list(factor.values)
        raise SpaceError(f"{name!r} is no parameter of this space{did_you_mean(name, self.names)}")

    def take(self, indices: NDArray[Any], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """The combinations at `indices` as columns of shape (n,): int64, float64 or bool where all values are, else object."""
        found: dict[str, NDArray[Any]] = {}
        for factor, stride in zip(self._factors, self._strides, strict=True):
            codes = (
                ((indices // stride) % len(factor)).astype(np.int64)
                if self.size < 2**62
                else _codes(indices, stride, len(factor))
            )
            if isinstance(factor, Branch):
                found.update(factor.take(codes, natives=natives))
            else:
                found[factor.name] = factor.take(codes, natives=natives)
        return {name: found[name] for name in self.names}

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """The combinations `[start, stop)` as dicts; about 0.1 microseconds each, however many axes there are."""
        return list(self.each(start, stop))

    def each(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """The same one after the other, each made as it is asked for."""
        if self.conditional or start >= stop:
            return super().each(start, stop)
        # Axis by axis, each step over the part of the grid so far that the range touches: no division for each point, and
        # the values are those of the axes, without a way through arrays.
        axes = [
            (factor, stride)
            for factor, stride in zip(self._factors, self._strides, strict=True)
            if isinstance(factor, Axis)
        ]
        first_of_all = {axis.name: axis.values[0] for axis, _ in axes}
        made = iter([first_of_all])
        for axis, stride in axes:
            first, last = start // stride, (stop - 1) // stride
            if first == last:
                first_of_all[axis.name] = axis.values[first % len(axis)]
            elif len(axis) > 1:
                made = _spread(made, axis, first, last)
        return made

    def index_of(self, params: Mapping[str, Any]) -> int:
        """The position of a combination; the inverse of `space[i]`. Raises SpaceError if it is not in the grid."""
        index = 0
        for factor, stride in zip(self._factors, self._strides, strict=True):
            try:
                code = factor.code(params) if isinstance(factor, Branch) else factor.values.index(params[factor.name])
            except (KeyError, ValueError):
                raise SpaceError(f"{dict(params)!r:.200} is not a combination of this space") from None
            index += code * stride
        return index

    def sample(self, n: int, *, seed: int) -> Any:
        """`n` distinct combinations that satisfy the constraints, drawn exactly and without replacement.

        The same for the same seed everywhere; memory O(n) whatever the size of the grid. Raises SpaceError if there are not
        so many.
        """
        from admf_dask.space.sampling import draw

        return draw(self, n, seed)

    def __eq__(self, other: object) -> bool:
        """Same axes with the same values in the same order, same constraints."""
        if not isinstance(other, ParameterGrid):
            return NotImplemented
        return self.names == other.names and self._given == other._given and self.constraints == other.constraints

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Sizes of the axes."""
        sizes = ", ".join(
            f"{'/'.join(f.names)}: {len(f)}" if isinstance(f, Branch) else f"{f.name}: {len(f)}" for f in self._factors
        )
        rules = f", constraints: {', '.join(map(describe, self.constraints))}" if self.constraints else ""
        return f"<{type(self).__name__} of {format_count(self.size)} combinations ({sizes}){rules}>"


def _spread(bases: Iterator[dict[str, Any]], axis: Axis, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Each of `bases` with each value of the axis, from the one at `first` of the first base to that at `last` of the last.

    Both count from the first point of the grid.
    """
    name, values, size = axis.name, axis.values, len(axis)
    begins, ends = first // size, last // size
    for number, base in enumerate(bases, begins):
        low, high = first % size if number == begins else 0, last % size + 1 if number == ends else size
        # A value is put into the base itself, which is then copied: that costs less than a dict made of its parts, and the same
        # for any number of names.
        for base[name] in values if high - low == size else values[low:high]:
            yield base.copy()


def _codes(indices: NDArray[Any], stride: int, size: int) -> NDArray[np.int64]:
    """Beyond int64, in Python's whole numbers."""
    return np.array([int(index) // stride % size for index in indices], np.int64)
