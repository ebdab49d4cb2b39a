"""The backtest engine: what a backtest means, and compiled code that does it."""

from __future__ import annotations

from admf_dask.engine.objective import BacktestConfig, GridBacktest, backtest_objective

__all__ = ["BacktestConfig", "GridBacktest", "backtest_objective"]
