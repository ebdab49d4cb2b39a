"""One meaning, two engines: equal fills and equity on real and generated prices, and equal to a third, naive reading."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask import EngineError, NotSupported, backtest_objective, datasets
from admf_dask.engine import (
    BacktestResult,
    Strategy,
    check_truncation,
    get_strategy_class,
    register_strategy,
    run_compiled,
    run_event,
)
from admf_dask.engine.prices import read_prices

STRATEGIES: dict[str, list[dict[str, Any]]] = {
    "sma_crossover": [
        {"fast": 10, "slow": 50},
        {"fast": 2, "slow": 3},
        {"fast": 30, "slow": 7},
        {"fast": 5, "slow": 5},
    ],
    "rsi_reversion": [{"period": 14, "lower": 30, "upper": 70}, {"period": 2, "lower": 10.5, "upper": 80}],
    "donchian_breakout": [{"entry": 20, "exit": 10}, {"entry": 3, "exit": 8}],
    "buy_and_hold": [{}],
}
CASES = [(name, parameters) for name, many in STRATEGIES.items() for parameters in many]
SETTINGS = [
    {"direction": direction, "fill": fill, "commission": commission, "slippage": slippage, "lot_size": lot}
    for direction, fill in itertools.product(("long", "long_short"), ("next_open", "same_close"))
    for commission, slippage, lot in ((0.0, 0.0, 0.0), (0.001, 0.0005, 0.0), (0.002, 0.0, 100.0))
]


def naive(prices: pd.DataFrame, name: str, parameters: dict[str, Any], **settings: Any) -> list[float]:
    """The equity, written from the page of the semantics: plain loops over plain numbers, targets as the strategy states them."""
    cls = get_strategy_class(name)
    low = 0 if settings["direction"] == "long" else -1
    assert cls.targets is not None
    targets = cls.targets(read_prices(prices), low=low, **parameters).tolist()
    opens, closes = prices["open"].tolist(), prices["close"].tolist()
    cash, quantity, last, equity = settings.get("initial_cash", 1e6), 0.0, len(closes) - 1, []
    commission, slippage, lot = settings["commission"], settings["slippage"], settings["lot_size"]
    for t in range(len(closes)):
        sign = (quantity > 0) - (quantity < 0)
        if settings["fill"] == "next_open":
            target, price = (targets[t - 1] if t else 0), opens[t]
        else:
            target, price = (targets[t] if t < last else sign), closes[t]
        if equity and equity[-1] <= 0:
            equity.append(equity[-1])
            continue
        if target != sign:
            if quantity:
                paid = price * (1 - sign * slippage)
                cash += quantity * paid - abs(quantity) * paid * commission
                quantity = 0.0
            if target and cash > 0:
                paid = price * (1 + target * slippage)
                quantity = target * cash / (paid * (1 + commission))
                if lot:
                    quantity = math.copysign(math.floor(abs(quantity) / lot) * lot, quantity)
                cash -= quantity * paid + abs(quantity) * paid * commission
        equity.append(cash + quantity * closes[t])
    return equity


def both(prices: pd.DataFrame, name: str, parameters: dict[str, Any], **settings: Any) -> BacktestResult:
    """Run both engines, compare them to the last fill and with the naive equity; returns the compiled result."""
    config = {"class": name, "parameters": parameters, **settings}
    event, compiled = run_event(config, prices), run_compiled(config, prices)
    pd.testing.assert_frame_equal(event.fills, compiled.fills, check_dtype=False, rtol=1e-9)
    np.testing.assert_allclose(event.equity, compiled.equity, rtol=1e-9)
    np.testing.assert_allclose(compiled.equity, naive(prices, name, parameters, **settings), rtol=1e-9)
    for metric, value in compiled.metrics.items():
        assert event[metric] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), metric
    assert event.ruined == compiled.ruined
    columns = {key: np.array([value]) for key, value in parameters.items()}
    chunk = backtest_objective(name, prices, **settings)(columns)
    for metric, values in chunk.items():
        assert values[0] == pytest.approx(compiled[metric], rel=1e-12, nan_ok=True), metric
    return compiled


@pytest.fixture(scope="module")
def goog() -> pd.DataFrame:
    return datasets.load_prices("GOOG")


@pytest.mark.parametrize("given_settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_both_engines_agree_on_real_prices(goog: pd.DataFrame, given_settings: dict[str, Any]) -> None:
    for name, parameters in CASES:
        result = both(goog.iloc[:700], name, parameters, **given_settings)
        assert result["n_fills"] > 0 or name == "sma_crossover"


price = st.integers(1, 400).map(lambda n: n / 4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(price, price, price, price), min_size=1, max_size=40),
    st.sampled_from(CASES),
    st.sampled_from(SETTINGS),
    st.sampled_from([1e6, 150.0]),
)
def test_both_engines_agree_on_any_prices(
    rows: list[tuple[float, ...]], case: tuple[str, dict[str, Any]], given_settings: dict[str, Any], cash: float
) -> None:
    # Quarters on few levels make ties, jumps ruin short books, and one bar is a table too.
    frame = pd.DataFrame(rows, columns=["open", "a", "b", "close"])
    frame["high"], frame["low"] = frame.max(axis=1), frame.min(axis=1)
    both(frame, *case, **given_settings, initial_cash=cash)


def test_a_short_book_can_be_ruined_and_says_so() -> None:
    closes = [10.0, 9.0, 8.0, 7.0, 6.0, 30.0, 31.0, 5.0]
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes))
    result = both(
        frame, "sma_crossover", {"fast": 1, "slow": 2}, direction="long_short", fill="next_open", commission=0.0,
        slippage=0.0, lot_size=0.0,
    )  # fmt: skip
    assert result.ruined
    assert result["final_equity"] <= 0
    assert (result.equity.iloc[-3:] == result["final_equity"]).all()


def test_exact_ties_are_ties_up_to_six_decimals() -> None:
    closes = [0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.300001]
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes))
    compiled = get_strategy_class("sma_crossover").targets
    assert compiled is not None
    assert compiled(read_prices(frame), fast=3, slow=6, low=-1).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    both(
        frame, "sma_crossover", {"fast": 3, "slow": 6}, direction="long_short", fill="same_close", commission=0.0,
        slippage=0.0, lot_size=0.0,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.7, 1.1, 1 / 3, 2 / 7]), min_size=6, max_size=60))
def test_ties_are_told_alike_where_some_prices_have_more_decimals(closes: list[float]) -> None:
    frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), closes))
    both(
        frame, "sma_crossover", {"fast": 2, "slow": 4}, direction="long_short", fill="next_open", commission=0.0,
        slippage=0.0, lot_size=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("symbol", datasets.symbols())
def test_runs_read_from_the_tape_are_runs_done_bar_by_bar(symbol: str) -> None:
    # What a chunk takes from shared sums and blocks of bars while a position stays open, against a walk over each bar.
    prices = datasets.load_prices(symbol)
    for name, columns in (
        ("sma_crossover", {"fast": [2, 9, 20, 50, 120, 1], "slow": [5, 31, 200, 100, 60, 150]}),
        ("donchian_breakout", {"entry": [3, 20, 55], "exit": [2, 10, 80]}),
        ("rsi_reversion", {"period": [2, 14], "lower": [20.0, 35.0], "upper": [60.0, 55.0]}),
        ("tests.vector", {"window": [3, 90]}),
    ):
        for fill in ("next_open", "same_close"):
            chunk = backtest_objective(name, prices, commission=0.001, slippage=0.0002, fill=fill)(
                {key: np.array(values) for key, values in columns.items()}
            )
            for k in range(len(next(iter(columns.values())))):
                config = {"class": name, "parameters": {key: values[k] for key, values in columns.items()}}
                alone = run_compiled({**config, "commission": 0.001, "slippage": 0.0002, "fill": fill}, prices)
                assert chunk["final_equity"][k] == alone["final_equity"]
                assert chunk["n_fills"][k] == alone["n_fills"]
                for metric in ("sharpe_ratio", "max_drawdown", "total_return"):
                    assert chunk[metric][k] == pytest.approx(alone[metric], rel=1e-11, abs=1e-13, nan_ok=True), (
                        metric,
                        config,
                    )


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_no_builtin_strategy_looks_ahead(goog: pd.DataFrame, name: str, parameters: dict[str, Any]) -> None:
    for low in (0, -1):
        check_truncation(name, read_prices(goog.iloc[:400]), parameters, low=low)


@register_strategy("tests.peeks")
class Peeks(Strategy):
    @staticmethod
    def targets(bars: Any, *, low: int = 0) -> Any:
        return np.append(np.diff(bars.close) > 0, False).astype(int)


@register_strategy("tests.vector")
class Vector(Strategy):
    @staticmethod
    def targets(bars: Any, *, window: int, low: int = 0) -> Any:
        past = pd.Series(bars.close).rolling(window).mean().to_numpy()
        return np.where(bars.close > past, 1, 0)


@register_strategy("tests.events")
class Events(Strategy):
    def __init__(self, every: int = 3) -> None:
        self.every, self.seen = every, 0

    def on_bar(self, bar: Any) -> int | None:
        self.seen += 1
        return self.seen // self.every % 2 if self.seen % self.every == 0 else None


def test_looking_ahead_is_found(goog: pd.DataFrame) -> None:
    with pytest.raises(Exception, match=r"Peeks.targets looks ahead: for bar \d+"):
        check_truncation("tests.peeks", goog.iloc[:100], {})
    with pytest.raises(EngineError, match="did you mean 'window'"):
        check_truncation("tests.vector", goog.iloc[:100], {"windw": 3})
    with pytest.raises(NotSupported, match="has no vectorised targets"):
        check_truncation("tests.events", goog.iloc[:100], {})


def test_a_users_vectorised_strategy_runs_in_the_compiled_book(goog: pd.DataFrame) -> None:
    result = run_compiled({"class": "tests.vector", "parameters": {"window": 20}, "commission": 0.001}, goog)
    chunk = backtest_objective("tests.vector", goog, commission=0.001)({"window": np.array([20, 30])})
    assert chunk["final_equity"][0] == pytest.approx(result["final_equity"], rel=1e-12)
    assert chunk["n_trades"][1] != chunk["n_trades"][0]


def test_state_never_leaks_between_runs(goog: pd.DataFrame) -> None:
    config = {"class": "tests.events", "parameters": {"every": 5}}
    first, again = run_event(config, goog), run_event(config, goog)
    assert first.equity.equals(again.equity)
    assert first["n_trades"] > 100


def test_figures_fills_and_trades_fit_together(goog: pd.DataFrame) -> None:
    result = run_compiled({"class": "sma_crossover", "parameters": {"fast": 10, "slow": 50}, "commission": 0.001}, goog)
    trades = result.trades
    assert len(trades) == result["n_trades"]
    held = result["n_entries"] - result["n_trades"]
    if not held:
        assert 1e6 + trades["profit"].sum() == pytest.approx(result["final_equity"], rel=1e-9)
    assert (trades["bars"] > 0).all()
    assert (trades["exit_time"] > trades["entry_time"]).all()
    assert result.plot().title.text == "sma_crossover on prices"
    assert "Sharpe ratio" in repr(result)


def test_too_few_bars_is_no_error_and_says_so(goog: pd.DataFrame) -> None:
    result = run_event({"class": "sma_crossover", "parameters": {"fast": 10, "slow": 50}}, goog.iloc[:20])
    assert result["n_fills"] == 0
    assert result.equity.eq(1e6).all()
    assert "it never traded" in result.notes[0]
