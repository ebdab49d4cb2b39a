"""`backtest_objective`: the compiled engine as an objective over whole chunks of a parameter grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.config import BacktestConfig
from admf_dask.engine.prices import Prices, read_prices
from admf_dask.engine.strategies import (
    DonchianBreakout,
    RsiReversion,
    SmaCrossover,
    Strategy,
    check_targets,
    get_strategy_class,
)
from admf_dask.errors import EngineError, NotSupported
from admf_dask.objectives import BatchObjective
from admf_dask.text import did_you_mean


class GridBacktest(BatchObjective):
    """An objective that backtests a strategy on fixed prices, for all combinations of a chunk in one compiled call.

    Returns sharpe_ratio, total_return, max_drawdown (positive fractions), final_equity (currency of the prices), n_trades,
    n_entries and n_fills, each of shape (n,). Releases the GIL, so threads scale. A worker compiles nothing if the machine has
    compiled this before; else the first call takes a few seconds.
    """

    telling = ("final_equity", "n_fills", "max_drawdown")

    def __init__(self, strategy: Any, prices: Any, config: BacktestConfig, rename: Mapping[str, str]) -> None:
        """Use `backtest_objective`."""
        super().__init__(_unused)
        self.__name__ = strategy if isinstance(strategy, str) else strategy.__name__
        self.strategy_class = get_strategy_class(strategy)
        self.strategy, self.config, self.rename = strategy, config, dict(rename)
        self.prices: Prices = read_prices(prices)
        self.periods_per_year = config.periods_per_year or self.prices.periods_per_year

    def check_parameters(self, names: Any) -> None:
        """Raise EngineError, with the nearest name, unless `names` are the parameters of the strategy."""
        self.strategy_class.check_parameters(self.__name__, {self.rename.get(name, name): None for name in names})

    def __call__(self, columns: Mapping[str, NDArray[Any]], *data: Any) -> dict[str, NDArray[np.float64]]:
        """Backtest one chunk."""
        from admf_dask.engine.kernels import METRICS

        self.check_parameters(columns)
        named = {self.rename.get(name, name): column for name, column in columns.items()}
        size = len(next(iter(named.values()))) if named else 1
        out = np.empty((size, len(METRICS)))
        chunk = _CHUNKS.get(self.strategy_class)
        if chunk is None:
            self._one_by_one(named, out)
        else:
            chunk(self, named, out)
        return dict(zip(METRICS, np.ascontiguousarray(out.T), strict=True))

    def _one_by_one(self, named: Mapping[str, NDArray[Any]], out: NDArray[np.float64]) -> None:
        """Any strategy with vectorised targets, through the compiled book."""
        from admf_dask.engine.kernels import NO_NOTES, tape_of, walk

        targets_of, prices = self.strategy_class.targets, self.prices
        assert targets_of is not None
        tape = tape_of(prices.close)
        for row in range(len(out)):
            parameters = {name: _native(column[row]) for name, column in named.items()}
            found = targets_of(prices, low=self.config.low, **parameters)
            targets = check_targets(self.__name__, found, len(prices))
            walk(prices.open, prices.close, targets, self.book, tape, out[row], NO_NOTES)

    @property
    def book(self) -> tuple[Any, ...]:
        """How the book is done, as the kernels take it."""
        return self.config.book(self.periods_per_year)

    def identity_parts(self) -> Mapping[str, Any]:
        """Strategy, prices and each setting."""
        settings = {f"the setting {name}": value for name, value in asdict(self.config).items()}
        return {"the strategy": self.strategy_class, "the prices": self.prices, "the names": self.rename, **settings}

    def __reduce__(self) -> tuple[Any, ...]:
        """Prices travel as two arrays."""
        return GridBacktest, (self.strategy, self.prices, self.config, self.rename)


def _sma_chunk(objective: GridBacktest, named: Mapping[str, NDArray[Any]], out: NDArray[np.float64]) -> None:
    from admf_dask.engine.kernels import exact_sums, sma_chunk

    fast, slow = _windows("fast", named["fast"]), _windows("slow", named["slow"])
    longest = int(max(fast.max(initial=1), slow.max(initial=1)))
    prices = objective.prices
    sums = exact_sums(prices.close, longest)
    sma_chunk(sums, prices.open, prices.close, fast, slow, objective.config.low, objective.book, out)


def _rsi_chunk(objective: GridBacktest, named: Mapping[str, NDArray[Any]], out: NDArray[np.float64]) -> None:
    from admf_dask.engine.kernels import rsi_chunk

    period, prices = _windows("period", named["period"]), objective.prices
    bounds = [np.asarray(named[name], np.float64) for name in ("lower", "upper")]
    order = np.argsort(period, kind="stable")
    rsi_chunk(prices.open, prices.close, order, period, *bounds, objective.config.low, objective.book, out)


def _donchian_chunk(objective: GridBacktest, named: Mapping[str, NDArray[Any]], out: NDArray[np.float64]) -> None:
    from admf_dask.engine.kernels import donchian_chunk

    entry, leave, prices = _windows("entry", named["entry"]), _windows("exit", named["exit"]), objective.prices
    order = np.lexsort((leave, entry))
    donchian_chunk(
        prices.open,
        prices.high,
        prices.low,
        prices.close,
        order,
        entry,
        leave,
        objective.config.low,
        objective.book,
        out,
    )


_CHUNKS: dict[type[Strategy], Any] = {
    SmaCrossover: _sma_chunk,
    RsiReversion: _rsi_chunk,
    DonchianBreakout: _donchian_chunk,
}
"""Strategies that have a kernel over whole chunks."""


def backtest_objective(
    strategy: Any, prices: Any, *, rename: Mapping[str, str] | None = None, **config: Any
) -> GridBacktest:
    """An objective for `ParallelOptimizer` that backtests `strategy` with the compiled engine.

    `strategy` is a registered name, `package.module:ClassName`, or a subclass of `Strategy` with vectorised `targets`.

    `prices` is a DataFrame with open, high, low and close (any case) and an ascending, unique index. `config` takes direction,
    fill, commission, slippage, initial_cash, lot_size and periods_per_year. `rename` maps names of the space to names of the
    strategy's parameters. Raises UnknownStrategy, EngineError (settings) or DataError (prices) with what to type instead.
    """
    if get_strategy_class(strategy).targets is None:
        raise NotSupported(
            f"{strategy!r} has no vectorised targets, so the compiled engine cannot run it; use run_parallel_backtests(..., "
            "engine='event')"
        )
    known = BacktestConfig.__dataclass_fields__
    for key in config:
        if key not in known:
            raise EngineError(f"{key!r} is not a setting of a backtest{did_you_mean(key, known)}")
    return GridBacktest(strategy, prices, BacktestConfig(**config), rename or {})


def _windows(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    if column.dtype.kind not in "iu" or (len(column) and column.min() < 1):
        raise EngineError(f"{name!r} counts bars, so it must be a whole number of at least 1")
    return column.astype(np.int64)


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _unused(columns: Any) -> Any:
    raise EngineError("a GridBacktest is called itself")
