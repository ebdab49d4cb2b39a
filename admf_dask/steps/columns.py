"""What every step asks of a frame: columns whatever their case, numbers in them, and times in ascending order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import DataError
from admf_dask.text import closest

if TYPE_CHECKING:
    import pandas as pd

PRICES = ("open", "high", "low", "close")
BARS = (*PRICES, "volume")


def check_frame(frame: Any, step: str) -> pd.DataFrame:
    """The frame itself. Raises TypeError for anything else, with the call that was probably meant."""
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        return frame
    raise TypeError(
        f"{step} takes a DataFrame first, but got {frame!r:.60} ({type(frame).__name__}); as a function over symbols write "
        f"compose({step}), or [{step}]"
    )


def find_column(frame: pd.DataFrame, name: Any) -> Any:
    """The label of a column as the frame spells it: exactly so, or else whatever its case.

    Raises DataError for a column that is not there, naming the nearest and all that are, and for one that is there twice.
    """
    exact = [label for label in frame.columns if label == name]
    found = exact or [label for label in frame.columns if str(label).lower() == str(name).lower()]
    if len(found) == 1:
        return found[0]
    known = [str(label) for label in frame.columns]
    if found:
        raise DataError(f"a column must be there once, but {name!r} may be any of {found}; rename or drop all but one")
    near = closest(name, known)
    hint = f"; did you mean {near!r}?" if near else ""
    raise DataError(f"the frame must have a column {name!r}, but has {', '.join(known) or 'none'}{hint}")


def bar_columns(frame: pd.DataFrame, names: Iterable[str] = BARS) -> dict[str, Any]:
    """Of the standard names those that the frame has, with its own spelling: `{"close": "Close"}`."""
    lowered = {str(label).lower() for label in frame.columns}
    return {name: find_column(frame, name) for name in names if name in lowered}


def numbers(frame: pd.DataFrame, label: Any) -> NDArray[np.float64]:
    """A column as float64, shape (rows,), missing values as NaN.

    Raises DataError naming row and value for one that is no number.
    """
    import pandas as pd

    column = frame[label]
    try:
        values: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return values
    except (TypeError, ValueError):
        wrong = np.flatnonzero((pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy())
    where = (
        f"{column.iloc[wrong[0]]!r} in row {wrong[0]} ({frame.index[wrong[0]]})" if len(wrong) else str(column.dtype)
    )
    raise DataError(f"column {label!r} must hold numbers, but has {where}; read it again or drop it")


def check_times(frame: pd.DataFrame, step: str, *, ascending: bool = True) -> pd.DatetimeIndex:
    """The index, which must hold times, and in ascending order (repeats allowed) unless told otherwise.

    Raises DataError with what to type.
    """
    import pandas as pd

    index = frame.index
    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(
            f"{step} needs times in the index (a DatetimeIndex), but has {type(index).__name__}; read the file with "
            "FrameReader(date_column=...), or write frame.set_index(pd.to_datetime(frame['date']))"
        )
    if index.hasnans:
        raise DataError(f"{step} needs a time for each row, but row {int(np.argmax(index.isna()))} has none (NaT)")
    if ascending and not index.is_monotonic_increasing:
        row = 1 + int(np.argmax(np.diff(index.asi8) < 0))
        raise DataError(
            f"{step} needs ascending times, but row {row} ({index[row]}) follows {index[row - 1]}; "
            'write frame.sort_index(), or clean(frame, unsorted="sort") before'
        )
    return index


def check_choice(name: str, value: Any, choices: Iterable[str | None]) -> None:
    """Raises ValueError unless an option is one of its choices."""
    known = list(choices)
    if value not in known:
        near = closest(value, [choice for choice in known if choice])
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, but is {value!r}{hint}")


def add_columns(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """A new frame with more columns. Raises DataError rather than write over one that is there."""
    there = [name for name in columns if name in frame.columns]
    if there:
        raise DataError(
            f"a step must not write over a column, but the frame has {there[0]!r} already; drop it or rename it"
        )
    return frame.assign(**columns)
