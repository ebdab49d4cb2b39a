"""The values of one parameter: ranges and choices, checked rule first, as Python natives and as arrays."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import SpaceError
from admf_dask.identity import content_key
from admf_dask.text import format_count, short

LARGEST_TABLE = 10_000_000


@dataclass(frozen=True, slots=True)
class IntRange:
    """Whole numbers `low, low + step, ...` up to and including `high`."""

    low: int
    high: int
    step: int = 1

    def values(self, name: str) -> Sequence[Any]:
        """The values, lazily. Raises SpaceError naming the axis."""
        for key in ("low", "high", "step"):
            if not _is_int(getattr(self, key)):
                raise SpaceError(f"{key} of axis {name!r} must be a whole number, but is {getattr(self, key)!r}")
        _check_bounds(name, self.low, self.high, self.step)
        return range(self.low, self.high + 1, self.step)


@dataclass(frozen=True, slots=True)
class FloatRange:
    """Numbers from `low` to `high`: by `step` (in decimals, so 0.1 to 0.7 by 0.1 is seven values), or `num` evenly spaced.

    By step, a `high` off the step is left out.
    """

    low: float
    high: float
    step: float | None = None
    num: int | None = None

    def values(self, name: str) -> Sequence[Any]:
        """The values. Raises SpaceError naming the axis."""
        _check_numbers(name, low=self.low, high=self.high)
        if (self.step is None) == (self.num is None):
            raise SpaceError(
                f"axis {name!r} takes either step or num; write FloatRange({self.low}, {self.high}, step=...)"
            )
        if self.step is not None:
            _check_numbers(name, step=self.step)
            _check_bounds(name, self.low, self.high, self.step)
            low, step = Decimal(repr(float(self.low))), Decimal(repr(float(self.step)))
            count = int((Decimal(repr(float(self.high))) - low) / step) + 1
            return [float(low + step * position) for position in range(_table_size(name, count))]
        return _spaced(name, self.low, self.high, self.num, np.linspace)


@dataclass(frozen=True, slots=True)
class LogRange:
    """`num` numbers from `low` to `high`, evenly spaced in their logarithm; `integer` rounds them and drops repeats."""

    low: float
    high: float
    num: int
    integer: bool = False

    def values(self, name: str) -> Sequence[Any]:
        """The values. Raises SpaceError naming the axis."""
        _check_numbers(name, low=self.low, high=self.high)
        if self.low <= 0:
            raise SpaceError(f"`low > 0` must hold for the logarithmic axis {name!r}, but low={self.low}")
        values = _spaced(name, self.low, self.high, self.num, np.geomspace)
        return list(dict.fromkeys(round(value) for value in values)) if self.integer else values


@dataclass(frozen=True, slots=True)
class Choice:
    """The given values, of any type, in the given order."""

    options: Sequence[Any]

    def __init__(self, options: Iterable[Any]) -> None:
        """Take the options as they come."""
        object.__setattr__(self, "options", tuple(options))

    def values(self, name: str) -> Sequence[Any]:
        """The values. Raises SpaceError naming the axis."""
        return [native(value) for value in self.options]


@dataclass(frozen=True, slots=True)
class Axis:
    """A name and its values; `table` holds them as an array unless they are a range."""

    name: str
    values: Sequence[Any]
    table: NDArray[Any] | None
    numbers: NDArray[Any] | None
    """The table as int64, float64 or bool where that is possible; the same object where nothing changes."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, codes: NDArray[np.int64], *, natives: bool = False) -> NDArray[Any]:
        """Values at positions, shape (n,). With `natives`, `.tolist()` of the result gives the values exactly."""
        if isinstance(self.values, range):
            return codes * self.values.step + self.values.start
        table = self.table if natives or self.numbers is None else self.numbers
        assert table is not None
        return table[codes]


