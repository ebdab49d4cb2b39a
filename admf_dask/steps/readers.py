"""`FrameReader`: price files as frames, with whatever names and dates they have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from admf_dask.errors import DataError
from admf_dask.steps.files import SUFFIXES
from admf_dask.steps.parquet import read_frame
from admf_dask.text import closest, join_words

if TYPE_CHECKING:
    import pandas as pd

PARQUET = (".parquet", ".pq")
DATES = ("date", "datetime", "timestamp", "time")
UNITS = ("s", "ms", "us", "ns")
_LAST_OFFSET = r"(Z|[+-]\d\d(?::?\d\d)?)$"
_OFFSET = rf"[T ]\S*?{_LAST_OFFSET}"
"""After a time only: 2013-03-01 has none."""
_NO_OFFSET = r"(\b\B)"
"""Matches nothing."""


@dataclass(frozen=True)
class FrameReader:
    """How to read price files; nothing is opened until `read`.

    ```python
    reader = FrameReader(columns={"close": "Adj Close"}, date_column="Day", date_format="%d.%m.%Y", separator=";")
    ```

    Raises ValueError for options that no file could fit.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """New name -> name in the file. Columns that are not mentioned keep theirs."""
    date_column: str | None = None
    """The column that becomes the index; None takes a Parquet file's index of times, or else a column date, datetime, timestamp
    or time, whatever its case."""
    date_format: str | None = None
    """As in `strptime`, or "s", "ms", "us", "ns" for numbers since 1970; None reads ISO 8601 (2013-03-01, 20130301, with time and
    offset) and nothing else, because 03/01/2013 has two meanings."""
    timezone: str | None = None
    """Dates without a timezone are in this one, others are converted to it; None leaves them as they are."""
    separator: str = ","
    """Between the columns of CSV."""
    decimal: str = "."
    """Before the decimals of numbers in CSV; files with a comma there have separator ";"."""

    def __post_init__(self) -> None:
        """Check what can be checked without a file."""
        from zoneinfo import ZoneInfo

        if not isinstance(self.columns, Mapping):
            raise ValueError(f"columns must be a mapping new name -> name in the file, but is {self.columns!r:.60}")
        marks: dict[str, Any] = {"separator": self.separator, "decimal": self.decimal}
        for name, mark in marks.items():
            if not isinstance(mark, str) or len(mark) != 1:
                raise ValueError(f"{name} must be one character, but is {mark!r}")
        if self.separator == self.decimal:
            raise ValueError(f"separator and decimal must differ, but both are {self.decimal!r}; write separator=';'")
        twice = [old for old in self.columns.values() if list(self.columns.values()).count(old) > 1]
        if twice:
            raise ValueError(
                f"a column can have one new name, but {twice[0]!r} has several in columns={dict(self.columns)}"
            )
        try:
            _ = self.timezone and ZoneInfo(self.timezone)
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(f"timezone must be a name such as 'America/New_York', but is {self.timezone!r}") from error

    def read(self, path: str | os.PathLike[str]) -> pd.DataFrame:
        """The file as a DataFrame with its times as index, rows in the order of the file.

        By its name a file is Parquet (.parquet, .pq) or CSV (.csv, .csv.gz). Raises DataError, which names the file, for one that
        is missing, empty or broken, has other columns, or dates that cannot be read (row, counted from 0, and value).
        Costs about 15 ms for 10,000 rows of CSV. Safe in threads.
        """
        text = os.fspath(path)
        try:
            table = _read_parquet(text) if text.endswith(PARQUET) else self._read_csv(text)
            return self._with_names(self._with_dates(table))
        except DataError as error:
            raise DataError(f"{os.path.basename(text)} {error}") from error.__cause__

    def _read_csv(self, path: str) -> pd.DataFrame:
        """Dates as text: 01022013 must keep its zero."""
        header = _read_csv(path, self.separator, nrows=0)
        dates = self._date_label([str(label) for label in header.columns])
        return _read_csv(path, self.separator, decimal=self.decimal, dtype={dates: "string"})

    def _with_dates(self, table: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        _not_empty(table)
        index = table.index
        if self.date_column in (None, index.name) and isinstance(index, pd.DatetimeIndex):
            return table.set_axis(self._in_timezone(index, index), axis=0)
        if self.date_column is not None and self.date_column == index.name:
            table = table.reset_index()
        label = self._date_label([str(name) for name in table.columns])
        times = self._in_timezone(self._parsed(table[label]), table[label]).rename(label)
        return table.drop(columns=label).set_axis(times, axis=0)

    def _date_label(self, known: list[str]) -> str:
        if self.date_column is not None:
            return _known(self.date_column, known)
        found = [name for name in known if name.lower() in DATES]
        if len(found) == 1:
            return found[0]
        what = (
            f"may be dated by {join_words(map(repr, found), 'or')}"
            if found
            else f"has no column of dates, only {_listed(known)}"
        )
        raise DataError(f"{what}; write FrameReader(date_column=...){_separator_hint(known)}")

    def _parsed(self, values: pd.Series[Any]) -> pd.DatetimeIndex:
        """Times. Raises DataError for the first value that is none."""
        import pandas as pd

        if values.dtype.kind == "M":
            times = pd.DatetimeIndex(values)
        elif self.date_format in UNITS:
            numbers = pd.to_numeric(values, errors="coerce")
            times = pd.DatetimeIndex(pd.to_datetime(numbers, unit=self.date_format, errors="coerce"))  # type: ignore[call-overload]
        else:
            times = _from_text(values.astype("string").str.strip(), self.date_format or "ISO8601", self.timezone)
        self._check(
            times,
            values,
            f"is no date {f'like {self.date_format}' if self.date_format else 'in ISO 8601'}; write date_format=...",
        )
        return times

    def _in_timezone(self, times: pd.DatetimeIndex, values: Any) -> pd.DatetimeIndex:
        self._check(times, values, "is no date")
        if self.timezone is None:
            return times
        if times.tz is not None:
            return times.tz_convert(self.timezone)
        local = times.tz_localize(self.timezone, ambiguous="NaT", nonexistent="NaT")
        self._check(
            local,
            values,
            f"is at no or at two times in {self.timezone}, where the clock was changed; give times with an offset",
        )
        return local

    @staticmethod
    def _check(times: pd.DatetimeIndex, values: Any, words: str) -> None:
        if times.hasnans:
            row = int(np.argmax(times.isna()))
            value = values.iloc[row] if hasattr(values, "iloc") else values[row]
            raise DataError(f"has an unreadable date in row {row}: {str(value)!r} {words}")

    def _with_names(self, table: pd.DataFrame) -> pd.DataFrame:
        known = [str(label) for label in table.columns]
        new_names = {_known(old, known): new for new, old in self.columns.items()}
        result = table.rename(columns=new_names)
        for new, old in self.columns.items():
            same = [name for name in known if name not in new_names and name.lower() == new.lower()]
            if same:
                raise DataError(
                    f"has a column {same[0]!r} beside {old!r}, which is to be {new!r}; give that another name too, as in "
                    f"columns={{{new!r}: {old!r}, {'raw_' + new!r}: {same[0]!r}}}"
                )
        return result


def read_table(path: str) -> pd.DataFrame:
    """A price file as it is, without a look at its dates. Raises DataError naming the file for one that cannot be read."""
    try:
        return _not_empty(_read_parquet(path) if path.endswith(PARQUET) else _read_csv(path, ","))
    except DataError as error:
        raise DataError(f"{os.path.basename(path)} {error}") from error.__cause__


def _read_parquet(path: str) -> pd.DataFrame:
    from pyarrow import ArrowException

    _check_file(path)
    try:
        return read_frame(path)
    except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read as Parquet: {type(error).__name__}: {error}") from error


def _read_csv(path: str, separator: str, **options: Any) -> pd.DataFrame:
    import pandas as pd

    _check_file(path)
    try:
        table: pd.DataFrame = pd.read_csv(path, sep=separator, **options)
        return table
    except pd.errors.EmptyDataError as error:
        raise DataError("is empty") from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"cannot be read as CSV: {type(error).__name__}: {error}") from error


