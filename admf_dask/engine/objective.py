"""`backtest_objective`: the compiled engine as an objective over whole chunks of a parameter grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.engine.prices import Prices, read_prices
from admf_dask.errors import EngineError, UnknownStrategy
from admf_dask.objectives import BatchObjective
from admf_dask.text import did_you_mean, join_words

STRATEGIES: dict[str, tuple[str, ...]] = {"sma_crossover": ("fast", "slow")}
"""Strategies that have a compiled kernel, and their parameters."""


@dataclass(frozen=True)
class BacktestConfig:
    """How a backtest trades; the defaults are those of the semantics: long only, next open, no costs."""

    direction: str = "long"
    fill: str = "next_open"
    commission: float = 0.0
    slippage: float = 0.0
    initial_cash: float = 1_000_000.0
    periods_per_year: float | None = None
    """Bars in a year, for the Sharpe ratio; None takes it from the spacing of the index."""

    def __post_init__(self) -> None:
        """Check the values. Raises EngineError naming the key."""
        for key, known in (("direction", ("long", "long_short")), ("fill", ("next_open", "same_close"))):
            if getattr(self, key) not in known:
                raise EngineError(f"{key} must be {join_words(known, 'or')}, but is {getattr(self, key)!r}")
        for key in ("commission", "slippage"):
            if not 0 <= getattr(self, key) < 1:
                raise EngineError(
                    f"{key} must be a fraction from 0 to below 1 (0.001 is 0.1 %), but is {getattr(self, key)!r}"
                )
        if not 0 < self.initial_cash < float("inf"):
            raise EngineError(f"initial_cash must be above 0, but is {self.initial_cash!r}")
        if self.periods_per_year is not None and not self.periods_per_year > 0:
            raise EngineError(f"periods_per_year must be above 0, but is {self.periods_per_year!r}")


class GridBacktest(BatchObjective):
    """An objective that backtests a strategy on fixed prices, for all combinations of a chunk in one compiled call.

    Returns sharpe_ratio, total_return, max_drawdown (positive fractions), final_equity (currency of the prices), n_trades,
    n_entries and n_fills, each of shape (n,). Releases the GIL, so threads scale. A worker compiles nothing if the machine has
    compiled this before; else the first call takes a few seconds.
    """

    def __init__(self, strategy: str, prices: Any, config: BacktestConfig, rename: Mapping[str, str]) -> None:
        """Use `backtest_objective`."""
        super().__init__(_unused)
        self.__name__ = strategy
        self.strategy, self.config, self.rename = strategy, config, dict(rename)
        self.prices: Prices = read_prices(prices)
        self.periods_per_year = config.periods_per_year or self.prices.periods_per_year

    def check_parameters(self, names: Any) -> None:
        """Raise EngineError, with the nearest name, unless `names` are the parameters of the strategy."""
        taken = STRATEGIES[self.strategy]
        given = [self.rename.get(name, name) for name in names]
        for name in given:
            if name not in taken:
                raise EngineError(f"{name!r} is no parameter of {self.strategy}{did_you_mean(name, taken)}")
        for name in taken:
            if name not in given:
                raise EngineError(
                    f"{self.strategy} needs the parameter {name!r}, but the space has {', '.join(map(str, names))}"
                )

    def __call__(self, columns: Mapping[str, NDArray[Any]], *data: Any) -> dict[str, NDArray[np.float64]]:
        """Backtest one chunk."""
        from admf_dask.engine.kernels import METRICS, exact_sums, sma_crossover

        self.check_parameters(columns)
        windows = {self.rename.get(name, name): _windows(name, column) for name, column in columns.items()}
        fast, slow = windows["fast"], windows["slow"]
        out = np.empty((len(METRICS), len(fast)))
        config = self.config
        longest = int(max(fast.max(initial=1), slow.max(initial=1)))
        sma_crossover(
            exact_sums(self.prices.close, longest), self.prices.open, self.prices.close, fast, slow,
            0.0 if config.direction == "long" else -1.0, config.fill == "next_open", config.commission, config.slippage,
            float(config.initial_cash), float(self.periods_per_year), out,
        )  # fmt: skip
        return dict(zip(METRICS, out, strict=True))

    def identity_parts(self) -> Mapping[str, Any]:
        """Strategy, prices and each setting."""
        settings = {f"the setting {name}": value for name, value in asdict(self.config).items()}
        return {"the strategy": self.strategy, "the prices": self.prices, "the names": self.rename, **settings}

    def __reduce__(self) -> tuple[Any, ...]:
        """Prices travel as two arrays."""
        return GridBacktest, (self.strategy, self.prices, self.config, self.rename)


def backtest_objective(
    strategy: str, prices: Any, *, rename: Mapping[str, str] | None = None, **config: Any
) -> GridBacktest:
    """An objective for `ParallelOptimizer` that backtests `strategy` with the compiled engine.

    `prices` is a DataFrame with open, high, low and close (any case) and an ascending, unique index. `config` takes
    direction, fill, commission, slippage, initial_cash and periods_per_year. `rename` maps names of the space to names of the
    strategy's parameters. Raises UnknownStrategy, EngineError (settings) or DataError (prices) with what to type instead.
    """
    if strategy not in STRATEGIES:
        raise UnknownStrategy(f"no strategy {strategy!r} is registered{did_you_mean(strategy, STRATEGIES)}")
    known = BacktestConfig.__dataclass_fields__
    for key in config:
        if key not in known:
            raise EngineError(f"{key!r} is not a setting of a backtest{did_you_mean(key, known)}")
    return GridBacktest(strategy, prices, BacktestConfig(**config), rename or {})


def _windows(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    if column.dtype.kind not in "iu" or (len(column) and column.min() < 1):
        raise EngineError(f"{name!r} counts bars, so it must be a whole number of at least 1")
    return column.astype(np.int64)


def _unused(columns: Any) -> Any:
    raise EngineError("a GridBacktest is called itself")
