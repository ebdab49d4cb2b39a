"""`ParameterSpace`: the pure grid of `admf_dask.space`, with the door to Dask bags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from admf_dask.space import Combinable, Combinations, ParameterGrid
from admf_dask.text import join_words

if TYPE_CHECKING:
    from dask.bag import Bag


class ParameterSpace(ParameterGrid):
    """A grid of parameter combinations: a lazy sequence of dicts that costs nothing to hold, whatever its length.

    ```python
    space = ParameterSpace({"fast": range(5, 50), "slow": IntRange(20, 200, 5)}, constraints=["fast < slow"])
    ```

    Parameters
    ----------
    axes
        Name -> list, tuple, range, NumPy array, `IntRange`, `FloatRange`, `LogRange`, `Choice` or `Conditional`; the last
        axis varies fastest.
    constraints
        Functions `f(params) -> bool` or expressions such as `"fast < slow"`, a list of them or one. `len(space)` and
        `space[i]` are of the whole grid; constraints are applied where combinations are used, on the workers.

    A grid of 10^9 points costs nothing to hold; `space[i]` costs O(axes). Immutable and thread-safe. Raises SpaceError for
    names, bounds, duplicates or constraints that break a rule.
    """

    def to_bag(self, npartitions: int | None = None) -> Bag:
        """The combinations that satisfy the constraints, as a `dask.bag.Bag` of dicts.

        Partitions are index ranges of the grid, so the graph holds two integers for each, and a partition makes its
        combinations on the worker. `npartitions` defaults to 100, or the number of points if that is smaller.
        """
        from admf_dask.runtime.graph import grid_bag

        return grid_bag(self, npartitions)


def as_space(parameter_space: Any) -> Combinable:
    """What `optimize` accepts as a space: a grid or a sample of one, a mapping of axes, or a sequence of dicts.

    Raises TypeError with the rule for anything else.
    """
    if isinstance(parameter_space, Combinable):
        return parameter_space
    if isinstance(parameter_space, Mapping):
        return ParameterSpace(parameter_space)
    combinations = getattr(parameter_space, "get_combinations", None)
    rows = combinations() if callable(combinations) else parameter_space
    if isinstance(rows, (list, tuple)) and all(isinstance(row, Mapping) for row in rows):
        return Combinations(rows)
    kinds = join_words(("a ParameterSpace", "a mapping name -> values", "a list of dicts"), "or")
    raise TypeError(
        f"parameter_space must be {kinds}, but got {parameter_space!r:.80} ({type(parameter_space).__name__})"
    )
