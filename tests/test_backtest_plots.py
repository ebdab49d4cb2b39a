"""Several equity curves in one figure: what is drawn is what the results say, and what it is compared with is honest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from bokeh.embed import file_html
from bokeh.models import Legend
from bokeh.resources import INLINE

from admf_dask import EngineError, Session, UnknownStrategy, datasets, run_parallel_backtests
from admf_dask.backtests import BacktestResults
from admf_dask.backtests.plots import PARTS
from admf_dask.engine import Strategy, run_compiled

COSTS = {"commission": 0.002}
CONFIGS: list[dict[str, Any]] = [
    {"class": "sma_crossover", "parameters": {"fast": fast, "slow": slow}, "symbol": symbol, **COSTS}
    for symbol in ("AAPL", "IBM")
    for fast, slow in ((5, 20), (10, 50), (20, 80))
]


class Doubling(Strategy):
    """Short while a price doubles and doubles: its book is ruined."""

    def __init__(self) -> None:
        """Nothing to set."""

    def on_bar(self, bar: Any) -> int:
        return -1


@pytest.fixture(scope="module")
def prices() -> dict[str, pd.DataFrame]:
    return {symbol: datasets.load_prices(symbol).iloc[-600:] for symbol in ("AAPL", "IBM")}


@pytest.fixture
def results(inline_session: Session, prices: dict[str, pd.DataFrame]) -> BacktestResults:
    return run_parallel_backtests(CONFIGS, prices, session=inline_session, progress=False)


def drawn(layout: Any) -> tuple[str, dict[str, pd.DataFrame]]:
    """The title, and what stands behind each name of the legend: columns of both plots by time."""
    upper, lower = layout.children
    (legend,) = upper.select({"type": Legend})
    curves = {}
    for item in legend.items:
        (line,) = item.renderers
        twin = lower.renderers[upper.renderers.index(line)]
        assert line.data_source.data.keys() == twin.data_source.data.keys()
        assert line.glyph.line_color == twin.glyph.line_color
        assert (line.glyph.y, twin.glyph.y) == ("growth", "drawdown")
        curves[item.label.value] = pd.DataFrame(dict(twin.data_source.data)).set_index("time")
    return upper.title.text, curves


def test_what_is_drawn_is_what_the_results_say(results: BacktestResults) -> None:
    title, curves = drawn(results.plot([0, 1], benchmark=None))
    assert title == "sma_crossover on AAPL"
    assert list(curves) == ["fast 5 slow 20", "fast 10 slow 50"]
    for place, curve in enumerate(curves.values()):
        equity = results[place].equity
        assert np.array_equal(curve["growth"], equity.to_numpy() / 1e6)
        assert np.array_equal(curve.index, equity.index)
        assert curve["drawdown"].min() == pytest.approx(-results[place]["max_drawdown"], rel=1e-12)
        assert curve["drawdown"].iloc[0] == 0


def test_the_benchmark_pays_what_the_strategy_pays(results: BacktestResults, prices: dict[str, pd.DataFrame]) -> None:
    _, curves = drawn(results.plot([3]))
    assert list(curves) == ["sma_crossover fast 5 slow 20", "buy_and_hold"]
    held = run_compiled({"class": "buy_and_hold", "symbol": "IBM", **COSTS}, prices["IBM"]).equity
    assert curves["buy_and_hold"]["growth"].to_numpy() * 1e6 == pytest.approx(held.to_numpy(), rel=1e-12)
    free = run_compiled({"class": "buy_and_hold", "symbol": "IBM"}, prices["IBM"]).equity
    assert held.iloc[-1] < free.iloc[-1]


def test_the_best_five_and_one_benchmark_a_symbol(results: BacktestResults) -> None:
    title, curves = drawn(results.plot())
    best = results.frame["sharpe_ratio"].nlargest(5)
    names = [
        f"{CONFIGS[place]['symbol']} fast {CONFIGS[place]['parameters']['fast']} "
        f"slow {CONFIGS[place]['parameters']['slow']}"
        for place in best.index
    ]
    assert title == "sma_crossover"
    assert list(curves)[:5] == names
    assert set(list(curves)[5:]) == {"buy_and_hold AAPL", "buy_and_hold IBM"}


def test_a_benchmark_of_any_strategy_is_drawn_once(results: BacktestResults) -> None:
    _, curves = drawn(results.plot([0, 1, 2], benchmark=CONFIGS[1]))
    assert list(curves) == ["fast 5 slow 20", "fast 20 slow 80", "sma_crossover fast 10 slow 50"]
    assert np.array_equal(curves["sma_crossover fast 10 slow 50"]["growth"], results[1].equity / 1e6)


def test_a_series_is_bought_at_the_start(results: BacktestResults) -> None:
    index = datasets.load_prices("GOOG")["close"].rename("Google")
    _, curves = drawn(results.plot([0], benchmark=index))
    growth = curves["Google"]["growth"]
    assert growth.iloc[0] == 1
    assert growth.index[0] == results[0].equity.index[0] > index.index[0]
    assert growth.iloc[-1] == pytest.approx(index.loc[growth.index[-1]] / index.loc[growth.index[0]])


@pytest.mark.parametrize(
    ("benchmark", "error", "words"),
    [
        ("buy_and_hodl", UnknownStrategy, "buy_and_hold"),
        (3, EngineError, "3"),
        (pd.DataFrame({"close": [1.0]}), EngineError, r"is a table; write benchmark=prices\['close'\]"),
        (pd.Series([1.0, 2.0]), EngineError, "needs the kind of index that the prices have"),
        (pd.Series([1.0], pd.DatetimeIndex(["1990-01-01"])), EngineError, "be known between 2010-10-"),
        (pd.Series([0.0], pd.DatetimeIndex(["2012-01-03"])), EngineError, "a value above 0"),
    ],
)
def test_what_is_no_benchmark(results: BacktestResults, benchmark: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        results.plot([0], benchmark=benchmark)


@pytest.mark.filterwarnings("ignore:1 of 2")
def test_what_failed_is_not_drawn_in_silence(inline_session: Session, prices: dict[str, pd.DataFrame]) -> None:
    configs = [CONFIGS[0], {**CONFIGS[0], "symbol": "GOOG"}]
    results = run_parallel_backtests(configs, prices, session=inline_session, progress=False)
    assert list(drawn(results.plot(benchmark=None))[1]) == ["sma_crossover fast 5 slow 20"]
    with pytest.raises(type(results.outcomes[1].error), match="GOOG"):
        results.plot([0, 1])
    with pytest.raises(EngineError, match=r"results\.failures"):
        results.plot([])
    with pytest.raises(IndexError):
        results.plot([7])


def test_a_long_curve_keeps_its_extremes(inline_session: Session) -> None:
    bars = 60_000
    steps = np.random.default_rng(5).normal(0, 0.001, bars)
    close = np.exp(np.cumsum(steps))
    index = pd.date_range("2024-01-02", periods=bars, freq="min", tz="America/New_York")
    frame = pd.DataFrame({"open": close, "high": close, "low": close, "close": close}, index)
    config = {"class": "sma_crossover", "parameters": {"fast": 20, "slow": 300}}
    results = run_parallel_backtests([config], frame, session=inline_session, progress=False)
    (curve,) = drawn(results.plot(benchmark=None))[1].values()
    assert PARTS <= len(curve) <= 4 * PARTS + 2
    assert curve["drawdown"].min() == pytest.approx(-results[0]["max_drawdown"], rel=1e-12)
    assert curve["growth"].max() == results[0].equity.max() / 1e6
    assert curve["growth"].iloc[-1] == results[0]["final_equity"] / 1e6
    assert curve.index[0] == pd.Timestamp("2024-01-02 00:00")  # as the clock of the exchange says
    assert curve.index.is_monotonic_increasing


def test_a_ruined_book_has_a_plain_axis(inline_session: Session) -> None:
    close = 2.0 ** np.arange(12)
    frame = pd.DataFrame({"open": close, "high": close, "low": close, "close": close})
    config = {"class": Doubling, "direction": "long_short"}
    results = run_parallel_backtests([config], frame, session=inline_session, progress=False)
    assert results[0].ruined
    for layout, scale in ((results.plot(), "Linear"), (results.plot(benchmark="buy_and_hold", log=False), "Linear")):
        upper, lower = layout.children
        assert type(upper.y_scale).__name__.startswith(scale)
        assert lower.xaxis[0].axis_label == "bar"
    assert list(drawn(results.plot())[1]) == ["Doubling", "buy_and_hold"]


def test_axes_are_shared_and_a_click_hides_a_curve_in_both(results: BacktestResults) -> None:
    layout = results.plot([0, 1])
    upper, lower = layout.children
    assert type(upper.y_scale).__name__ == "LogScale"
    assert type(results.plot([0], log=False).children[0].y_scale).__name__ == "LinearScale"
    assert upper.x_range is lower.x_range
    for above, below in zip(upper.renderers, lower.renderers, strict=True):
        (link,) = above.js_property_callbacks["change:visible"]
        assert link.args["other"] is below
    assert upper.legend[0].click_policy == "hide"
    assert "times the initial cash" in file_html(layout, INLINE)


def test_the_box_of_different_strategies_has_no_empty_columns(
    inline_session: Session, prices: dict[str, pd.DataFrame]
) -> None:
    mixed = [CONFIGS[0], {"class": "donchian_breakout", "parameters": {"entry": 20, "exit": 10}, "symbol": "IBM"}]
    results = run_parallel_backtests(mixed, prices, session=inline_session, progress=False)
    html = results._repr_html_()
    assert "NaN" not in html
    assert "<td>fast 5, slow 20</td>" in html
    assert "<td>entry 20, exit 10</td>" in html
    assert f"<td>{results[0]['final_equity']:,.0f}</td>" in html
    assert "n_entries" not in html
    alike = run_parallel_backtests(CONFIGS, prices, session=inline_session, progress=False)._repr_html_()
    assert "<th>fast</th>" in alike
    assert "<th>parameters</th>" not in alike


@pytest.mark.filterwarnings("ignore:2 of 3")
def test_a_box_bears_parameters_that_are_named_as_its_columns(
    inline_session: Session, prices: dict[str, pd.DataFrame]
) -> None:
    named = [{"class": "unknown", "parameters": {name: 1}, "symbol": "IBM"} for name in ("parameters", "class")]
    results = run_parallel_backtests([CONFIGS[0], *named], prices, session=inline_session, progress=False)
    html = results._repr_html_()
    assert "<td>fast 5, slow 20</td>" in html
    assert "<td>parameters 1</td>" in html
