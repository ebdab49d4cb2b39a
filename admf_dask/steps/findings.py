"""What can be wrong with prices, each kind found by a function of its own; nothing is decided here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.steps.columns import PRICES, bar_columns, find_column, numbers

if TYPE_CHECKING:
    import pandas as pd

BAD_TICKS = ("not_a_number", "not_positive", "negative_volume", "high_below_low", "outside_range", "spike")
DAY = np.timedelta64(1, "D")
HALF_DAY = np.timedelta64(12, "h")
NORMAL = 1.4826
"""Standard deviation of a normal distribution / its median absolute deviation."""

NOTHING = 1e-9
"""A robust standard deviation below this is no scale: half of all returns are the same, up to rounding."""


@dataclass(frozen=True)
class Finding:
    """One thing found: at which time, in which row (-1 for a gap), what, in which column, which value."""

    when: pd.Timestamp
    row: int
    kind: str
    column: str | None = None
    value: float | None = None

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        value = self.value if self.value is not None and math.isfinite(self.value) else None
        return {"when": self.when.isoformat(), "kind": self.kind, "column": self.column, "value": value}


def duplicate_rows(times: pd.DatetimeIndex) -> Iterator[Finding]:
    """Rows whose time came before."""
    for row in np.flatnonzero(times.duplicated()).tolist():
        yield Finding(times[row], row, "duplicate")


def unsorted_rows(times: pd.DatetimeIndex) -> Iterator[Finding]:
    """Rows whose time is before that of the row above."""
    for row in (1 + np.flatnonzero(np.diff(times.asi8) < 0)).tolist():
        yield Finding(times[row], row, "unsorted")


def gaps_between(times: pd.DatetimeIndex) -> Iterator[Finding]:
    """Runs of missing bars; the value is how many are missing."""
    ordered = times.unique().sort_values()
    if len(ordered) < 3:
        return
    steps = np.diff(ordered.asi8)
    lengths, counts = np.unique(steps, return_counts=True)
    spacing = np.timedelta64(int(lengths[np.argmax(counts)]), ordered.unit)
    if spacing < HALF_DAY:
        yield from _gaps_in_days(ordered, steps, spacing)
    elif spacing <= 4 * DAY:
        yield from _missing_days(ordered)
    else:
        yield from _wide_gaps(ordered, steps, spacing)


def _gaps_in_days(ordered: pd.DatetimeIndex, steps: NDArray[np.int64], spacing: np.timedelta64) -> Iterator[Finding]:
    """Between two bars of the same day: what is missing before the first and after the last only a calendar knows."""
    days = ordered.tz_localize(None).normalize().asi8
    width = int(spacing.astype(np.int64))
    wide = (steps >= 2 * width) & (np.diff(days) == 0)
    for row in np.flatnonzero(wide).tolist():
        yield Finding(ordered[row] + spacing, -1, "gap", None, float(steps[row] // width - 1))


def _missing_days(ordered: pd.DatetimeIndex) -> Iterator[Finding]:
    import pandas as pd

    days = ordered.tz_localize(None).normalize()
    every = bool((days.day_of_week >= 5).any())
    wanted = pd.date_range(days[0], days[-1], freq="D" if every else "B")
    gone = np.asarray(~wanted.isin(days))
    starts = np.flatnonzero(gone & ~np.concatenate([[False], gone[:-1]])).tolist()
    ends = np.flatnonzero(gone & ~np.concatenate([gone[1:], [False]])).tolist()
    for start, end in zip(starts, ends, strict=True):
        when = wanted[start].tz_localize(ordered.tz, ambiguous=True, nonexistent="shift_forward")
        yield Finding(when, -1, "gap", None, float(end - start + 1))


def _wide_gaps(ordered: pd.DatetimeIndex, steps: NDArray[np.int64], spacing: np.timedelta64) -> Iterator[Finding]:
    """Weeks, months: lengths differ by days, so half a spacing more is still one."""
    missing = np.rint(steps / int(spacing.astype(np.int64))).astype(np.int64) - 1
    for row in np.flatnonzero(missing > 0).tolist():
        yield Finding(ordered[row] + spacing, -1, "gap", None, float(missing[row]))


def wrong_prices(frame: pd.DataFrame) -> Iterator[Finding]:
    """Values that no bar can have, row by row within each kind. Raises DataError where no price is to look at."""
    columns = {name: numbers(frame, label) for name, label in bar_columns(frame).items()}
    prices = {name: values for name, values in columns.items() if name in PRICES}
    if not prices:
        find_column(frame, "close")
    for name, values in prices.items():
        yield from _rows(frame, ~np.isfinite(values), "not_a_number", name, values)
        yield from _rows(frame, values <= 0, "not_positive", name, values)
    if "volume" in columns:
        yield from _rows(frame, columns["volume"] < 0, "negative_volume", "volume", columns["volume"])
    if "high" in prices and "low" in prices:
        high, low = prices["high"], prices["low"]
        yield from _rows(frame, high < low, "high_below_low", "high", high)
        for name in [name for name in ("open", "close") if name in prices]:
            outside = ((prices[name] > high) | (prices[name] < low)) & (high >= low)
            yield from _rows(frame, outside, "outside_range", name, prices[name])


def _rows(
    frame: pd.DataFrame, wrong: NDArray[np.bool_], kind: str, column: str, values: NDArray[np.float64]
) -> Iterator[Finding]:
    for row in np.flatnonzero(wrong).tolist():
        yield Finding(frame.index[row], row, kind, column, float(values[row]))


def return_outliers(frame: pd.DataFrame, times: pd.DatetimeIndex, deviations: float) -> Iterator[Finding]:
    """Log returns of close beyond so many robust standard deviations; the value is the simple return."""
    label = bar_columns(frame, ("close",)).get("close")
    if label is None:
        return
    close = numbers(frame, label)
    order = np.argsort(times.asi8, kind="stable")
    order = order[~times[order].duplicated()]
    order = order[np.isfinite(close[order]) & (close[order] > 0)]
    returns = np.diff(np.log(close[order]))
    if len(returns) < 3:
        return
    middle = float(np.median(returns))
    scale = NORMAL * float(np.median(np.abs(returns - middle)))
    if scale < NOTHING:
        return
    for place, kind in _jumps_and_spikes(returns - middle, deviations * scale):
        row = int(order[place + 1])
        yield Finding(times[row], row, kind, "close", math.expm1(float(returns[place])))


def _jumps_and_spikes(returns: NDArray[np.float64], limit: float) -> Iterator[tuple[int, str]]:
    """Places of returns beyond the limit; two in a row that cancel out are one spike, at the first of them."""
    taken_back = -1
    for place in np.flatnonzero(np.abs(returns) > limit).tolist():
        if place == taken_back:
            continue
        following = returns[place + 1] if place + 1 < len(returns) else 0.0
        if abs(following) > limit and abs(returns[place] + following) <= limit:
            taken_back = place + 1
            yield place, "spike"
        else:
            yield place, "jump"
