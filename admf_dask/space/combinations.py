"""A list of dicts as a space, for people who have their combinations already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.space.axes import make_axis
from admf_dask.space.constraints import Constraint, make_constraints
from admf_dask.space.items import ABSENT, Combinable
from admf_dask.text import format_count


class Combinations(Combinable):
    """Explicit combinations; a name that some lack is a conditional parameter."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], *, constraints: Any = ()) -> None:
        """Raises SpaceError for a row that is no mapping."""
        for place, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise SpaceError(
                    f"every combination must be a mapping of name -> value, but number {place} is {row!r:.80}"
                )
        names = dict.fromkeys(str(name) for row in rows for name in row)
        self.names, self.size = tuple(names), len(rows)
        self.conditional = any(len(row) < len(names) for row in rows)
        self._columns = {name: _column([row.get(name, ABSENT) for row in rows]) for name in names}
        self.constraints = make_constraints(constraints, self.names)

    def take(self, indices: NDArray[Any], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """The combinations at `indices`."""
        return {name: column[indices] for name, column in self._columns.items()}

    def axis_values(self, name: str) -> list[Any]:
        """The distinct values of one parameter, in order of appearance."""
        return list(dict.fromkeys(value for value in self._columns[name].tolist() if value is not ABSENT))

    def with_constraints(self, *constraints: Any) -> Self:
        """The same combinations with more constraints."""
        return self._constrained(self._more(constraints))

    def _constrained(self, constraints: tuple[Constraint, ...]) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.constraints = constraints
        return other

    def __repr__(self) -> str:
        """Size and names."""
        return f"<Combinations: {format_count(self.size)} of {', '.join(self.names)}>"


def _column(values: list[Any]) -> NDArray[Any]:
    distinct = list({(type(value), repr(value)): value for value in values}.values())
    table = (
        make_axis("column", distinct).numbers
        if ABSENT not in distinct and len({type(v) for v in distinct}) == 1
        else None
    )
    column = np.empty(len(values), object if table is None else table.dtype)
    column[:] = values
    return column
