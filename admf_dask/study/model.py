"""`Study`: everything that one optimisation needs, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from admf_dask.config import ParallelConfig
from admf_dask.engine import GridBacktest, backtest_objective
from admf_dask.engine.prices import read_prices
from admf_dask.errors import ConfigError
from admf_dask.optimize import ParameterSpace
from admf_dask.space import Combinable, IntRange
from admf_dask.study.data import PriceSource
from admf_dask.text import did_you_mean

OBJECTIVES = {"sharpe_ratio": True, "total_return": True, "final_equity": True, "max_drawdown": False}
"""Column that ranks -> whether more is better."""


@dataclass(frozen=True)
class Study:
    """A strategy, its parameter space, prices, and how to trade and rank. Nothing is read before `prices()`."""

    name: str
    strategy: str
    space: Combinable
    data: PriceSource
    backtest: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the backtest: direction, fill, commission, slippage, initial_cash, periods_per_year."""
    objective: str = "sharpe_ratio"
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: str | int = "all"
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    notes: tuple[str, ...] = ()
    """What the file asks for and this study does otherwise."""

    def __post_init__(self) -> None:
        """Check the objective."""
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"objective {self.objective!r} is not available{did_you_mean(self.objective, OBJECTIVES)}"
            )

    @property
    def maximize(self) -> bool:
        """Whether more of it is better."""
        return OBJECTIVES[self.objective]

    def make_objective(self) -> GridBacktest:
        """Read the prices and build the objective. Raises DataError, EngineError or UnknownStrategy, naming what is wrong."""
        prices = read_prices(self.data.load(), self.data.symbol)
        objective = backtest_objective(self.strategy, prices, rename=self.rename, **self.backtest)
        objective.check_parameters(self.space.names)
        return objective


def builtin_study() -> Study:
    """SMA crossover on daily AAPL, 2000 to 2013: about 10,000 pairs of windows, next-open fills, 0.1 % commission."""
    space = ParameterSpace({"fast": IntRange(2, 100), "slow": IntRange(10, 250, 2)}, constraints=["fast < slow"])
    return Study("sma-crossover-AAPL", "sma_crossover", space, PriceSource("AAPL"), {"commission": 0.001})
