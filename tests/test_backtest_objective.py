"""The compiled crossover against a third, naive reading of the semantics, in fractions where a tie could matter."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask import DataError, EngineError, ParallelOptimizer, UnknownStrategy, backtest_objective
from admf_dask.datasets import load_prices, symbols
from admf_dask.outcomes import EqualResultsWarning


def naive(prices: pd.DataFrame, fast: int, slow: int, **config: Any) -> dict[str, float]:
    """Written from the page of the semantics, bar by bar, with exact means."""
    low = 0 if config.get("direction", "long") == "long" else -1
    commission, slippage = config.get("commission", 0.0), config.get("slippage", 0.0)
    opens, closes = prices["open"].tolist(), prices["close"].tolist()
    exact = [Fraction(repr(close)) for close in closes]
    sums = [Fraction(0)]
    for close in exact:
        sums.append(sums[-1] + close)
    targets = []
    for t in range(len(closes)):
        a, b = (sums[t + 1] - sums[max(0, t + 1 - n)] for n in (fast, slow))
        means = (a / fast, b / slow)
        early = t < max(fast, slow) - 1
        targets.append(0 if early or means[0] == means[1] else 1 if means[0] > means[1] else low)
    cash = initial = config.get("initial_cash", 1e6)
    quantity, trades, entries, fills, equity = 0.0, 0, 0, 0, []
    for t in range(len(closes)):
        if config.get("fill", "next_open") == "next_open":
            target, price = (targets[t - 1] if t else 0), opens[t]
        else:
            target, price = (targets[t] if t < len(closes) - 1 else np.sign(quantity)), closes[t]
        if target != np.sign(quantity):
            if quantity:
                paid = price * (1 - np.sign(quantity) * slippage)
                cash += quantity * paid - abs(quantity) * paid * commission
                quantity, trades, fills = 0.0, trades + 1, fills + 1
            if target:
                paid = price * (1 + target * slippage)
                quantity = target * cash / (paid * (1 + commission))
                cash -= quantity * paid + abs(quantity) * paid * commission
                entries, fills = entries + 1, fills + 1
        equity.append(cash + quantity * closes[t])
    e = np.array(equity)
    r = e[1:] / e[:-1] - 1
    deviation = r.std(ddof=1) if len(r) > 1 else 0.0
    return {
        "sharpe_ratio": r.mean() / deviation * math.sqrt(config["periods_per_year"]) if deviation > 0 else math.nan,
        "total_return": e[-1] / initial - 1,
        "max_drawdown": (1 - e / np.maximum.accumulate(e)).max(),
        "final_equity": e[-1],
        "n_trades": trades,
        "n_entries": entries,
        "n_fills": fills,
    }


def compare(prices: pd.DataFrame, windows: list[tuple[int, int]], **config: Any) -> None:
    config.setdefault("periods_per_year", 252)
    columns = {"fast": np.array([a for a, _ in windows]), "slow": np.array([b for _, b in windows])}
    compiled = backtest_objective("sma_crossover", prices, **config)(columns)
    for place, (fast, slow) in enumerate(windows):
        for name, value in naive(prices, fast, slow, **config).items():
            assert compiled[name][place] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), (
                name,
                fast,
                slow,
                config,
            )


CONFIGS = [
    {},
    {"commission": 0.001},
    {"commission": 0.001, "slippage": 0.0005, "fill": "same_close"},
    {"direction": "long_short", "commission": 0.002},
    {"direction": "long_short", "fill": "same_close", "slippage": 0.001},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("symbol", symbols())
def test_real_prices(symbol: str, config: dict[str, Any]) -> None:
    prices = load_prices(symbol)
    # Shorts on prices that multiply may be ruined, which ends a book; those are kept out of this comparison.
    prices = prices.iloc[:400] if config.get("direction") == "long_short" else prices
    compare(prices, [(10, 50), (5, 5), (50, 10), (1, 2), (20, 21), (3, 180)], **config)


steps = st.lists(st.integers(-3, 3), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None)
@given(
    steps, st.integers(1, 6), st.integers(1, 9), st.sampled_from(CONFIGS[:3]), st.sampled_from([0.25, 0.1, 0.000001])
)
def test_ties_are_ties_to_the_last_decimal(
    changes: list[int], fast: int, slow: int, config: dict[str, Any], tick: float
) -> None:
    closes = np.round((200 + np.cumsum(changes)) * tick, 6)
    prices = pd.DataFrame(
        {"open": np.round(closes + tick, 6), "high": closes + 2 * tick, "low": closes, "close": closes}
    )
    compare(prices, [(fast, slow)], **config)


def test_a_single_bar_never_trades() -> None:
    prices = load_prices("AAPL").iloc[:1]
    found = backtest_objective("sma_crossover", prices)({"fast": np.array([1]), "slow": np.array([2])})
    assert found["n_fills"][0] == 0
    assert found["final_equity"][0] == 1e6
    assert math.isnan(found["sharpe_ratio"][0])


def test_the_objective_travels_and_names_may_be_mapped() -> None:
    prices = load_prices("FB")
    objective = backtest_objective("sma_crossover", prices, rename={"fast_window": "fast"}, commission=0.001)
    columns = {"fast_window": np.array([5, 8]), "slow": np.array([20, 30])}
    there = pickle.loads(pickle.dumps(objective))
    assert np.array_equal(there(columns)["final_equity"], objective(columns)["final_equity"])


def test_bars_in_a_year_come_from_the_index() -> None:
    prices = load_prices("FB")
    assert backtest_objective("sma_crossover", prices).periods_per_year == 252
    hourly = prices.set_axis(pd.date_range("2024-01-01", periods=len(prices), freq="h"))
    assert backtest_objective("sma_crossover", hourly).periods_per_year == pytest.approx(365.25 * 24)
    assert backtest_objective("sma_crossover", hourly, periods_per_year=1000).periods_per_year == 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.drop(columns="open"), "must have a column 'open'"),
        (lambda p: p.iloc[::-1], "must be ascending without repeats, but row 1"),
        (lambda p: p.assign(close=p["close"].where(p.index != p.index[3])), "'close' is nan in row 3"),
        (lambda p: p.assign(low=0.0), "'low' is 0.0 in row 0"),
        (lambda p: p.iloc[:0], "at least one row"),
        (lambda p: p["close"].tolist(), "must be a DataFrame"),
    ],
)
def test_prices_that_cannot_be_are_named(change: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        backtest_objective("sma_crossover", change(load_prices("FB")))


def test_a_sweep_without_effect_says_so(inline_session: Any) -> None:
    prices = load_prices("FB")
    optimizer = ParallelOptimizer(session=inline_session)
    windows = {"fast": [500, 600], "slow": [700, 800]}
    with pytest.warns(
        EqualResultsWarning, match=r"all 4 combinations gave the same result .* \(fast and slow\) has no effect"
    ):
        optimizer.optimize(windows, backtest_objective("sma_crossover", prices), score="final_equity", progress=False)
    optimizer.optimize(
        {"fast": [5, 600], "slow": [20, 800]},
        backtest_objective("sma_crossover", prices),
        score="final_equity",
        progress=False,
    )


def crossover(prices: pd.DataFrame, **windows: int) -> Any:
    return backtest_objective("sma_crossover", prices)({name: np.array([window]) for name, window in windows.items()})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: backtest_objective("sma_crosover", p), UnknownStrategy, "did you mean 'sma_crossover'"),
        (lambda p: backtest_objective("sma_crossover", p, comission=0.1), EngineError, "did you mean 'commission'"),
        (lambda p: backtest_objective("sma_crossover", p, commission=-0.1), EngineError, "must be a fraction"),
        (lambda p: backtest_objective("sma_crossover", p, fill="close"), EngineError, "next_open or same_close"),
        (lambda p: backtest_objective("sma_crossover", p, initial_cash=0), EngineError, "above 0"),
        (lambda p: crossover(p, fats=1, slow=2), EngineError, "did you mean 'fast'"),
        (lambda p: crossover(p, fast_window=1, slow=2), EngineError, r"did you mean 'fast'\? .*rename=\{'fast_window': 'fast'\}"),
        (lambda p: crossover(p, fast=1), EngineError, "needs the parameter 'slow'"),
        (lambda p: crossover(p, fast=0, slow=2), EngineError, "counts bars"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(load_prices("FB"))
