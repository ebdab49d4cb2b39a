"""Conditional parameters: a child whose values depend on its parent's, expanded fully into one branch of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.space.axes import Axis, distinct, exact_array, make_axis
from admf_dask.space.items import ABSENT
from admf_dask.text import did_you_mean, format_count

LARGEST_BRANCH = 1_000_000
_MISSING: Any = object()


@dataclass(frozen=True)
class Conditional:
    """A parameter whose values depend on the value of `parent`.

    `value_map` maps a value of the parent to the values of this one. For a parent's value that is not in it, the parameter is
    absent from the combination, or has the one value `default` if that is given.
    """

    parent: str
    value_map: Mapping[Any, Any]
    default: Any = _MISSING


class Branch:
    """A parent with all that depends on it, as rows; one factor of the grid."""

    def __init__(self, names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
        """`rows` hold a value or ABSENT for each of `names`."""
        self.names, self._rows = names, rows
        self._exact = [exact_array([row[place] for row in rows]) for place in range(len(names))]

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, codes: NDArray[np.int64], *, natives: bool = False) -> dict[str, NDArray[Any]]:
        """Columns at positions."""
        return {name: column[codes] for name, column in zip(self.names, self._exact, strict=True)}

    def code(self, params: Mapping[str, Any]) -> int:
        """The row of a combination; ValueError if there is none."""
        return self._rows.index(tuple(params.get(name, ABSENT) for name in self.names))

    def distinct(self, name: str) -> list[Any]:
        """Values of one parameter, in order of appearance."""
        place = self.names.index(name)
        return distinct(row[place] for row in self._rows if row[place] is not ABSENT)


def make_branches(plain: dict[str, Axis], conditional: dict[str, Conditional]) -> list[Branch]:
    """One branch for each parent that has children. Raises SpaceError for an unknown parent or a circle."""
    known = [*plain, *conditional]
    for name, spec in conditional.items():
        if spec.parent not in known:
            raise SpaceError(
                f"the parent of {name!r} is {spec.parent!r}, which is no parameter{did_you_mean(spec.parent, known)}"
            )
        _check_no_circle(name, conditional)
    branches: list[Branch] = []
    for root in plain:
        names = _below(root, conditional)
        if len(names) > 1:
            branches.append(_expand(plain[root], names, conditional))
    return branches


def _below(root: str, conditional: dict[str, Conditional]) -> tuple[str, ...]:
    names = [root]
    for name in names:
        names += [child for child, spec in conditional.items() if spec.parent == name]
    return tuple(names)


def _expand(root: Axis, names: tuple[str, ...], conditional: dict[str, Conditional]) -> Branch:
    rows: list[tuple[Any, ...]] = [(value,) for value in root.values]
    for place, name in enumerate(names[1:], start=1):
        spec = conditional[name]
        parent = names[:place].index(spec.parent)
        _check_keys(name, spec, {row[parent] for row in rows if row[parent] is not ABSENT})
        rows = [(*row, value) for row in rows for value in _values(name, spec, row[parent])]
        if len(rows) > LARGEST_BRANCH:
            raise SpaceError(
                f"the conditional parameters below {root.name!r} have more than {format_count(LARGEST_BRANCH)} combinations; "
                "make the ranges coarser, or use a constraint instead"
            )
    return Branch(names, rows)


def _values(name: str, spec: Conditional, parent: Any) -> list[Any]:
    if parent is not ABSENT and parent in spec.value_map:
        return list(make_axis(name, _listed(spec.value_map[parent])).values)
    return [ABSENT] if spec.default is _MISSING else [spec.default]


def _listed(values: Any) -> Any:
    return [values] if isinstance(values, (str, int, float, bool)) else values


def _check_keys(name: str, spec: Conditional, parents: set[Any]) -> None:
    for key in spec.value_map:
        if key not in parents:
            raise SpaceError(
                f"value_map of {name!r} names {key!r}, which is no value of its parent {spec.parent!r}"
                f"{did_you_mean(key, map(str, parents))}"
            )


def _check_no_circle(name: str, conditional: dict[str, Conditional]) -> None:
    path = [name]
    while (parent := conditional[path[-1]].parent) in conditional:
        if parent in path:
            raise SpaceError(f"conditional parameters depend on each other in a circle: {' -> '.join([*path, parent])}")
        path.append(parent)
