"""Both engines against independent ones from PyPI, on real prices, within 1e-9 where their settings express our semantics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import foreign_engines as foreign
import numpy as np
import pandas as pd
import pytest

from admf_dask import ParallelOptimizer, backtest_objective, datasets
from admf_dask.engine import BacktestResult, get_strategy_class, run_compiled, run_event
from admf_dask.engine.prices import read_prices

DOCS = Path(__file__).parent.parent / "docs"
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


def equal_but_for_fills(theirs: Any, results: list[BacktestResult]) -> None:
    """A fill of bar t is booked at t + 1 there; the other bars are equal, the last one among them."""
    theirs, filled = np.array(theirs), results[0].fills["bar"].unique()
    assert filled[-1] < len(theirs) - 1
    theirs[filled] = results[0].equity.iloc[filled]
    equal(theirs, results)


@pytest.mark.parametrize(("direction", "fill"), BOOKS)
@pytest.mark.parametrize("symbol", ["GOOG", "IBM", "MSFT"])
def test_vectorbt(symbol: str, direction: str, fill: str) -> None:
    pytest.importorskip("vectorbt")
    prices = datasets.load_prices(symbol).iloc[: 700 if direction == "long_short" else None]
    costs = {"commission": 0.001, "slippage": 0.0005}
    for name, parameters in CASES:
        results, targets = ours(prices, name, parameters, direction, fill, **costs)
        equal(foreign.vectorbt_equity(prices, targets, same_close=fill == "same_close", **costs), results)


@pytest.mark.parametrize(("direction", "fill"), BOOKS)
@pytest.mark.parametrize("symbol", ["GOOG", "IBM"])
def test_backtesting_py(symbol: str, direction: str, fill: str) -> None:
    pytest.importorskip("backtesting")
    prices = datasets.load_prices(symbol).iloc[:700]
    for name, parameters in CASES:
        results, targets = ours(prices, name, parameters, direction, fill, commission=0.001)
        theirs = foreign.backtesting_equity(prices, targets, same_close=fill == "same_close", commission=0.001)
        equal_but_for_fills(theirs, results) if fill == "same_close" else equal(theirs, results)


@pytest.mark.parametrize(("direction", "fill"), BOOKS)
def test_backtrader(direction: str, fill: str) -> None:
    pytest.importorskip("backtrader")
    prices = datasets.load_prices("GOOG").iloc[:500]
    costs = {"commission": 0.001, "slippage": 0.0005}
    for name, parameters in CASES:
        results, targets = ours(prices, name, parameters, direction, fill, **costs)
        theirs = foreign.backtrader_equity(prices, targets, same_close=fill == "same_close", **costs)
        equal_but_for_fills(theirs, results) if fill == "same_close" else equal(theirs, results)


EXAMPLES = re.findall(
    r"^## (\S+)\n.*?```python\n(.*?)```", (DOCS / "other-engines.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize(("engine", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_page_on_other_engines_runs_and_gives_our_numbers(
    engine: str, code: str, inline_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(engine.removesuffix(".py"))
    foreign.no_watching_thread()
    # Without worker processes: that functions of scripts travel is tested elsewhere, and these engines take seconds to load.
    original = ParallelOptimizer.__init__
    monkeypatch.setattr(ParallelOptimizer, "__init__", lambda self, workers: original(self, session=inline_session))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    result = names["result"]
    expected = ParallelOptimizer(workers=2).optimize(
        names["space"], backtest_objective("sma_crossover", names["prices"], commission=0.001), score="final_equity",
        progress=False,
    )  # fmt: skip
    assert len(expected.frame) == 4
    assert result.best_params == expected.best_params
    np.testing.assert_allclose(result.columns[result.score], expected.columns["final_equity"], rtol=1e-9)


def test_the_page_has_one_example_of_each() -> None:
    assert [name for name, _ in EXAMPLES] == ["backtesting.py", "backtrader", "vectorbt"]
