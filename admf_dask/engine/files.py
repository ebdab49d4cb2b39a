"""Files of bars as tables by time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from admf_dask.errors import DataError
from admf_dask.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

DATES = ("date", "datetime", "timestamp", "time")


def read_bars(
    path: str | os.PathLike[str],
    *,
    parquet: bool = False,
    columns: Mapping[str, str] | None = None,
    date_column: str | None = None,
    date_format: str | None = None,
    tz: str | None = None,
    sort: bool = False,
) -> pd.DataFrame:
    """A CSV or Parquet file with its times as index, columns under their new names (`columns`: name in the file -> new name).

    Without `date_column` it is the column called date, datetime, timestamp or time, whatever its case, unless a Parquet file
    has an index; a file with neither keeps its row numbers. Raises DataError naming the file, and the row (counted from 0),
    when rows are not in the order of time and `sort` does not ask to put them there.
    """
    import pandas as pd

    name = os.path.basename(os.fspath(path))
    try:
        table = pd.read_parquet(path) if parquet else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"the price file {path} cannot be read: {error}") from error
    table = table.rename(columns=dict(columns or {}))
    if date_column is None and isinstance(table.index, pd.RangeIndex):
        date_column = next((label for label in table.columns if str(label).lower() in DATES), None)
    if date_column is not None:
        if date_column not in table.columns:
            raise DataError(
                f"{name} has no date column {date_column!r}; set date_column{did_you_mean(date_column, map(str, table.columns))}"
            )
        try:
            times = pd.to_datetime(table[date_column], format=date_format)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{name}: the dates in column {date_column!r} cannot be read ({error}); set date_format"
            ) from error
        table = table.drop(columns=date_column).set_index(pd.DatetimeIndex(times, name=date_column))
    return _by_time(table.tz_localize(tz) if tz else table, name, sort)


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
