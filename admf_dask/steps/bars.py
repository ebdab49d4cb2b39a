"""`resample`: bars to longer bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from admf_dask.errors import DataError
from admf_dask.steps.columns import check_choice, check_frame, check_times, find_column, numbers
from admf_dask.text import join_words

if TYPE_CHECKING:
    import pandas as pd

HOW = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
"""The only place that says what a longer bar is."""
Side = Literal["left", "right"]


def resample(
    frame: pd.DataFrame,
    rule: Any,
    *,
    aggregations: Mapping[str, Any] | None = None,
    label: Side | None = None,
    closed: Side | None = None,
) -> pd.DataFrame:
    """Longer bars: the first open, the highest high, the lowest low, the last close, the volume added up.

    Parameters
    ----------
    frame
        Bars, ascending.
    rule
        As in `DataFrame.resample`: "5min", "1h", "D", "W-FRI", "ME".
    aggregations
        Column -> how, for columns of other names, or another way for these: the name of a pandas aggregation or a function.
    label, closed
        Which edge names a bar, and which belongs to it. None is pandas' own: left and left, but right and right for rules
        that end a period (W, ME, QE, YE), where left would put the last day of a month into the next one. A bar named by
        its left edge is known only at its right edge.

    Bars without a row are left out; missing values are skipped, and a column with nothing but missing values in a bar is NaN
    there. Columns keep names and order. Raises DataError for a column nobody said how to aggregate, times that are not
    ascending (repeated ones are bars of their own), or a column without numbers; ValueError for a rule that pandas does not
    know. Costs about 10 ms for 100,000 rows. Safe in threads.
    """
    import pandas as pd

    for name, side in (("label", label), ("closed", closed)):
        check_choice(name, side, (None, "left", "right"))
    check_times(check_frame(frame, "resample"), "resample")
    ways = _ways(frame, aggregations or {})
    try:
        groups = frame.resample(rule, label=label, closed=closed)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"rule must be a frequency such as '5min', 'D', 'W-FRI' or 'ME', but is {rule!r}: {error}"
        ) from None
    # min_count: the sum of nothing but missing values is unknown, and not zero.
    columns = {
        column: groups[column].sum(min_count=1) if how == "sum" else groups[column].agg(how)
        for column, how in ways.items()
    }
    size = groups.size()
    result = pd.DataFrame(columns, columns=frame.columns)
    result = result.loc[(size > 0).to_numpy()]
    whole = [column for column, how in ways.items() if frame[column].dtype.kind == "i" and how in HOW.values()]
    result = result.astype({column: frame[column].dtype for column in whole})
    result.attrs = dict(frame.attrs)
    return result


def _ways(frame: pd.DataFrame, given: Mapping[str, Any]) -> dict[Any, Any]:
    """Column -> aggregation, for every column of the frame."""
    for column in frame.columns:
        find_column(frame, column)
    ours = {find_column(frame, name): how for name, how in given.items()}
    ways = {column: ours.get(column, HOW.get(str(column).lower())) for column in frame.columns}
    unknown = [column for column, how in ways.items() if how is None]
    if unknown:
        raise DataError(
            f"resample must know how to aggregate each column, but not {join_words(map(repr, unknown))}; "
            f"write aggregations={{{unknown[0]!r}: 'last'}}, or drop it before"
        )
    for column, how in ways.items():
        if how == HOW.get(str(column).lower()):
            numbers(frame, column)
    return ways
