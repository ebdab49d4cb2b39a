"""A list of dicts as a space, for people who have their combinations already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.space.axes import check_name, distinct, exact_array, native
from admf_dask.space.constraints import make_constraints
from admf_dask.space.items import ABSENT, Combinable
from admf_dask.text import format_count


class Combinations(Combinable):
    """Explicit combinations; a name that some lack is a conditional parameter."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], *, constraints: Any = ()) -> None:
        """Raises SpaceError for a row that is no mapping, or a name that is no string."""
        for place, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise SpaceError(
                    f"every combination must be a mapping of name -> value, but number {place} is {row!r:.80}"
                )
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            check_name(name)
        self.names, self.size = tuple(names), len(rows)
        self.conditional = any(len(row) < len(names) for row in rows)
        self._columns = {name: exact_array([native(row.get(name, ABSENT)) for row in rows]) for name in names}
        self.constraints = make_constraints(constraints, self.names)

    def take(self, indices: NDArray[Any], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """The combinations at `indices`."""
        return {name: column[indices] for name, column in self._columns.items()}

    def axis_values(self, name: str) -> list[Any]:
        """The distinct values of one parameter, in order of appearance."""
        return distinct(value for value in self._columns[name].tolist() if value is not ABSENT)

    def __repr__(self) -> str:
        """Size and names."""
        return f"<Combinations: {format_count(self.size)} of {', '.join(self.names)}>"
