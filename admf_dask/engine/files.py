"""Files of bars as tables by time. A date that can be read in two ways is refused: a wrong month is a wrong result."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from admf_dask.errors import DataError
from admf_dask.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

DATES = ("date", "datetime", "timestamp", "time")
UNITS = ("s", "ms", "us", "ns")
"""Formats of dates that count from 1970."""


def read_bars(
    path: str | os.PathLike[str],
    *,
    parquet: bool = False,
    columns: Mapping[str, str] | None = None,
    date_column: str | None = None,
    date_format: str | None = None,
    separator: str = ",",
    decimal: str = ".",
    tz: str | None = None,
    sort: bool = False,
) -> pd.DataFrame:
    """A CSV or Parquet file with its times as index, columns under their new names (`columns`: name in the file -> new name).

    Without `date_column` it is the column called date, datetime, timestamp or time, whatever its case, unless a Parquet file
    has an index; a file with neither keeps its row numbers. `date_format` is a pattern such as `%d.%m.%Y`, or `s`, `ms`, `us` or
    `ns` for numbers that count from 1970. Without it dates must have one meaning: 03/01/2013 has two, unless another row of the
    column tells which. Where offsets differ (summer time), times are in UTC. Raises DataError naming the file, and the row
    (counted from 0), when rows are not in the order of time and `sort` does not ask to put them there.
    """
    import pandas as pd

    name = os.path.basename(os.fspath(path))
    try:
        table = pd.read_parquet(path) if parquet else pd.read_csv(path, sep=separator, decimal=decimal)
    except (OSError, ValueError) as error:
        raise DataError(f"the price file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    _check_shape(table, name)
    table = table.rename(columns=dict(columns or {}))
    if date_column is None and isinstance(table.index, pd.RangeIndex):
        date_column = next((label for label in table.columns if str(label).lower() in DATES), None)
    if date_column is not None:
        if date_column not in table.columns:
            raise DataError(
                f"{name} has no date column {date_column!r}; set date_column{did_you_mean(date_column, map(str, table.columns))}"
            )
        values = table[date_column]
        if values.dtype.kind in "iu" and date_format not in (None, *UNITS):
            # By a pattern text is read: 01022013 must keep its zero.
            label = next((old for old, new in (columns or {}).items() if new == date_column), date_column)
            values = values.astype(str) if parquet else _as_text(path, label, separator)
        times = pd.DatetimeIndex(_times(values, date_format, f"{name}: the dates in column {date_column!r}"))
        table = table.drop(columns=date_column).set_index(times.rename(date_column))
    if tz:
        table = table.tz_localize(tz) if getattr(table.index, "tz", None) is None else table.tz_convert(tz)
    return _by_time(table, name, sort)


def _as_text(path: Any, label: str, separator: str) -> Any:
    import pandas as pd

    return pd.read_csv(path, sep=separator, usecols=[label], dtype="string")[label].str.strip()


def _check_shape(table: pd.DataFrame, name: str) -> None:
    """Raise DataError for a table without rows, and for one whose columns were not told apart."""
    if not len(table):
        raise DataError(f"{name} has no rows")
    only = str(table.columns[0]) if len(table.columns) == 1 else ""
    found = next((mark for mark in ";\t|" if mark in only), None)
    if found:
        raise DataError(f"{name} has one column, {only!r:.60}; set separator to {found!r}")


def _times(values: Any, date_format: str | None, words: str) -> Any:
    """Times of a column. Raises DataError, beginning with `words`, for values that are none or have two meanings."""
    import pandas as pd

    first = next(iter(values.dropna()), None)
    try:
        if date_format in UNITS:
            return pd.to_datetime(pd.to_numeric(values), unit=date_format)  # type: ignore[call-overload]
        if date_format is not None or values.dtype.kind == "M":
            return _in_time(values, lambda: "%z" in (date_format or ""), format=date_format)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{words} cannot be read as {date_format} ({error}); set date_format") from error
    if values.dtype.kind in "iuf" and first is not None:
        raise DataError(
            f"{words} are numbers such as {first:.0f}; set date_format: {', '.join(UNITS)} for what counts from 1970, "
            "or a pattern such as '%Y%m%d'"
        )
    found = [_guessed(values, day_first=False)]
    if not str(first)[:4].isdigit():
        found.append(_guessed(values, day_first=True))
    readings = [one for one in found if one is not None]
    if not readings:
        raise DataError(f"{words}, such as {str(first)!r}, cannot be read; set date_format, such as '%d.%m.%Y'")
    if not readings[0].equals(readings[-1]):
        raise DataError(
            f"{words} have two meanings, such as {str(first)!r}, with the day or the month first; set date_format, such as "
            "'%d.%m.%Y' or '%m/%d/%Y'"
        )
    return readings[0]


def _guessed(values: Any, *, day_first: bool) -> Any:
    """Times as pandas guesses their format from the first; None where it is none."""

    def offsets() -> bool:
        return bool(values.dropna().astype(str).str.fullmatch(r".*\d:\d.*(?:Z|[+-]\d\d:?\d\d)").all())

    try:
        return _in_time(values, offsets, dayfirst=day_first)
    except (ValueError, TypeError):
        return None


def _in_time(values: Any, offsets: Callable[[], bool], **options: Any) -> Any:
    """Times as pandas reads them; in UTC where all have `offsets` and those differ. Raises ValueError for what it cannot read."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That the first row contradicts `dayfirst` is what another guess is for.
        try:
            times = pd.to_datetime(values, **options)
            if times.dtype.kind == "M":
                return times
            problem = ValueError("offsets differ, and some are missing")  # Before pandas 3 those are objects.
        except ValueError as error:
            problem = error
        if not offsets():
            raise problem
        return pd.to_datetime(values, utc=True, **options)


def _by_time(table: pd.DataFrame, name: str, sort: Any) -> pd.DataFrame:
    if sort not in (True, False):
        raise DataError(f"sort must be true or false, but is {sort!r}")
    index: Any = table.index
    if index.hasnans:
        raise DataError(f"{name} has no time in row {int(index.isna().argmax())}")
    if index.is_monotonic_increasing:
        return table
    if sort:
        return table.sort_index(kind="stable")
    at = next(row for row in range(1, len(index)) if index[row] < index[row - 1])
    how = "they are newest first: " if index.is_monotonic_decreasing else ""
    raise DataError(
        f"the rows of {name} must be in the order of time, but {how}row {at} ({index[at]}) follows {index[at - 1]}; write "
        "sort=True, or `sort: true` beside the file in YAML, to have them sorted"
    )
