"""`backtest_objective`: the compiled engine as an objective over whole chunks of a parameter grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.config import BacktestConfig
from admf_dask.engine.metrics import METRICS
from admf_dask.engine.prices import Prices, read_prices
from admf_dask.engine.strategies import get_strategy_class
from admf_dask.engine.sweep import sweep
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
        self.check_parameters(columns)
        named = {self.rename.get(name, name): column for name, column in columns.items()}
        size = len(next(iter(named.values()))) if named else 1
        out = np.empty((size, len(METRICS)))
        sweep(self.strategy_class, self.prices, self.config, named, out)
        return dict(zip(METRICS, np.ascontiguousarray(out.T), strict=True))

    def identity_parts(self) -> Mapping[str, Any]:
        """Strategy, prices and each setting."""
        settings = {f"the setting {name}": value for name, value in asdict(self.config).items()}
        return {"the strategy": self.strategy_class, "the prices": self.prices, "the names": self.rename, **settings}

    def __reduce__(self) -> tuple[Any, ...]:
        """Prices travel as two arrays."""
        return GridBacktest, (self.strategy, self.prices, self.config, self.rename)


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


def _unused(columns: Any) -> Any:
    raise EngineError("a GridBacktest is called itself")
