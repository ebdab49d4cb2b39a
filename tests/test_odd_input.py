"""Input that is natural and wrong: each is answered with what to type, and none becomes a wrong number in silence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from admf_dask import (
    ConfigError,
    DataError,
    EngineError,
    JournalError,
    ParallelDataProcessor,
    ParallelOptimizer,
    ParallelProgress,
    ParameterSpace,
    Session,
    SpaceError,
    TaskError,
    TaskQueue,
    ThreadPool,
    datasets,
    run_isolated_process,
    run_parallel_backtests,
)
from admf_dask.engine import FrameDataHandler, Strategy
from admf_dask.outcomes import NothingRanksWarning
from admf_dask.runtime import FailedItemsWarning
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
        with pytest.raises(TaskError, match=words) as caught:
            processor.process_symbols(None, function, data=data, progress=False)
        assert isinstance(caught.value.__cause__, KeyError), "who catches it still does"
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


def test_the_items_of_a_series_are_its_values_in_order(any_session: Session) -> None:
    swapped = pd.Series([10, 20, 30], index=[2, 1, 0])
    assert any_session.map(abs, swapped, progress=False).values() == [10, 20, 30]
    with pytest.raises(TypeError, match=r"got a DataFrame, .* frame.to_dict\('records'\)"):
        any_session.map(abs, swapped.to_frame(), progress=False)


def test_a_shared_dict_refuses_what_no_dict_could_hold(any_session: Session) -> None:
    shared = any_session.shared_dict("odd keys")
    with pytest.raises(TypeError, match="unhashable"):
        shared[[1]] = 2
    with pytest.raises(TypeError, match="unhashable"):
        shared.compute({}, lambda value: 1)
    assert dict(shared) == {}


def refusing(params: dict[str, Any]) -> bool:
    return params["slow"] > 1


def test_a_constraint_that_raises_is_named(inline_session: Session) -> None:
    optimizer = ParallelOptimizer(session=inline_session)
    words = r"the only evaluation failed \(fast=1: KeyError: the constraint 'refusing' raised KeyError: 'slow'\)"
    with pytest.raises(TaskError, match=words) as caught:
        optimizer.optimize({"fast": [1]}, lambda params: 1.0, refusing, progress=False)
    assert "KeyError: 'slow'" in "".join(getattr(caught.value.__cause__, "__notes__", ()))
    with pytest.raises(SpaceError, match="the constraint 'refusing' raised") as raised:
        ParameterSpace({"fast": [1]}, constraints=refusing).get_combinations()
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("constraints", "words"),
    [
        (5, 'such as "fast < slow", but is 5'),
        (True, "but is True"),
        ({"fast": 1}, "but is {'fast': 1}"),
        (
            lambda fast, slow: fast < slow,
            r"as one dict, but '<lambda>' does not take it: missing .* write lambda params",
        ),
    ],
)
def test_what_is_no_constraint_is_answered_with_one(inline_session: Session, constraints: Any, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        ParameterSpace({"fast": [1]}, constraints=constraints)
    with pytest.raises(SpaceError, match=words):
        ParallelOptimizer(session=inline_session).optimize({"fast": [1]}, lambda params: 1.0, constraints)
    assert len(ParameterSpace({"fast": [1]}, constraints=None).get_combinations()) == 1


def test_messages_name_frames_and_do_not_print_them(inline_session: Session) -> None:
    with pytest.raises(SpaceError, match=r"must differ, but <DataFrame 120 x 5> stands there twice"):
        ParameterSpace({"prices": [AAPL, AAPL]})
    mended = AAPL.assign(close=AAPL["close"].where(AAPL.index != AAPL.index[60], 1.0))
    assert repr(mended) == repr(AAPL)
    assert len(ParameterSpace({"prices": [AAPL, mended]})) == 2
    with pytest.raises(TaskError, match=r"all 2 evaluations failed \(first: prices=<DataFrame 120 x 5>: KeyError"):
        ParallelOptimizer(session=inline_session).optimize(
            {"prices": [AAPL, IBM]}, lambda params: params["gone"], progress=False
        )
    with pytest.raises(TaskError, match=r"the only item failed \(<DataFrame 120 x 5>: "):
        inline_session.map(len_of_nothing, [AAPL], progress=False)
    with pytest.warns(FailedItemsWarning, match=r"1 of 2 items failed .*\. The other one is in `result`"):
        inline_session.map(len, [None, AAPL], progress=False)


def len_of_nothing(item: Any) -> int:
    return len(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", ["all", 2])
def test_scores_that_are_all_nan_have_no_best(inline_session: Session, keep: Any) -> None:
    optimizer = ParallelOptimizer(session=inline_session)
    with pytest.warns(NothingRanksWarning, match="score is NaN in all 2 .* so best_params is None"):
        result = optimizer.optimize({"fast": [1, 2]}, lambda params: np.nan, keep=keep, progress=False)
    assert result.best_params is None is result.best
    assert np.isnan(result.best_score)
    assert len(result.frame) == 2
    assert optimizer.optimize({"fast": [0, 2]}, half, keep=keep, progress=False).best_params == {"fast": 2}


def half(params: dict[str, Any]) -> float:
    return 1.0 if params["fast"] else np.nan


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert type(ParallelOptimizer(workers=np.int64(2)).workers) is int
    assert ThreadPool(np.int32(2)).workers == 2
    assert TaskQueue(np.int64(0)).process_tasks(np.int64(1)) == 0
    progress = ParallelProgress((AAPL["close"] > 0).sum())
    progress.update(np.int64(3))
    assert progress.statistics().completed == 3
    with pytest.raises(ConfigError, match="must be a whole number"):
        ParallelOptimizer(workers=np.float64(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout counts seconds and must be above 0, but is '5'"):
        run_isolated_process.options(timeout="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write run_isolated_process.options\(timeout=...\)\(func, ...\)"):
        run_isolated_process(half, {"fast": 1}, timeout=5)


def test_a_journal_that_cannot_be_is_one_sentence(inline_session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"folder \S+file cannot be used: File exists; give another folder$"):
        inline_session.map(abs, [1], journal=tmp_path / "file", progress=False)


def test_infinite_and_missing_scores_are_drawn_without_a_complaint(inline_session: Session, tmp_path: Path) -> None:
    scores = [np.nan, -np.inf, np.inf, np.inf]
    optimizer = ParallelOptimizer(session=inline_session)
    result = optimizer.optimize({"at": range(4)}, lambda params: scores[params["at"]], progress=False)
    assert result.best_params == {"at": 2}
    assert result.report(tmp_path / "run.html").stat().st_size > 0


def test_one_combination_without_parameters_is_one_call(inline_session: Session) -> None:
    result = ParallelOptimizer(session=inline_session).optimize([{}], lambda params: float(len(params)), progress=False)
    assert (result.best_params, result.best_score, result.total_evaluations) == ({}, 0.0, 1)


@pytest.mark.parametrize("face", [ParallelOptimizer, ParallelDataProcessor])
@pytest.mark.parametrize("client", [False, True])
def test_a_session_in_the_place_of_workers_is_answered_with_where_it_belongs(
    thread_session: Session, face: Any, client: bool
) -> None:
    with pytest.raises(ConfigError, match=r"workers counts slots, but is <.*write `session=` before it"):
        face(thread_session.client if client else thread_session)