def make_axis(name: Any, spec: Any) -> Axis:
    """Check a name and what was given for it. Raises SpaceError with the rule."""
    check_name(name)
    if isinstance(spec, (IntRange, FloatRange, LogRange, Choice)):
        values = spec.values(name)
    elif isinstance(spec, range):
        values = spec
    elif isinstance(spec, (str, bytes)) or not isinstance(spec, Iterable) or isinstance(spec, dict):
        raise SpaceError(
            f"axis {name!r} must be a list, a range, IntRange, FloatRange, LogRange or Choice, but is {spec!r:.60}; "
            f"for a fixed value write [{spec!r:.60}]"
        )
    else:
        values = [native(value) for value in spec]
    if not len(values):
        raise SpaceError(f"axis {name!r} must have at least one value, but {spec!r:.80} has none")
    if isinstance(values, range):
        return Axis(name, values, None, None)
    _check_duplicates(name, values)
    return Axis(name, tuple(values), *_tables(values))


def _tables(values: Sequence[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    exact = exact_array(values)
    if {type(value) for value in values} == {int, float}:
        return exact, np.array(values, np.float64)
    return exact, exact if exact.dtype != object else None


def exact_array(values: Sequence[Any]) -> NDArray[Any]:
    """An array whose `.tolist()` gives the values: bool, int64 or float64 where all are of one such kind, else objects."""
    kinds = {type(value) for value in values}
    if kinds == {bool} or kinds == {float}:
        return np.array(values)
    if kinds == {int} and all(-(2**62) < value < 2**62 for value in values):
        return np.array(values, np.int64)
    return np.fromiter(values, object, len(values))


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order of appearance."""
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(known_by(value), value)
    return list(found.values())


def known_by(value: Any) -> Any:
    """What tells a value from others: its own, that it is a truth value, of frames and arrays the content, of lists the repr."""
    try:
        hash(value)
    except TypeError:
        if hasattr(value, "shape"):
            with contextlib.suppress(TypeError):  # its cells may be anything
                return content_key(value)  # a long frame leaves its middle out of its repr
        return repr(value)
    # NaN is like no other NaN.
    return "nan" if isinstance(value, float) and math.isnan(value) else (isinstance(value, bool), value)


def native(value: Any) -> Any:
    """A value of NumPy's as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def check_name(name: Any) -> None:
    """Raise SpaceError for what is no name of a parameter."""
    if isinstance(name, bool):
        raise SpaceError(
            f"an axis is named {name}, which YAML makes of an unquoted on, off, yes or no; put quotes around it"
        )
    if not isinstance(name, str) or not name:
        raise SpaceError(f"an axis must be named by a string, but one is named {name!r}")


def _check_numbers(name: str, **numbers: Any) -> None:
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
            raise SpaceError(f"{key} of axis {name!r} must be a finite number, but is {value!r}")


def _check_bounds(name: str, low: float, high: float, step: float) -> None:
    if not low <= high:
        raise SpaceError(f"`low <= high` must hold for axis {name!r}, but low={low}, high={high}.")
    if not step > 0:
        raise SpaceError(f"`step > 0` must hold for axis {name!r}, but step={step}.")


def _spaced(name: str, low: float, high: float, num: Any, space: Any) -> list[float]:
    if not _is_int(num) or num < 1:
        raise SpaceError(f"num of axis {name!r} must be a whole number of at least 1, but is {num!r}")
    if not low <= high or (num == 1 and low != high) or (low == high and num != 1):
        raise SpaceError(
            f"`low < high` (or low == high with num=1) must hold for axis {name!r}, but low={low}, high={high}, num={num}."
        )
    values: list[float] = space(low, high, _table_size(name, num)).tolist()
    values[0], values[-1] = float(low), float(high)
    return values


def _table_size(name: str, count: int) -> int:
    if count > LARGEST_TABLE:
        raise SpaceError(
            f"axis {name!r} has {format_count(count)} values, more than {format_count(LARGEST_TABLE)}; "
            "only IntRange and range may be longer"
        )
    return count


def _check_duplicates(name: str, values: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if isinstance(value, float) and math.isnan(value):
            raise SpaceError(f"axis {name!r} must not hold NaN")
        key = known_by(value)
        if key in seen:
            raise SpaceError(f"the values of axis {name!r} must differ, but {short(value)} stands there twice")
        seen.add(key)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
