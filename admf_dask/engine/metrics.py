"""The figures of a backtest from its equity, by the definitions of the semantics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("sharpe_ratio", "total_return", "max_drawdown", "final_equity", "n_trades", "n_entries", "n_fills")
"""What a backtest is told by, in the order in which the compiled kernels fill them in."""


def figures(equity: NDArray[np.float64], initial_cash: float, periods_per_year: float) -> dict[str, float]:
    """sharpe_ratio, total_return, max_drawdown (a positive fraction) and final_equity of an equity curve, shape (bars,)."""
    peak = np.maximum.accumulate(equity)
    return {
        "sharpe_ratio": sharpe_ratio(equity, periods_per_year),
        "total_return": float(equity[-1] / initial_cash - 1.0),
        "max_drawdown": float(np.max(1.0 - equity / peak)),
        "final_equity": float(equity[-1]),
    }


def sharpe_ratio(equity: NDArray[np.float64], periods_per_year: float) -> float:
    """`mean(r) / std(r, ddof=1) * sqrt(periods_per_year)` of `r[t] = E[t] / E[t-1] - 1`; NaN when the deviation is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        returns: Any = np.where(equity[1:] == equity[:-1], 0.0, equity[1:] / equity[:-1] - 1.0)
    if len(returns) < 2:
        return math.nan
    deviation = float(returns.std(ddof=1))
    # Below the rounding of the sums a deviation cannot be told from none.
    if not deviation**2 > 1e-15 * float((returns**2).sum()):
        return math.nan
    return float(returns.mean()) / deviation * math.sqrt(periods_per_year)
