"""`adjust`: splits and dividends taken out of prices, backwards from the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import DataError
from admf_dask.steps.columns import PRICES, bar_columns, check_choice, check_frame, check_times, find_column, numbers

if TYPE_CHECKING:
    import pandas as pd


def adjust(
    frame: pd.DataFrame, actions: pd.DataFrame, *, symbol: str | None = None, outside: str = "raise"
) -> pd.DataFrame:
    """Back-adjusted prices: those of the last day stay, all before an action are multiplied by its factor.

    Parameters
    ----------
    frame
        Prices as traded, ascending; `close` must be among them.
    actions
        A table with a column `date` (the ex-date) and one or both of `split` (shares after for one before: 2 for 2:1, 0.1 for
        a reverse 1:10) and `dividend` (cash for one share). Missing values are no action. With a column `symbol` the rows
        of `symbol` are taken, and none means that there is nothing to do.
    symbol
        Whose prices they are; `compose` fills it in.
    outside
        What to do with dates before the first or after the last bar: "raise", or "ignore".

    With C the last close before the ex-date, the factors on all prices before the ex-date are

        split:     1 / ratio
        dividend:  1 - dividend / C

    and volume before a split is multiplied by the ratio. On a day with both, the dividend is for a share after the split, so
    it is compared with C / ratio. That is the multiplier of CRSP as Yahoo Finance states it under "What is the adjusted
    close?" (sln28256: a dividend of 0.08 after a close of 24.96 is 1 - 0.08 / 24.96 = 0.9968). C is the close as traded, so the
    frame must not be adjusted yet.

    Returns a new frame, prices and volume as float64. Raises DataError for a ratio that is not positive, a dividend that is
    negative or not below C, dates that cannot be read or are outside, and missing columns. Costs about 3 ms, and 10 microseconds
    for an action. Safe in threads.
    """
    check_choice("outside", outside, ("raise", "ignore"))
    times = check_times(check_frame(frame, "adjust"), "adjust")
    close = numbers(frame, find_column(frame, "close"))
    table = _actions(actions, symbol, times, outside)
    price, volume = _factors(table, times, close)
    changed: dict[Any, Any] = {
        label: numbers(frame, label) * (price if name in PRICES else volume)
        for name, label in bar_columns(frame).items()
    }
    return frame.assign(**changed)


def _factors(
    table: pd.DataFrame, times: pd.DatetimeIndex, close: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What prices and volumes are multiplied by, each of shape (rows,)."""
    price, volume = np.ones(len(times)), np.ones(len(times))
    for date, ratio, dividend in table.itertuples(name=None):
        before = int(times.searchsorted(date, side="left"))
        if not before:
            continue
        price[:before] /= ratio
        volume[:before] *= ratio
        if dividend:
            last = float(close[before - 1]) / ratio
            if not dividend < last:
                split = f" after the split {ratio:g}:1" if ratio != 1 else ""
                raise DataError(
                    f"a dividend must be below the close before it, but on {date.date()} it is {dividend:g} and the close "
                    f"of {times[before - 1]} is {last:g}{split}; is it cash for one share?"
                )
            price[:before] *= 1.0 - dividend / last
    return price, volume


def _actions(actions: Any, symbol: str | None, times: pd.DatetimeIndex, outside: str) -> pd.DataFrame:
    """Columns split and dividend by date, one row for a date; dates in the timezone of the frame."""
    import pandas as pd

    table = _rows_of(check_frame(actions, "actions"), symbol)
    parts = {"split": 1.0, "dividend": 0.0}
    there = bar_columns(table, parts)
    if not there:
        find_column(table, "split")
    dates = _dates(table[find_column(table, "date")], times)
    values = {
        name: np.nan_to_num(numbers(table, there[name]), nan=nothing) if name in there else np.full(len(table), nothing)
        for name, nothing in parts.items()
    }
    _check_values(dates, values)
    found = pd.DataFrame(values, index=dates)
    found = found[(found["split"] != 1.0) | (found["dividend"] != 0.0)]
    inside = np.zeros(len(found), dtype=np.bool_)
    if len(times):
        inside = np.asarray((found.index >= times[0].normalize()) & (found.index <= times[-1]))
    if outside == "raise" and not inside.all():
        raise DataError(
            f"actions must be on dates of the frame ({times[0].date()} to {times[-1].date()}), but there is one on "
            f'{found.index[~inside][0].date()}; write outside="ignore" to leave such out'
            if len(times)
            else "there are actions, but the frame has no rows"
        )
    return found[inside].groupby(level=0, sort=True).agg({"split": "prod", "dividend": "sum"})


def _rows_of(table: pd.DataFrame, symbol: str | None) -> pd.DataFrame:
    label = bar_columns(table, ("symbol",)).get("symbol")
    if label is None:
        return table
    if symbol is None:
        raise DataError(
            "the actions have a column 'symbol', so adjust must know which; write adjust(frame, actions, symbol=...)"
        )
    found: pd.DataFrame = table[table[label] == symbol]
    return found


def _dates(column: Any, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    import pandas as pd

    if column.dtype.kind in "iufb":
        raise DataError(
            f"the dates of actions must be dates or text such as 2014-06-09, but are numbers ({column.dtype})"
        )
    try:
        texts = pd.api.types.is_string_dtype(column)
        dates = pd.DatetimeIndex(pd.to_datetime(column, format="ISO8601" if texts else None))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the dates of actions must be dates or text such as 2014-06-09: {error}") from error
    if dates.hasnans:
        raise DataError(f"each action must have a date, but row {int(np.argmax(dates.isna()))} has none")
    if dates.tz is None:
        return dates.tz_localize(times.tz)
    return dates.tz_convert(times.tz) if times.tz is not None else dates.tz_localize(None)


def _check_values(dates: pd.DatetimeIndex, values: dict[str, NDArray[np.float64]]) -> None:
    for name, wrong, rule in (
        ("split", ~(np.isfinite(values["split"]) & (values["split"] > 0)), "the ratio of a split must be positive"),
        ("dividend", ~(np.isfinite(values["dividend"]) & (values["dividend"] >= 0)), "a dividend must not be negative"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{rule}, but on {dates[row].date()} it is {values[name][row]:g} (row {row} of the actions)"
            )