def _check_file(path: str) -> None:
    if not path.endswith(SUFFIXES):
        raise DataError(f"is no price file; its name must end in {join_words(SUFFIXES, 'or')}")
    if os.path.isfile(path):
        return
    folder = os.path.dirname(path) or "."
    near = closest(os.path.basename(path), os.listdir(folder)) if os.path.isdir(folder) else None
    raise DataError(f"is not in {folder}{f'; did you mean {near!r}?' if near else ''}")


def _not_empty(table: pd.DataFrame) -> pd.DataFrame:
    if not len(table):
        raise DataError("has no rows")
    return table


def _from_text(values: pd.Series[Any], date_format: str, timezone: str | None) -> pd.DatetimeIndex:
    """Times, NaT where a text is none. Offsets that change with summer time need to be told which timezone they are of."""
    import pandas as pd

    pattern = _OFFSET if date_format == "ISO8601" else _LAST_OFFSET if "%z" in date_format else _NO_OFFSET
    offsets = values.str.extract(pattern, expand=False)
    naive = values[offsets.isna() & values.notna()]
    several = offsets.nunique() > 1
    if offsets.notna().any() and len(naive):
        raise DataError(f"has dates with an offset and others without one, such as {naive.iloc[0]!r}")
    if several and timezone is None:
        raise DataError("has dates with several offsets; write FrameReader(timezone=...) to say in which to put them")
    try:
        return pd.DatetimeIndex(pd.to_datetime(values, format=date_format, errors="coerce", utc=several))
    except ValueError as error:
        raise DataError(f"has dates that cannot be read as {date_format}: {error}") from error


def _known(name: str, known: list[str]) -> str:
    if name in known:
        return name
    near = closest(name, known)
    raise DataError(
        f"has no column {name!r}, only {_listed(known)}{f'; did you mean {near!r}?' if near else _separator_hint(known)}"
    )


def _listed(known: list[str]) -> str:
    return join_words(map(repr, known)) if known else "none"


def _separator_hint(known: list[str]) -> str:
    """Where all is in one column, the separator is another."""
    found = [separator for separator in ";\t|" if len(known) == 1 and separator in known[0]]
    return f" and FrameReader(separator={found[0]!r})" if found else ""
