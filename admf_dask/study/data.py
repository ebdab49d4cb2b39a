"""Where a study's prices come from: a symbol that is installed, or a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from admf_dask import datasets
from admf_dask.engine.files import read_bars
from admf_dask.errors import DataError
from admf_dask.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

PRICES = ("open", "high", "low", "close")
_YEAR_FIRST = re.compile(r"\d{4}(-\d{2})?|\d{8}|\d{4}([-/.])\d{1,2}\2\d{1,2}([ T].+)?")
"""Dates of one meaning. 200502 is not one of them."""


@dataclass(frozen=True)
class PriceSource:
    """Prices of one symbol: from `file` (CSV or Parquet), or installed ones."""

    symbol: str
    file: str | None = None
    date_column: str | None = None
    date_format: str | None = None
    separator: str = ","
    decimal: str = "."
    price_column: str | None = None
    """For files without OHLC: the column that stands for all four."""
    sort: bool = False
    """Whether rows that are not in the order of time are to be sorted; else they are an error."""
    start: str | None = None
    end: str | None = None

    def load(self) -> pd.DataFrame:
        """The prices between start and end, by ascending date. Raises DataError naming symbol, file, column or row."""
        table = datasets.load_prices(self.symbol) if self.file is None else self._read(Path(self.file))
        for bound in (self.start, self.end):
            _check_bound(bound, self.symbol)
        try:
            chosen = table.loc[self.start : self.end]
        except ValueError as error:
            raise DataError(f"start and end of {self.symbol} do not fit its times: {error}") from error
        if not len(chosen):
            raise DataError(
                f"there are no prices of {self.symbol} between {self.start or 'the start'} and {self.end or 'the end'}; "
                "the table "
                f"has {table.index[0]:%Y-%m-%d} to {table.index[-1]:%Y-%m-%d}"
            )
        return chosen

    def _read(self, path: Path) -> pd.DataFrame:
        import pandas as pd

        try:
            table = read_bars(
                path, parquet=path.suffix in (".parquet", ".pq"), date_column=self.date_column,
                date_format=self.date_format, separator=self.separator, decimal=self.decimal, sort=self.sort,
            )  # fmt: skip
            if not isinstance(table.index, pd.DatetimeIndex):
                known = ", ".join(map(repr, map(str, table.columns[:6])))
                raise DataError(f"{path.name} has no date column among {known}; set date_column")
            prices: pd.DataFrame = self._price_columns(table.rename_axis(index="date"), path)
        except DataError as error:
            raise DataError(f"{self.symbol}: {error}") from error.__cause__
        return prices

    def _price_columns(self, table: Any, path: Path) -> Any:
        lowered = {str(name).lower(): name for name in table.columns}
        missing = [name for name in PRICES if name not in lowered]
        if not missing:
            return table.rename(columns={lowered[name]: name for name in PRICES})
        single = self.price_column or "close"
        if single.lower() not in lowered or (self.price_column is None and missing != ["open", "high", "low"]):
            raise DataError(
                f"{path.name} has no column {missing[0]!r}; set price_column for a file with one price"
                f"{did_you_mean(missing[0], lowered)}"
            )
        return table.assign(**dict.fromkeys(PRICES, table[lowered[single.lower()]]))


def _check_bound(text: str | None, symbol: str) -> None:
    """Raise DataError for a start or an end that is no date, or has two meanings (01.02.2005)."""
    import pandas as pd

    try:
        known = text is None or (_YEAR_FIRST.fullmatch(text) is not None and pd.Timestamp(text) is not None)
    except ValueError:
        known = False
    if not known:
        raise DataError(f"start and end of {symbol} must be dates such as 2005-02-01, but one is {text!r}")
