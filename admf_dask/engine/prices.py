"""Prices as the engine reads them: checked once, then plain arrays."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.files import DATES
from admf_dask.engine.times import Times
from admf_dask.errors import DataError
from admf_dask.text import did_you_mean, join_words

SECONDS_PER_YEAR = 365.25 * 86400
TRADING_DAYS = 252.0
SYMBOLS = ("symbol", "ticker")
"""Columns that tell bars of several symbols apart."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Bars of one symbol: float64 arrays of shape (bars,), the index, and how many bars make a year."""

    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    times: Times
    periods_per_year: float
    symbol: str = ""

    @property
    def index(self) -> Any:
        """The index of the bars, as pandas has it."""
        return self.times.index

    def __len__(self) -> int:
        """Number of bars."""
        return len(self.close)

    def until(self, stop: int) -> Prices:
        """The first `stop` bars."""
        arrays = (self.open[:stop], self.high[:stop], self.low[:stop], self.close[:stop])
        return Prices(*arrays, Times(self.index[:stop]), self.periods_per_year, self.symbol)


def read_prices(table: Any, symbol: str = "") -> Prices:
    """Check a DataFrame of OHLC prices and take what the engine needs.

    Raises DataError naming column and row for a missing column, an index that is not ascending and unique, and a price that
    is missing, infinite or not positive; with `symbol`, that too. Warns where rows are numbered beside a column of dates.
    """
    if isinstance(table, Prices):
        return table
    try:
        prices = _read(table, symbol)
    except DataError as error:
        if not symbol:
            raise
        raise DataError(f"{symbol}: {error}") from None
    _warn_of_dates_aside(table)
    return prices


def _read(table: Any, symbol: str) -> Prices:
    if not hasattr(table, "columns") or not hasattr(table, "index"):
        raise DataError(
            f"prices must be a DataFrame with the columns open, high, low and close, but are {type(table).__name__}"
            f"{_frame_hint(table)}"
        )
    _check_one_symbol(table)
    lowered = {str(name).lower(): name for name in table.columns}
    arrays = {name: _column(table, lowered, name) for name in ("open", "high", "low", "close")}
    if not len(arrays["close"]):
        raise DataError("prices must have at least one row, but the table is empty")
    times = _times(table.index)
    if not table.index.is_monotonic_increasing or not table.index.is_unique:
        at = next(i for i in range(1, len(table)) if not table.index[i] > table.index[i - 1])
        again = table.index[at] == table.index[at - 1]
        cure = "keep one of them: prices[~prices.index.duplicated()]" if again else "write prices.sort_index()"
        raise DataError(
            f"the index of prices must be ascending without repeats, but row {at} ({table.index[at]}) follows "
            f"{table.index[at - 1]}; {cure}"
        )
    columns = (arrays["open"], arrays["high"], arrays["low"], arrays["close"])
    return Prices(*columns, Times(table.index), _periods_per_year(times), symbol)


def _times(index: Any) -> Any:
    """What an index says of times: itself, or of text as 2005-01-31, whose order is that of time, what it means.

    Raises DataError for other text, which may be in order while its days are not.
    """
    if index.dtype.kind != "O" or not isinstance(index[0], str):
        return index
    import pandas as pd

    try:
        return pd.DatetimeIndex(pd.to_datetime(pd.Index(index.astype(object)), format="ISO8601", utc=True))
    except (ValueError, TypeError):
        raise DataError(
            f"the index of prices must be times or numbers, but is text such as {index[0]!r}; write "
            "prices.index = pd.to_datetime(prices.index, format=...)"
        ) from None


def _frame_hint(given: Any) -> str:
    """What to write for what is no frame but could be made one."""
    if isinstance(given, (str, os.PathLike)):
        return f"; write FrameDataHandler.from_csv({os.fspath(given)!r}), of admf_dask.engine"
    if hasattr(given, "to_frame"):
        return (
            "; where there is one price write pd.DataFrame({name: prices for name in ('open', 'high', 'low', 'close')})"
        )
    return "; of several symbols give a mapping symbol -> DataFrame" if isinstance(given, (list, tuple)) else ""


