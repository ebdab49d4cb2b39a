"""Input that is natural and wrong: each is answered with what to type, and none becomes a wrong number in silence."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from admf_dask import DataError, EngineError, Session, TaskError, datasets, run_parallel_backtests
from admf_dask.engine import FrameDataHandler, Strategy

AAPL, IBM = (datasets.load_prices(symbol).iloc[:120] for symbol in ("AAPL", "IBM"))


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (
            pd.concat({"AAPL": AAPL, "IBM": IBM}),
            r"one symbol, but has 2 levels; write .*droplevel\(0\).*groupby\(level=0\)",
        ),
        (pd.concat({"AAPL": AAPL}).swaplevel(), r"droplevel\(1\)"),
        (
            pd.concat({"AAPL": AAPL, "IBM": IBM}, names=["Ticker"]).reset_index("Ticker").sort_index(),
            r"the column 'Ticker' has 2; write dict\(list\(prices.groupby\('Ticker'\)\)\)",
        ),
        (AAPL["close"], r"but are Series; .* write pd.DataFrame\({name: prices for name in"),
        ("prices/AAPL.csv", r"from_csv\('prices/AAPL.csv'\)"),
        ([AAPL, IBM], "give a mapping symbol -> DataFrame"),
    ],
)
def test_bars_of_several_symbols_never_become_one_history(prices: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        FrameDataHandler(prices)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (AAPL.reset_index(), r"daily bars \(252 a year\).* write prices.set_index\('date'\)"),
        (AAPL.reset_index(names="Date").astype({"Date": str}), r"set_index\(pd.to_datetime\(prices\['Date'\]\)\)"),
    ],
)
def test_bars_numbered_by_row_beside_their_dates_are_said_to_count_as_daily(prices: Any, words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        FrameDataHandler(prices)


def test_bars_with_times_or_with_numbers_alone_are_taken_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FrameDataHandler(AAPL.reset_index(drop=True)).prices(None).periods_per_year == 252
        FrameDataHandler(AAPL.assign(symbol="AAPL", time=np.arange(len(AAPL))))


class Plain:
    """Has what a strategy has, and is none."""

    def on_bar(self, bar: Any) -> int:
        return 1


class Loose(Strategy):
    """Forgets `low`."""

    @staticmethod
    def targets(bars: Any, days: int = 5) -> Any:
        return np.ones(len(bars), int)


class Own(Strategy):
    """Forgets that `targets` has no self."""

    def targets(self, bars: Any, *, low: int) -> Any:
        return np.ones(len(bars), int)


HOLD = {"class": "buy_and_hold", "symbol": "AAPL"}


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ([HOLD, {**HOLD, "symbol": "IBM"}], r"name 2 symbols \(AAPL and IBM\), but the prices are one frame"),
        (pd.DataFrame([HOLD]), r"is a DataFrame; write \[dict\(row.dropna\(\)\)"),
        ([{**HOLD, "days": 5}], "stands under `parameters`"),
        ([{**HOLD, "class": Plain}], r"write class Plain\(Strategy\), with from admf_dask.engine import Strategy"),
        ([{**HOLD, "class": Loose()}], "give the class, Loose, and its values"),
        (
            [{**HOLD, "class": Loose}],
            r"has targets\(bars, days\); write @staticmethod and def targets\(bars, \*, low, days\)",
        ),
        ([{**HOLD, "class": Own}], r"has targets\(self, bars, low\); write @staticmethod"),
    ],
)
def test_configs_of_another_make_are_answered_with_what_to_write(
    inline_session: Session, configs: Any, words: str
) -> None:
    with pytest.raises((DataError, EngineError, TaskError), match=words):
        run_parallel_backtests(configs, AAPL, session=inline_session, progress=False)


def test_what_is_plain_in_a_config_is_taken_as_it_is_meant(inline_session: Session) -> None:
    rows = pd.DataFrame([{**HOLD, "parameters": None}, {**HOLD, "commission": 0.01, "initial_cash": 1000}])
    configs = [dict(row.dropna()) for _, row in rows.iterrows()]
    prices = {"AAPL": AAPL, "IBM": IBM}
    results = run_parallel_backtests(
        (one for one in [*configs, {"class": "buy_and_hold", "symbols": "IBM", "initial_cash": np.int64(500)}]),
        prices, session=inline_session, progress=False,
    )  # fmt: skip
    assert results.frame["symbol"].tolist() == ["AAPL", "AAPL", "IBM"]
    assert [one.config["initial_cash"] for one in results] == [1e6, 1000, 500]


def test_results_are_asked_for_by_position_and_nothing_else(inline_session: Session) -> None:
    results = run_parallel_backtests(
        [{**HOLD, "symbols": "all"}], {"AAPL": AAPL, "IBM": IBM}, session=inline_session, progress=False
    )
    assert results[-1].config == results[np.int64(1)].config != results[0].config
    with pytest.raises(IndexError, match="there are 2 configs, 0 to 1, but 5 was asked for"):
        _ = results[5]
    for wrong in ("AAPL", True, 0.5):
        with pytest.raises(TypeError, match=r"named by its position.*results.frame.index\[condition\]"):
            _ = results[wrong]  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="named by its position"):
        results.plot(results.frame["sharpe_ratio"] > 0)
    assert results.equity_of(-1).columns.tolist() == [1] == results.equity_of(slice(1, None)).columns.tolist()
    assert results.plot(1) is not None
