"""`align`: bars on the sessions of a trading calendar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from admf_dask.errors import DataError
from admf_dask.steps.columns import bar_columns, check_choice, check_frame, check_times, numbers
from admf_dask.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

RECORD = "alignment"
"""The key in `frame.attrs`."""


def align(frame: pd.DataFrame, calendar: Any, *, fill: str | None = None) -> pd.DataFrame:
    """Daily bars on the sessions of a calendar, one row for each session from the first bar to the last.

    Parameters
    ----------
    frame
        One bar a day, at midnight.
    calendar
        The name of an exchange ("XNYS", "XLON"; the extra `calendars` knows them), or a DatetimeIndex of sessions, which must
        reach from the first bar to the last.
    fill
        None leaves a missing session NaN. "ffill" makes a bar of it in which nothing happened: open, high, low and close are
        the close before, volume is zero, other columns are repeated. A gap is filled however long it is.

    What was found is in `frame.attrs["alignment"]`: `sessions` (how many), `missing` (those without a bar) and `extra` (bars on
    no session, which are left out), as lists of dates such as "2012-10-29". Integers become float64 where a row is missing.

    Raises DataError for times within the day (`resample` them to "D" before), repeated days, an unknown name, sessions that do
    not cover the frame, and without the extra, with the line that installs it. Costs about 0.2 s for the first look at
    20 years of a calendar in a process. Safe in threads.
    """
    import pandas as pd

    check_choice("fill", fill, (None, "ffill"))
    days = _days(frame)
    if days.empty:
        raise DataError("align needs at least one bar, but the frame has no rows")
    sessions = _given(calendar, days) if isinstance(calendar, pd.DatetimeIndex) else _named(calendar, days)
    sessions = sessions.as_unit(days.unit)
    missing, extra = sessions.difference(days), days.difference(sessions)
    sessions = sessions.tz_localize(frame.index.tz).rename(frame.index.name)  # type: ignore[attr-defined]
    result = frame.reindex(sessions)
    if fill == "ffill":
        result = _filled(result, missing)
    found = {"sessions": len(sessions), "missing": _as_text(missing), "extra": _as_text(extra)}
    result.attrs = {
        **frame.attrs,
        RECORD: {"calendar": calendar if isinstance(calendar, str) else None, "fill": fill, **found},
    }
    return result


def _days(frame: pd.DataFrame) -> pd.DatetimeIndex:
    """The days of the bars, without a timezone."""
    days = check_times(check_frame(frame, "align"), "align").tz_localize(None)
    within = np.flatnonzero(np.asarray(days != days.normalize()))
    if len(within):
        raise DataError(
            f"align needs one bar a day at midnight, but row {within[0]} is at {frame.index[within[0]]}; write "
            'resample(frame, "D") before, or frame.index = frame.index.normalize() for daily bars'
        )
    if not days.is_unique:
        row = int(np.argmax(days.duplicated()))
        raise DataError(
            f'align needs one bar a day, but row {row} repeats {days[row].date()}; write clean(frame, duplicates="keep_last")'
        )
    return days


def _given(calendar: pd.DatetimeIndex, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    sessions = calendar.tz_localize(None).normalize().unique().sort_values()
    if sessions.empty or sessions.hasnans or sessions[0] > days[0] or sessions[-1] < days[-1]:
        reach = f"are from {sessions[0].date()} to {sessions[-1].date()}" if len(sessions.dropna()) else "are none"
        raise DataError(
            f"the sessions must reach from {days[0].date()} to {days[-1].date()}, as the bars do, but {reach}; give "
            "more of them, or frame.loc[start:end]"
        )
    return sessions[(sessions >= days[0]) & (sessions <= days[-1])]


def _named(name: Any, days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    import pandas as pd

    try:
        import exchange_calendars
    except ImportError as error:
        raise DataError('trading calendars are not installed; type: pip install "admf-dask[calendars]"') from error
    known = exchange_calendars.get_calendar_names()
    if name not in known:
        raise DataError(
            f"calendar must be a DatetimeIndex of sessions or the name of an exchange, but is {name!r:.60}{_near(name, known)}"
        )
    try:
        # A day more, because it refuses a calendar of one day.
        found = exchange_calendars.get_calendar(name, start=days[0], end=days[-1] + pd.Timedelta(days=1)).sessions
    except ValueError as error:
        raise DataError(f"calendar {name} cannot tell {days[0].date()} to {days[-1].date()}: {error}") from error
    sessions = pd.DatetimeIndex(found.to_numpy())
    return sessions[(sessions >= days[0]) & (sessions <= days[-1])]


def _near(name: Any, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return hint if "did you mean" in hint else ", such as 'XNYS' or 'XLON'"


def _filled(result: pd.DataFrame, missing: pd.DatetimeIndex) -> pd.DataFrame:
    """Bars in which nothing happened, on the missing sessions; what was missing in the bars themselves stays so."""
    import pandas as pd

    gone = result.index.tz_localize(None).isin(missing)  # type: ignore[attr-defined]
    before = result.ffill()
    columns = bar_columns(result)
    for name, label in columns.items():
        if name == "volume":
            before[label] = 0
        elif "close" in columns:
            before[label] = _last(numbers(result, columns["close"]))
    return pd.DataFrame(
        {label: result[label].where(~gone, before[label]) for label in result.columns}, columns=result.columns
    )


def _last(values: Any) -> Any:
    """Each value, or the one known before it."""
    places = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values))))
    return np.where(places < 0, np.nan, values[places])


def _as_text(days: pd.DatetimeIndex) -> list[str]:
    return [day.strftime("%Y-%m-%d") for day in days]
