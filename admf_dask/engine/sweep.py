"""Many parameter sets of one strategy over one table of prices: one compiled call where the strategy has a kernel for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.config import BacktestConfig
from admf_dask.engine.prices import Prices
from admf_dask.engine.strategies import DonchianBreakout, RsiReversion, SmaCrossover, Strategy, check_targets
from admf_dask.errors import EngineError

Columns = Mapping[str, NDArray[Any]]
Out = NDArray[np.float64]
Book = tuple[Any, ...]


@dataclass(frozen=True)
class Kernel:
    """Does a whole chunk in one call that holds no interpreter; each indicator is computed once for all that share it."""

    run: Callable[[Prices, int, Book, Columns, Out], None]
    windows: tuple[str, ...]
    """Parameters that count bars."""
    numbers: tuple[str, ...] = ()
    """The others."""


def sweep(cls: type[Strategy], prices: Prices, settings: BacktestConfig, named: Columns, out: Out) -> None:
    """Backtest each row of the columns `named`, by the strategy's own names, into `out`, shape (n, 7): `kernels.METRICS`.

    Raises EngineError for a parameter or target that cannot be; the kernels look at a column, not at each value's type.
    """
    book = settings.book(settings.periods_per_year or prices.periods_per_year)
    kernel = KERNELS.get(cls)
    if kernel is None:
        _one_by_one(cls, prices, settings.low, book, named, out)
        return
    windows = {name: _windows(name, named[name]) for name in kernel.windows}
    numbers = {name: np.asarray(named[name], np.float64) for name in kernel.numbers}
    kernel.run(prices, settings.low, book, {**windows, **numbers}, out)


def _one_by_one(cls: type[Strategy], prices: Prices, low: int, book: Book, named: Columns, out: Out) -> None:
    """Any strategy with vectorised targets, through the compiled book."""
    from admf_dask.engine.kernels import NO_NOTES, tape_of, walk

    assert cls.targets is not None
    tape = tape_of(prices.close)
    for row in range(len(out)):
        parameters = {name: _native(column[row]) for name, column in named.items()}
        targets = check_targets(cls.__name__, cls.targets(prices, low=low, **parameters), len(prices))
        walk(prices.open, prices.close, targets, book, tape, out[row], NO_NOTES)


def _sma(prices: Prices, low: int, book: Book, named: Columns, out: Out) -> None:
    from admf_dask.engine.kernels import exact_sums, shared_by, sma_chunk

    fast, slow = named["fast"], named["slow"]
    longest = int(max(fast.max(initial=1), slow.max(initial=1)))
    sums, shared = exact_sums(prices.close, longest), shared_by(prices.close)
    sma_chunk(sums, prices.open, prices.close, fast, slow, low, book, shared, out)


def _rsi(prices: Prices, low: int, book: Book, named: Columns, out: Out) -> None:
    from admf_dask.engine.kernels import rsi_chunk, shared_by

    period = named["period"]
    order = np.argsort(period, kind="stable")
    bounds, shared = (named["lower"], named["upper"]), shared_by(prices.close)
    rsi_chunk(prices.open, prices.close, order, period, *bounds, low, book, shared, np.empty(len(prices)), out)


def _donchian(prices: Prices, low: int, book: Book, named: Columns, out: Out) -> None:
    from admf_dask.engine.kernels import donchian_chunk, shared_by

    entry, leave = named["entry"], named["exit"]
    order = np.lexsort((leave, entry))
    bars, size = (prices.open, prices.high, prices.low, prices.close), len(prices)
    channels = (np.empty(size), np.empty(size), np.empty(size, np.int64))
    donchian_chunk(bars, order, entry, leave, low, book, shared_by(prices.close), channels, out)


KERNELS: dict[type[Strategy], Kernel] = {
    SmaCrossover: Kernel(_sma, ("fast", "slow")),
    RsiReversion: Kernel(_rsi, ("period",), ("lower", "upper")),
    DonchianBreakout: Kernel(_donchian, ("entry", "exit")),
}
"""Strategies that have a kernel over whole chunks."""


def _windows(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    if column.dtype.kind not in "iu" or (len(column) and column.min() < 1):
        raise EngineError(f"{name!r} counts bars, so it must be a whole number of at least 1")
    return column.astype(np.int64)


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
