"""Both engines against independent ones from PyPI, on real prices, within 1e-9 where their settings express our semantics."""

from __future__ import annotations

from typing import Any

import foreign_engines as foreign
import numpy as np
import pandas as pd
import pytest

from admf_dask import datasets
from admf_dask.engine import BacktestResult, get_strategy_class, run_compiled, run_event
from admf_dask.engine.prices import read_prices

CASES: list[tuple[str, dict[str, Any]]] = [
    ("sma_crossover", {"fast": 10, "slow": 50}),
    ("sma_crossover", {"fast": 3, "slow": 8}),
    ("rsi_reversion", {"period": 14, "lower": 35, "upper": 65}),
    ("donchian_breakout", {"entry": 20, "exit": 10}),
]
BOOKS = [(direction, fill) for direction in ("long", "long_short") for fill in ("next_open", "same_close")]


def ours(
    prices: pd.DataFrame, name: str, parameters: dict[str, Any], direction: str, fill: str, **costs: float
) -> tuple[list[BacktestResult], Any]:
    """What both of our engines give, and the targets for the others."""
    config = {"class": name, "parameters": parameters, "direction": direction, "fill": fill, **costs}
    results = [run_compiled(config, prices), run_event(config, prices)]
    assert results[0]["n_fills"] > 4
    assert not results[0].ruined
    targets_of = get_strategy_class(name).targets
    assert targets_of is not None
    return results, targets_of(read_prices(prices), low=0 if direction == "long" else -1, **parameters)


def equal(theirs: Any, results: list[BacktestResult]) -> None:
    for result in results:
        np.testing.assert_allclose(theirs, result.equity, rtol=1e-9, err_msg=result.engine)


@pytest.mark.parametrize(("direction", "fill"), BOOKS)
@pytest.mark.parametrize("symbol", ["GOOG", "IBM", "MSFT"])
def test_vectorbt(symbol: str, direction: str, fill: str) -> None:
    pytest.importorskip("vectorbt")
    prices = datasets.load_prices(symbol).iloc[: 700 if direction == "long_short" else None]
    costs = {"commission": 0.001, "slippage": 0.0005}
    for name, parameters in CASES:
        results, targets = ours(prices, name, parameters, direction, fill, **costs)
        equal(foreign.vectorbt_equity(prices, targets, same_close=fill == "same_close", **costs), results)


@pytest.mark.parametrize("direction", ["long", "long_short"])
@pytest.mark.parametrize("symbol", ["GOOG", "IBM"])
def test_backtesting_py(symbol: str, direction: str) -> None:
    pytest.importorskip("backtesting")
    prices = datasets.load_prices(symbol).iloc[:700]
    for name, parameters in CASES:
        results, targets = ours(prices, name, parameters, direction, "next_open", commission=0.001)
        equal(foreign.backtesting_equity(prices, targets, commission=0.001), results)


@pytest.mark.parametrize(("direction", "fill"), BOOKS)
def test_backtrader(direction: str, fill: str) -> None:
    pytest.importorskip("backtrader")
    prices = datasets.load_prices("GOOG").iloc[:500]
    costs = {"commission": 0.001, "slippage": 0.0005}
    for name, parameters in CASES:
        results, targets = ours(prices, name, parameters, direction, fill, **costs)
        theirs = foreign.backtrader_equity(prices, targets, same_close=fill == "same_close", **costs)
        if fill == "same_close":
            # A fill of bar t is booked at t + 1 there; the other bars are equal.
            filled = results[0].fills["bar"].unique()
            assert len(theirs) == len(prices)
            theirs[filled] = results[0].equity.iloc[filled]
        equal(theirs, results)
        assert theirs[-1] == pytest.approx(results[0]["final_equity"], rel=1e-9)
