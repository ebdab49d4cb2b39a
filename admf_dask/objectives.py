"""What an objective may return, and the decorator for objectives that take a whole chunk at once.

Plain objectives are called as `objective(params)` with a dict of one combination. A batch objective is called as
`objective(columns)` with a mapping name -> 1-D array, one entry per combination, and answers for all of them. Both
are called with the data as a second argument when `data=` was given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

SCORE = "score"
"""The column that a bare number goes into."""

Columns = Mapping[str, NDArray[Any]]
Scores = dict[str, NDArray[np.float64]]


class BatchObjective:
    """An objective over whole chunks; made by `batch_objective`, or subclassed by an engine.

    Called with a mapping name -> 1-D array of length n (and the data, if any), it returns scores of shape (n,) or a
    mapping of such arrays. It must treat the rows independently: how a grid is cut into chunks is not its business.
    """

    telling: tuple[str, ...] = ()
    """Results that say, when they are equal for all of several combinations, that what was varied has no effect."""

    def __init__(self, function: Callable[..., Any], *, max_rows: int | None = None) -> None:
        """Wrap `function`, keeping its name and docstring; `max_rows` bounds the combinations of one call."""
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, but got {max_rows}")
        self.function = function
        self.max_rows = max_rows
        functools.update_wrapper(self, function)

    def __call__(self, columns: Columns, *data: Any, **seeds: Any) -> Any:
        """Evaluate one chunk; `seeds=` where the run has a seed and the function takes them."""
        return self.function(columns, *data, **seeds)

    def identity_parts(self) -> Mapping[str, Any]:
        """What its results depend on, by the names that a message uses for it; a journal compares them."""
        return {"the function": self.function}

    def __repr__(self) -> str:
        """Name the function inside."""
        return f"batch_objective({getattr(self.function, '__name__', self.function)!s})"


@overload
def batch_objective(function: Callable[..., Any]) -> BatchObjective: ...
@overload
def batch_objective(*, max_rows: int) -> Callable[[Callable[..., Any]], BatchObjective]: ...
def batch_objective(function: Callable[..., Any] | None = None, *, max_rows: int | None = None) -> Any:
    """Mark `function` as taking a mapping name -> 1-D array and returning scores (n,) or a mapping of them.

    One call then evaluates many combinations, which is how vectorised and compiled code reaches its speed. How many is
    decided by measured time; `max_rows` bounds it for functions whose memory grows with n. If a call raises, the chunk is
    halved until the guilty combination stands alone; the others are evaluated without it.

    Use as `@batch_objective` or `@batch_objective(max_rows=1000)`. Raises TypeError if it decorates no function.
    """
    if function is None:
        return functools.partial(batch_objective, max_rows=max_rows)
    if not callable(function):
        raise TypeError(f"batch_objective decorates a function, but got {function!r}")
    return BatchObjective(function, max_rows=max_rows)


def read_score(value: Any) -> dict[str, float]:
    """What a plain objective returned, as named floats: a number is `{"score": number}`.

    Raises TypeError with the rule for anything that is neither a real number nor a mapping of real numbers.
    """
    if isinstance(value, Mapping):
        if not value:
            raise TypeError(
                "an objective must return a number or a mapping of numbers, but it returned an empty mapping"
            )
        return {str(name): _as_float(number, f" under {name!r}") for name, number in value.items()}
    return {SCORE: _as_float(value, "")}


def read_scores(value: Any, size: int) -> Scores:
    """What a batch objective returned for `size` combinations, as float64 columns of shape (size,).

    Raises TypeError or ValueError with the rule if the type or the shape is wrong.
    """
    named = value if isinstance(value, Mapping) else {SCORE: value}
    columns: Scores = {}
    for name, column in named.items():
        array = np.asarray(column)
        if array.shape != (size,):
            raise ValueError(
                f"a batch objective must return one number per combination, shape ({size},), "
                f"but {str(name)!r} has shape {array.shape}"
            )
        if array.dtype.kind not in "fiub":
            raise TypeError(f"a batch objective must return numbers, but {str(name)!r} has dtype {array.dtype}")
        columns[str(name)] = array.astype(np.float64, copy=False)
    if not columns:
        raise TypeError("a batch objective must return scores, but it returned an empty mapping")
    return columns


def _as_float(value: Any, where: str) -> float:
    if type(value) is float:
        return value
    if isinstance(value, (int, float, np.number, np.bool_)) and not isinstance(value, np.complexfloating):
        return float(value)
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "fiub":
        return float(value)
    hint = "; did it end without `return`?" if value is None else _hint(value)
    raise TypeError(
        f"an objective must return a number or a mapping of numbers, but it returned {_short(value)}{where}{hint}"
    )


def _hint(value: Any) -> str:
    """What to write for tables and numbers of other kinds."""
    if hasattr(value, "to_dict"):
        return "; write `return values.to_dict()`" if getattr(value, "ndim", 1) == 1 else "; return one number of it"
    return "; write `return float(...)`" if hasattr(value, "__float__") and not isinstance(value, complex) else ""


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
