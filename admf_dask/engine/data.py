"""Bars for the engine: `DataHandler`, the contract, and `FrameDataHandler` over DataFrames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.events import BarEvent
from admf_dask.engine.files import read_bars
from admf_dask.engine.prices import Prices, read_prices
from admf_dask.errors import DataError
from admf_dask.text import did_you_mean, join_words

Column = NDArray[np.float64]
Columns = tuple[Column, Column, Column, Column]
"""Open, high, low and close."""


class DataHandler(Protocol):
    """Delivers bars in the order of time, and lets nobody see one that was not delivered."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it has bars of."""

    def next_bar(self) -> BarEvent | None:
        """The next bar of any symbol; None at the end."""

    def latest(self, symbol: str, n: int = 1) -> Sequence[BarEvent]:
        """The last n bars delivered, the newest last; fewer where there are fewer."""

    def reset(self) -> None:
        """Begin again."""

    def clone(self) -> Self:
        """Another cursor over the same bars."""


class FrameDataHandler:
    """Bars of one or many symbols from DataFrames, merged by time; equal times in the order of the symbols.

    Frames need open, high, low and close (any case) and an ascending, unique index; they are checked once, and `clone()` shares
    the arrays. A cursor belongs to one thread.
    """

    def __init__(self, frames: Any, symbol: str = "") -> None:
        """`frames`: a mapping symbol -> DataFrame, or one DataFrame (of `symbol`). Raises DataError naming symbol and row."""
        tables = frames if isinstance(frames, Mapping) else {symbol: frames}
        if not tables:
            raise DataError("a data handler needs bars of at least one symbol, but the mapping is empty")
        self._columns, self._prices = _in_one_piece({str(n): read_prices(table, str(n)) for n, table in tables.items()})
        self._order = _Order(self._prices)
        _merge([prices.until(1) for prices in self._prices.values()])  # says now whether their times can be compared
        self.reset()

    @classmethod
    def from_csv(cls, path: Any, symbol: str = "", **options: Any) -> Self:
        """From a CSV file: `columns={"Px Last": "close"}`, `date_column="day"`, `date_format="%d.%m.%Y"`, `tz="UTC"`.

        `separator=";"` and `decimal=","` read what spreadsheets write. A date of two meanings (03/01/2013) needs a `date_format`.

        Raises DataError naming symbol, file and row. Rows that are not in the order of time are an error; `sort=True` sorts them.
        """
        return cls._from_file(path, symbol, False, options)

    @classmethod
    def from_parquet(cls, path: Any, symbol: str = "", **options: Any) -> Self:
        """From a Parquet file, with the options of `from_csv`."""
        return cls._from_file(path, symbol, True, options)

    @classmethod
    def _from_file(cls, path: Any, symbol: str, parquet: bool, options: dict[str, Any]) -> Self:
        symbol = symbol or str(os.path.splitext(os.path.basename(os.fspath(path)))[0])
        try:
            return cls({symbol: read_bars(path, parquet=parquet, **options)})
        except DataError as error:
            said = str(error)
            raise DataError(said if said.startswith(f"{symbol}: ") else f"{symbol}: {said}") from error.__cause__

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it has bars of."""
        return tuple(self._prices)

    def prices(self, symbol: str | None = None) -> Prices:
        """The arrays of a symbol; of the only one when none is named. Raises DataError with the nearest name."""
        if symbol is None and len(self._prices) == 1:
            return next(iter(self._prices.values()))
        if symbol is None:
            raise DataError(
                f"there are {len(self._prices)} symbols ({join_words(self.symbols)}); say which one with `symbol`"
            )
        if symbol in self._prices:
            return self._prices[symbol]
        if self.symbols == ("",):
            return self._prices[""]
        raise DataError(
            f"there are bars of {join_words(self.symbols)}, but none of {symbol!r}{did_you_mean(symbol, self.symbols)}"
        )

    def only(self, symbol: str | None) -> FrameDataHandler:
        """A handler of one symbol that shares the arrays."""
        prices = self.prices(symbol)
        return self._with(_columns_of(prices), {prices.symbol: prices})

    def clone(self) -> Self:
        """Another cursor over the same arrays."""
        return self._with(self._columns, self._prices)

    def _with(self, columns: Columns, prices: dict[str, Prices]) -> Self:
        other = type(self).__new__(type(self))
        other._columns, other._prices = columns, prices
        other._order = self._order if prices is self._prices else _Order(prices)
        other.reset()
        return other

    def reset(self) -> None:
        """Begin again."""
        self._at = 0
        self._delivered = dict.fromkeys(self._prices, 0)
        self._bars: Iterator[BarEvent] = self._deliver()

    def next_bar(self) -> BarEvent | None:
        """The next bar of any symbol; None at the end."""
        return next(self._bars, None)

    def _deliver(self) -> Iterator[BarEvent]:
        symbols = list(self._prices)
        columns = [
            (p.open.tolist(), p.high.tolist(), p.low.tolist(), p.close.tolist(), list(p.index))
            for p in self._prices.values()
        ]
        for which, at in zip(*(part.tolist() for part in self._order.found()), strict=True):
            opens, highs, lows, closes, times = columns[which]
            self._delivered[symbols[which]] = at + 1
            yield BarEvent(
                symbols[which], times[at], at, opens[at], highs[at], lows[at], closes[at], at + 1 == len(closes)
            )

    def latest(self, symbol: str, n: int = 1) -> list[BarEvent]:
        """The last n bars delivered, the newest last; fewer where there are fewer."""
        prices, stop = self.prices(symbol), self._delivered[symbol]
        return [
            BarEvent(
                symbol, prices.index[at], at, float(prices.open[at]), float(prices.high[at]), float(prices.low[at]),
                float(prices.close[at]), at + 1 == len(prices),
            )
            for at in range(max(0, stop - n), stop)
        ]  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """The columns of all symbols, and what tells them apart. A cursor that travels begins again."""
        facts = [(name, len(one), one.times, one.periods_per_year, one.symbol) for name, one in self._prices.items()]
        return {"columns": self._columns, "facts": facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """On arrival."""
        self._columns, self._prices = state["columns"], {}
        start = 0
        for name, bars, times, periods_per_year, symbol in state["facts"]:
            self._prices[name] = Prices(*_part(self._columns, start, bars), times, periods_per_year, symbol)
            start += bars
        self._order = _Order(self._prices)
        self.reset()


class _Order:
    """The order of all bars, found when somebody asks for one: 16 bytes a bar, of each process its own."""

    def __init__(self, prices: Mapping[str, Prices]) -> None:
        self._prices = prices
        self._found: tuple[Any, Any] | None = None

    def found(self) -> tuple[Any, Any]:
        if self._found is None:
            self._found = _merge(list(self._prices.values()))
        return self._found


def _in_one_piece(prices: dict[str, Prices]) -> tuple[Columns, dict[str, Prices]]:
    """The columns of all symbols as four arrays, and the same prices as views of them: so they travel in a few pieces.

    Symbols that trade at the same times share those.
    """
    if len(prices) == 1:
        return _columns_of(next(iter(prices.values()))), prices
    opens, highs, lows, closes = (np.concatenate(c) for c in zip(*map(_columns_of, prices.values()), strict=True))
    columns = (opens, highs, lows, closes)
    found: dict[str, Prices] = {}
    start, times = 0, next(iter(prices.values())).times
    for name, one in prices.items():
        times = times if times.same_as(one.times) else one.times
        found[name] = Prices(*_part(columns, start, len(one)), times, one.periods_per_year, one.symbol)
        start += len(one)
    return columns, found


def _part(columns: Columns, start: int, bars: int) -> Columns:
    opens, highs, lows, closes = (column[start : start + bars] for column in columns)
    return opens, highs, lows, closes


def _columns_of(prices: Prices) -> Columns:
    return prices.open, prices.high, prices.low, prices.close


def _merge(prices: list[Prices]) -> tuple[Any, Any]:
    """Which symbol, and which of its bars, comes when: two arrays of shape (all bars,)."""
    which = np.concatenate([np.full(len(one), place) for place, one in enumerate(prices)])
    at = np.concatenate([np.arange(len(one)) for one in prices])
    if len(prices) == 1:
        return which, at
    import pandas as pd

    try:
        times = np.concatenate([pd.Index(one.index).to_numpy() for one in prices])
        order = np.lexsort((which, times))
    except TypeError as error:
        raise DataError(
            f"bars of several symbols are merged by time, so their indices must be comparable: {error}"
        ) from error
    return which[order], at[order]