def _check_one_symbol(table: Any) -> None:
    """Raise DataError where rows are of several symbols: one below the other they would be traded as one history."""
    levels = getattr(table.index, "nlevels", 1)
    if levels > 1:
        kinds = [table.index.get_level_values(level).dtype.kind for level in range(levels)]
        level = next((level for level, kind in enumerate(kinds) if kind != "M"), 0)
        raise DataError(
            f"the index of prices must be the times of one symbol, but has {levels} levels; write "
            f"{{symbol: rows.droplevel({level}) for symbol, rows in prices.groupby(level={level})}}"
        )
    for label in table.columns:
        if str(label).lower() in SYMBOLS and getattr(table[label], "ndim", 2) == 1 and table[label].nunique() > 1:
            raise DataError(
                f"prices must be of one symbol, but the column {label!r} has {table[label].nunique()}; write "
                f"dict(list(prices.groupby({label!r})))"
            )


def _warn_of_dates_aside(table: Any) -> None:
    """Bars numbered by row count as daily; where a column has their times that is perhaps not what they are."""
    dated = next((label for label in table.columns if str(label).lower() in DATES), None)
    if dated is None or table.index.dtype.kind not in "iu":
        return
    times = repr(dated) if table[dated].dtype.kind == "M" else f"pd.to_datetime(prices[{dated!r}])"
    warnings.warn(
        f"prices are numbered by row, so they count as daily bars ({TRADING_DAYS:.0f} a year), but have a column {dated!r}; "
        f"write prices.set_index({times}), or prices.drop(columns={dated!r}) where they are daily",
        UserWarning,
        stacklevel=3,
    )


def _column(table: Any, lowered: dict[str, Any], name: str) -> NDArray[np.float64]:
    if name not in lowered:
        raise DataError(f"prices must have a column {name!r}{_missing_hint(table, name, lowered)}")
    twice = [label for label in table.columns if str(label).lower() == name]
    if len(twice) > 1:
        raise DataError(
            f"prices must have one column {name!r}, but there are {join_words(map(repr, twice))}; drop all but one"
        )
    try:
        values = table[lowered[name]].to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"prices must be positive numbers, but {name!r} is not ({error}); a decimal comma is read with decimal=','"
        ) from error
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"prices must be positive numbers, but {name!r} is {values[row]} in row {row} ({table.index[row]})"
        )
    array = np.ascontiguousarray(values).view()
    # The same memory as the table's, perhaps, and as that of all workers: a strategy reads it.
    array.flags.writeable = False
    return array


def _missing_hint(table: Any, name: str, lowered: dict[str, Any]) -> str:
    """What to write for a table of several symbols, or of one price."""
    labels = [label for label in table.columns if isinstance(label, tuple)]
    for label in labels:
        levels = [str(part).lower() for part in label]
        if name in levels:
            # Of two levels; with more of them it is one of several ways.
            level = 1 - levels.index(name) if len(label) == 2 else 0
            return (
                f", but the columns have {len(label)} levels, such as {label}; "
                f"write prices.xs({label[level]!r}, axis=1, level={level}) for one symbol"
            )
    if list(lowered) == ["close"]:
        return "; where there is one price write prices.assign(open=prices.close, high=prices.close, low=prices.close)"
    return did_you_mean(name, lowered)


def _periods_per_year(index: Any) -> float:
    """252 for daily bars; for others the number of median spacings in a year; 252 when the index has no times."""
    if getattr(index, "dtype", None) is None or index.dtype.kind != "M" or len(index) < 2:
        return TRADING_DAYS
    spacing = float(np.median(np.diff(index.to_numpy()).astype("timedelta64[ns]").astype(np.float64))) / 1e9
    return TRADING_DAYS if 0.5 * 86400 < spacing < 3 * 86400 else SECONDS_PER_YEAR / spacing
