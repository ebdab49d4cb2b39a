"""Input that is natural and wrong: each is answered with what to type, and none becomes a wrong number in silence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from admf_dask import (
    DataError,
    EngineError,
    ParallelDataProcessor,
    Session,
    TaskError,
    datasets,
    run_parallel_backtests,
)
from admf_dask.engine import FrameDataHandler, Strategy
from admf_dask.steps import FrameReader

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


def gains(symbol: str, frame: Any) -> Any:
    return frame.assign(gain=frame["close"].pct_change())


def own_key(symbol: str, frame: Any) -> Any:
    return {"here": frame}["gone"]


SHOUTING = AAPL.rename(columns=str.upper)


@pytest.mark.parametrize(
    ("symbols", "options", "words"),
    [
        (pd.DataFrame({"Symbol": ["A"], "weight": [1]}), {}, r"is a DataFrame, .* write symbols\['Symbol'\]"),
        (pd.DataFrame({"weight": [1]}, index=["A"]), {}, r"write symbols.index"),
        ("names.txt", {}, "there is no file 'names.txt' in "),
        (None, {"data": {600000: AAPL}}, r"one is 600000; write {str\(key\): frame"),
        (None, {"data": AAPL}, r"is one DataFrame; write {'NAME': data}, or dict\(list\("),
        (None, {"data": pd.concat({"A": AAPL, "B": IBM}, axis=1)}, r"{name: data\[name\] for name in"),
        (None, {"data": AAPL.groupby("volume")}, r"DataFrameGroupBy; write dict\(list\(data\)\)"),
        (None, {"data": [AAPL]}, r"a list; write dict\(zip\(symbols, data\)\)"),
        (["A"], {"out": ""}, "out must be a folder, .* but is ''"),
        (["A"], {"out": "features/{symbol}.csv"}, "out must be a folder"),
        (["A"], {"out": True}, "out must be a folder"),
        (["BTC/USDT"], {"out": "features"}, r"'BTC/USDT' cannot: no /.* symbol.replace\('/', '-'\)"),
        (["A" * 300], {"out": "features"}, "at most 200 bytes"),
    ],
)
def test_symbols_and_data_of_another_make_are_refused_before_the_start(
    inline_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, symbols: Any, options: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    function = gains if "data" in options else lambda symbol: AAPL
    with pytest.raises(DataError, match=words):
        ParallelDataProcessor(session=inline_session).process_symbols(symbols, function, progress=False, **options)
    assert not [*tmp_path.rglob("*.parquet")]


def test_a_column_that_is_not_there_is_answered_with_those_that_are(inline_session: Session, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    SHOUTING.to_csv(tmp_path / "in" / "AAPL.csv")
    processor = ParallelDataProcessor(session=inline_session)
    cases: list[tuple[Any, Any, str]] = [
        (gains, tmp_path / "in", r"no 'close'; .* 'HIGH', .*; write reader=FrameReader\(columns={'close': 'CLOSE'}\)"),
        (gains, {"AAPL": SHOUTING}, r"write frame.rename\(columns={'CLOSE': 'close'}\)"),
        (own_key, {"AAPL": SHOUTING}, r"KeyError: 'gone'\)"),
    ]
    for function, data, words in cases:
        with pytest.raises(TaskError, match=words):
            processor.process_symbols(None, function, data=data, progress=False)
    with pytest.raises(DataError, match=r"is a file; write data='.*in' and symbols=\['AAPL'\]"):
        processor.process_symbols(["AAPL"], gains, data=tmp_path / "in" / "AAPL.csv", progress=False)


def test_files_with_a_decimal_comma_are_read_as_numbers(inline_session: Session, tmp_path: Path) -> None:
    AAPL.to_csv(tmp_path / "AAPL.csv", sep=";", decimal=",")
    reader = FrameReader(separator=";", decimal=",")
    found = ParallelDataProcessor(session=inline_session).process_symbols(
        None, gains, data=tmp_path, reader=reader, progress=False
    )
    pd.testing.assert_series_equal(found["AAPL"]["close"], AAPL["close"], check_index=False)
    for wrong, words in (
        ({"separator": 5}, "one character"),
        ({"decimal": ","}, "must differ"),
        ({"decimal": ""}, "one"),
    ):
        with pytest.raises(ValueError, match=words):
            FrameReader(**wrong)  # type: ignore[arg-type]
