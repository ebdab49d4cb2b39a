"""What grids, samples and lists of combinations share: slices by column, constraints, and how a rejection is told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import chain
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.space.constraints import Constraint, Expression, describe, make_constraints
from admf_dask.text import format_count

LARGEST_LIST = 10_000_000
TOGETHER = 512
"""Combinations that are made at a time where one by one would take longer."""


class Absent:
    """Stands in a column where a conditional parameter does not exist. One instance: `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


class Combinable(Sequence[dict[str, Any]]):
    """A lazy sequence of combinations. Immutable, so it may be used from any thread.

    Indexing and iterating give every combination; the constraints say which of them `get_combinations`, a bag and an
    optimisation leave out.
    """

    names: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    conditional: bool = False
    """Whether a parameter may be absent from some combinations."""
    size: int
    """Number of combinations before constraints; unlike `len()` it may exceed `sys.maxsize`."""

    @abstractmethod
    def take(self, indices: NDArray[np.int64], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """The combinations at `indices`, as columns of shape (n,)."""

    def with_constraints(self, *constraints: Any) -> Self:
        """The same with more constraints."""
        return self._constrained((*self.constraints, *make_constraints(constraints, self.names)))

    def without_constraints(self) -> Self:
        """The same combinations, none of them left out."""
        return self._constrained(())

    def columns(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """The combinations `[start, stop)` as columns: int64, float64 or bool where all values are, else object."""
        return self.take(_indices(start, stop))

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """The combinations `[start, stop)` as dicts; about 0.2 microseconds each."""
        return self.pick(_indices(start, stop))

    def each(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """The same one after the other, some hundred made at a time: a range may be larger than memory."""
        lows = range(start, stop, TOGETHER)
        return chain.from_iterable(self.pick(_indices(low, min(stop, low + TOGETHER))) for low in lows)

    def pick(self, indices: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The combinations at `indices` as dicts."""
        if not self.names:
            return [{} for _ in range(len(indices))]
        columns = {name: column.tolist() for name, column in self.take(indices, natives=True).items()}
        return _dicts(columns, self.conditional)

    def pick_each(self, indices: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """The same one after the other, some hundred made at a time."""
        lows = range(0, len(indices), TOGETHER)
        return chain.from_iterable(self.pick(indices[low : low + TOGETHER]) for low in lows)

    def table(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """The combinations at `indices` as columns for a DataFrame: what is absent is None there."""
        return {
            name: [None if value is ABSENT else value for value in column] if column.dtype == object else column
            for name, column in self.take(indices).items()
        }

    def mask(self, start: int, stop: int) -> tuple[NDArray[np.bool_] | None, list[tuple[int, Exception]]]:
        """Which of `[start, stop)` the constraints allow (None: all), and where a function raised, with what it raised."""
        if not self.constraints:
            return None, []
        columns = self.columns(start, stop)
        allowed = np.ones(stop - start, np.bool_)
        broken: dict[int, Exception] = {}
        rows: list[dict[str, Any]] | None = None
        for constraint in self.constraints:
            if isinstance(constraint, Expression):
                try:
                    allowed &= _holds(constraint, columns, stop - start)
                except TypeError:
                    _hold_apart(constraint, columns, allowed, start, broken)
                continue
            rows = self.rows(start, stop) if rows is None else rows
            for offset in np.flatnonzero(allowed).tolist():
                try:
                    allowed[offset] = bool(constraint(rows[offset]))
                except Exception as error:  # noqa: BLE001 - a user's function; it becomes that combination's failure
                    broken.setdefault(start + offset, _raised(constraint, error))
        return allowed, sorted(broken.items())

    def describe_rejection(self, index: int) -> str:
        """Which constraint rejects the combination, as messages say it."""
        for constraint in self.constraints:
            alone = self._constrained((constraint,))
            allowed, _ = alone.mask(index, index + 1)
            if allowed is not None and not allowed[0]:
                return f"the constraint {describe(constraint)}"
        return "no constraint"

    def get_combinations(self) -> list[dict[str, Any]]:
        """All combinations that satisfy the constraints, as a list. Raises SpaceError above 10 million: index instead."""
        if self.size > LARGEST_LIST:
            raise SpaceError(
                f"a list of {format_count(self.size)} combinations would not be wise; use space[i], iterate, "
                "or space.sample(n, seed=...)"
            )
        found: list[dict[str, Any]] = []
        for start in range(0, self.size, 65_536):
            stop = min(self.size, start + 65_536)
            allowed, broken = self.mask(start, stop)
            if broken:
                raise broken[0][1]
            found += self.rows(start, stop) if allowed is None else self.pick(start + np.flatnonzero(allowed))
        return found

    def _constrained(self, constraints: tuple[Constraint, ...]) -> Self:
        other = copy(self)
        other.constraints = constraints
        return other

    def __len__(self) -> int:
        """Number of combinations before constraints. OverflowError above `sys.maxsize`; `.size` has no bound."""
        return self.size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every combination, in order."""
        for start in range(0, self.size, 4096):
            yield from self.rows(start, min(self.size, start + 4096))

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """The combination at a position; a slice gives a list. Raises IndexError beyond the size."""
        if isinstance(index, slice):
            positions = range(*index.indices(self.size))
            if len(positions) > LARGEST_LIST:
                raise SpaceError(
                    f"a slice of {format_count(len(positions))} combinations would not be wise; iterate instead"
                )
            return [self[position] for position in positions]
        position = index + self.size if index < 0 else index
        if not 0 <= position < self.size:
            raise IndexError(f"the space has {format_count(self.size)} combinations, but index {index} was asked for")
        return self.rows(position, position + 1)[0]


def _raised(constraint: Constraint, error: Exception) -> SpaceError:
    """What a constraint raised, with the constraint named; the error itself is the cause."""
    named = SpaceError(f"the constraint {describe(constraint)} raised {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def _holds(constraint: Expression, columns: dict[str, NDArray[Any]], size: int) -> NDArray[np.bool_]:
    gone = np.zeros(size, np.bool_)
    for name in constraint.names:
        if columns[name].dtype == object:
            gone |= np.fromiter((value is ABSENT for value in columns[name]), np.bool_, size)
    if not gone.any():
        return constraint.holds(columns, size)
    there = ~gone
    result = np.ones(size, np.bool_)
    present = {name: _numeric(columns[name][there]) for name in constraint.names}
    result[there] = constraint.holds(present, int(there.sum()))
    return result


def _hold_apart(
    constraint: Expression,
    columns: dict[str, NDArray[Any]],
    allowed: NDArray[np.bool_],
    start: int,
    broken: dict[int, Exception],
) -> None:
    """One combination at a time, where some cannot be compared: text with a number."""
    for offset in np.flatnonzero(allowed).tolist():
        try:
            allowed[offset] = _holds(constraint, {name: column[[offset]] for name, column in columns.items()}, 1)[0]
        except TypeError as error:
            cause = TypeError(f"the constraint {describe(constraint)} cannot be told here: {error}")
            broken.setdefault(start + offset, cause)


def _numeric(column: NDArray[Any]) -> NDArray[Any]:
    """An object column of numbers as an array of numbers, so that arithmetic on it is vectorised."""
    kinds = {type(value) for value in column}
    return np.array(column.tolist()) if kinds and kinds <= {int, float} else column


def _dicts(columns: dict[str, list[Any]], conditional: bool) -> list[dict[str, Any]]:
    names, values = list(columns), list(columns.values())
    if conditional:
        made: list[dict[str, Any]] = [{} for _ in values[0]]
        for name, column in zip(names, values, strict=True):
            for item, value in zip(made, column, strict=True):
                if value is not ABSENT:
                    item[name] = value
        return made
    if len(names) == 2:
        # The commonest grid by far, and the one with a third that does not vary: literals are the fastest for few names.
        first, second = names
        return [{first: a, second: b} for a, b in zip(*values, strict=True)]
    if len(names) == 3:
        first, second, third = names
        return [{first: a, second: b, third: c} for a, b, c in zip(*values, strict=True)]
    base = dict.fromkeys(names)
    made = [base.copy() for base[names[0]] in values[0]]
    for name, column in zip(names[1:], values[1:], strict=True):
        for item, value in zip(made, column, strict=True):
            item[name] = value
    return made


def _indices(start: int, stop: int) -> NDArray[Any]:
    return np.arange(start, stop, dtype=np.int64 if stop < 2**62 else object)
