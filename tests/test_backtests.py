"""Many configs, in parallel, on real prices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from admf_dask import (
    DataError,
    EngineError,
    ParameterSpace,
    Session,
    TaskError,
    backtest_objective,
    datasets,
    run_parallel_backtests,
)
from admf_dask.cli import main
from admf_dask.engine import FrameDataHandler, Strategy, run_event
from admf_dask.engine.batch import run_together
from admf_dask.journal import Journal
from admf_dask.journal.follow import Follow
from admf_dask.outcomes import EqualResultsWarning
from admf_dask.page.view import RunView
from admf_dask.progress.digest import Digest
from admf_dask.runtime import FailedItemsWarning


@pytest.fixture(scope="module")
def data() -> FrameDataHandler:
    return FrameDataHandler({symbol: datasets.load_prices(symbol).iloc[-400:] for symbol in ("AAPL", "IBM")})


CONFIGS: list[dict[str, Any]] = [
    {"class": "sma_crossover", "parameters": {"fast": 5, "slow": 20}, "symbol": "AAPL", "commission": 0.001},
    {"class": "rsi_reversion", "parameters": {"period": 14, "lower": 30, "upper": 70}, "symbol": "IBM"},
    {
        "class": "donchian_breakout",
        "parameters": {"entry": 20, "exit": 10},
        "symbol": "AAPL",
        "direction": "long_short",
    },
    {"class": "buy_and_hold", "symbol": "IBM", "fill": "same_close"},
]


class OnTuesdays(Strategy):
    """A strategy that only events can run."""

    def __init__(self) -> None:
        """Nothing to set."""

    def on_bar(self, bar: Any) -> int:
        return int(bar.time.weekday() == 1)


def test_results_are_in_config_order_and_equal_to_single_runs(any_session: Session, data: FrameDataHandler) -> None:
    results = run_parallel_backtests(CONFIGS, data, session=any_session, progress=False)
    assert len(results) == 4
    for config, result in zip(CONFIGS, results, strict=True):
        alone = run_event(config, data)
        np.testing.assert_allclose(result.equity, alone.equity, rtol=1e-9)
        assert result.engine == "compiled"
        assert result.why.endswith("states its targets over arrays")
    frame = results.frame
    assert frame["class"].tolist() == [config["class"] for config in CONFIGS]
    assert frame.loc[0, "final_equity"] == results[0]["final_equity"]
    assert frame["error"].isna().all()
    assert results.equity.shape == (400, 4)
    assert results.equity_of(frame.nlargest(2, "sharpe_ratio").index).shape == (400, 2)


def test_the_event_engine_where_the_compiled_one_cannot(process_session: Session, data: FrameDataHandler) -> None:
    configs = [{"class": OnTuesdays, "symbol": "AAPL"}, CONFIGS[0]]
    results = run_parallel_backtests(configs, data, session=process_session, progress=False)
    assert [result.engine for result in results] == ["event", "compiled"]
    assert results[0].why == "OnTuesdays has no vectorised targets"
    assert results[0]["n_trades"] > 50
    assert len(results[0].trades) == results[0]["n_trades"]
    events = run_parallel_backtests(CONFIGS, data, session=process_session, engine="event", progress=False)
    assert {result.engine for result in events} == {"event"}


def test_a_config_that_fails_is_a_failed_row(inline_session: Session, data: FrameDataHandler) -> None:
    wrong = [
        CONFIGS[0],
        {"class": "sma_crosover", "parameters": {"fast": 5, "slow": 20}, "symbol": "AAPL"},
        {"class": "sma_crossover", "parameters": {"fast_window": 5, "slow": 20}, "symbol": "AAPL"},
        {"class": "buy_and_hold", "symbol": "IBN"},
    ]
    with pytest.warns(FailedItemsWarning, match="3 of 4"):
        results = run_parallel_backtests(wrong, data, session=inline_session, progress=False)
    assert results.failures["error_type"].tolist() == ["UnknownStrategy", "EngineError", "DataError"]
    assert "did you mean 'IBM'" in results.frame.loc[3, "error"]
    assert len(results.ok) == 1
    with pytest.raises(DataError, match="none of 'IBN'; did you mean 'IBM'"):
        _ = results[3]
    renamed = run_parallel_backtests(
        wrong[2:3], data, session=inline_session, rename={"fast_window": "fast"}, progress=False
    )
    assert renamed[0].config["parameters"] == {"fast": 5, "slow": 20}
    with pytest.raises(TaskError, match="the only item failed"):
        run_parallel_backtests(wrong[3:], data, session=inline_session, progress=False)


def test_a_space_times_symbols(inline_session: Session, data: FrameDataHandler) -> None:
    space = ParameterSpace({"fast": [2, 5, 30], "slow": [20, 40]}, constraints=["fast < slow"])
    config = {"class": "sma_crossover", "parameters": space, "symbols": "all"}
    results = run_parallel_backtests(config, data, session=inline_session, progress=False)
    assert len(results) == 2 * 5
    assert results.frame["symbol"].tolist() == ["AAPL"] * 5 + ["IBM"] * 5
    assert results.frame.groupby(["fast", "slow"]).size().tolist() == [2] * 5


def test_a_file_of_configs(inline_session: Session, data: FrameDataHandler, tmp_path: Path) -> None:
    (tmp_path / "configs.yaml").write_text(yaml.safe_dump({"configs": CONFIGS}, sort_keys=False))
    from_file = run_parallel_backtests(tmp_path / "configs.yaml", data, session=inline_session, progress=False)
    direct = run_parallel_backtests(CONFIGS, data, session=inline_session, progress=False)
    pd.testing.assert_frame_equal(from_file.frame.drop(columns="seconds"), direct.frame.drop(columns="seconds"))


def test_a_sweep_without_effect_says_so(inline_session: Session, data: FrameDataHandler) -> None:
    configs = [{"class": "buy_and_hold", "symbol": "IBM", "direction": d} for d in ("long", "long_short")]
    with pytest.warns(EqualResultsWarning, match="all 2 backtests gave the same result"):
        run_parallel_backtests(configs, data, session=inline_session, progress=False)


def test_a_journal_goes_on(inline_session: Session, data: FrameDataHandler, tmp_path: Path) -> None:
    run_parallel_backtests(CONFIGS[:2], data, session=inline_session, journal=tmp_path / "j", progress=False)
    results = run_parallel_backtests(CONFIGS, data, session=inline_session, journal=tmp_path / "j", progress=False)
    assert len(results) == 4
    from admf_dask import Journal

    assert Journal(tmp_path / "j").status().recalled == 2


@pytest.mark.parametrize(
    ("configs", "options", "words"),
    [
        ([], {}, "is empty"),
        (5, {}, "must be a list of mappings"),
        (["sma_crossover"], {}, "must be a mapping with `class`"),
        (CONFIGS, {"engine": "compile"}, "did you mean 'compiled'"),
    ],
)
def test_what_concerns_all_is_refused_before_the_start(
    inline_session: Session, data: FrameDataHandler, configs: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        run_parallel_backtests(configs, data, session=inline_session, progress=False, **options)


def test_without_a_session_it_opens_its_own() -> None:
    frame = datasets.load_prices("FB")
    results = run_parallel_backtests(
        [{"class": "buy_and_hold"}, {"class": "buy_and_hold", "commission": 0.01}],
        frame,
        workers=2,
        mode="thread",
        progress=False,
    )
    assert results[0]["final_equity"] > results[1]["final_equity"]


def test_those_who_watch_hear_scores_and_the_curves_of_the_best(
    inline_session: Session, data: FrameDataHandler, tmp_path: Path
) -> None:
    configs = [
        {"class": "sma_crossover", "parameters": {"fast": fast, "slow": 30}, "symbol": symbol}
        for fast in range(3, 11)
        for symbol in ("AAPL", "IBM")
    ]
    follow: list[Any] = []

    class Watch:
        def on_event(self, event: Any) -> None:
            follow.append(event)

    results = run_parallel_backtests(
        configs, data, session=inline_session, progress=Watch(), journal=tmp_path / "journal"
    )
    best = results.frame["sharpe_ratio"].nlargest(5).index.tolist()
    # What was seen while it ran, and what the journal tells afterwards.
    for events in (follow, Follow(Journal(tmp_path / "journal")).new()):
        digest = Digest(configs)
        for event in events:
            digest.take(event)
        update = digest.update()
        assert update is not None
        view = RunView.of(update)
        assert (view.last.kind, view.last.score, view.size) == ("backtest", "sharpe_ratio", 16)
        assert [index for _, index, _ in view.last.best[:5]] == best
        assert [curve.index for curve in view.curves] == best
        assert view.names == ["fast", "symbol"]
        assert view.surface("symbol", "fast", "best").values.shape == (8, 2)
        for curve in view.curves:
            equity = results[curve.index].equity
            assert len(curve.x) <= 300
            np.testing.assert_allclose(curve.y[-1], equity.iloc[-1], rtol=1e-6)
            assert pd.Timestamp(curve.x[-1], unit="ms") == equity.index[-1]
            at = equity.index.get_indexer(pd.to_datetime(curve.x, unit="ms"))
            np.testing.assert_allclose(curve.y, equity.to_numpy()[at], rtol=1e-6)


MANY: list[dict[str, Any]] = [
    *(
        {"class": "sma_crossover", "parameters": {"fast": fast, "slow": slow}, "symbol": symbol, **settings}
        for symbol in ("AAPL", "IBM")
        for settings in ({}, {"commission": 0.001, "fill": "same_close"}, {"direction": "long_short", "lot_size": 10})
        for fast in (3, 8)
        for slow in (15, 40)
    ),
    {"class": "rsi_reversion", "parameters": {"period": 9, "lower": 30, "upper": 70.5}, "symbol": "IBM"},
    {"class": "rsi_reversion", "parameters": {"upper": 70, "period": 14, "lower": 35.0}, "symbol": "IBM"},
    {"class": OnTuesdays, "symbol": "AAPL"},
    {"class": "donchian_breakout", "parameters": {"entry": 12, "exit": 6}, "symbol": "AAPL", "periods_per_year": 365},
    {"class": "buy_and_hold", "symbol": "IBM"},
    {"class": "donchian_breakout", "parameters": {"entry": 20, "exit": 6}, "symbol": "AAPL"},
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"class": "sma_crossover", "parameters": {"fast": 5, "slow": 20}, "symbol": "IBN"}, "did you mean 'IBM'"),
    ({"class": "sma_crossover", "parameters": {"fast": 5, "slow": 20}}, "say which one with `symbol`"),
    ({"class": "sma_crossover", "parameters": {"fast": 0, "slow": 20}, "symbol": "IBM"}, "at least 1, but is 0"),
    ({"class": "sma_crossover", "parameters": {"fast": True, "slow": 20}, "symbol": "IBM"}, "but is True"),
    ({"class": "sma_crossover", "parameters": {"fast": 5.0, "slow": 20}, "symbol": "IBM"}, "but is 5.0"),
    ({"class": "sma_crossover", "parameters": {"fast": 5, "slow": 20}, "symbl": "IBM"}, "did you mean 'symbol'"),
    ({"class": "sma_crossover", "parameters": ["fast", "slow"], "symbol": "IBM"}, "`parameters` must be a mapping"),
    (
        {"class": "sma_crossover", "parameters": {"fast": 5, "slow": 20}, "symbol": "IBM", "lot_size": False},
        "lot_size must be a number, but is False",
    ),
    (
        {"class": "sma_crossover", "parameters": {"fast": 5, "slow": 20}, "symbol": "IBM", "commission": float("inf")},
        "commission must be a fraction .* but is inf",
    ),
    ({"class": "sma_crossover", "parameters": {"fast": 5, "slw": 20}, "symbol": "IBM"}, "did you mean 'slow'"),
    ({"class": "rsi_reversion", "parameters": {"period": 9, "lower": "x", "upper": 7}, "symbol": "IBM"}, "ValueError"),
]


def test_what_is_done_together_is_what_each_gives_alone(any_session: Session, data: FrameDataHandler) -> None:
    # Good ones, those that only events can run and wrong ones, in turn: each is what it would be by itself.
    chance = np.random.default_rng(5)
    configs = [*MANY, *(config for config, _ in WRONG)]
    order = chance.permutation(len(configs)).tolist()
    with pytest.warns(FailedItemsWarning, match=f"{len(WRONG)} of {len(configs)}"):
        results = run_parallel_backtests([configs[i] for i in order], data, session=any_session, progress=False)
    frame = results.frame
    for place, i in enumerate(order):
        if i >= len(MANY):
            assert re.search(WRONG[i - len(MANY)][1], frame.loc[place, "error"]), frame.loc[place, "error"]
            continue
        alone, result = run_event(configs[i], data), results[place]
        assert result.engine == ("event" if configs[i]["class"] is OnTuesdays else "compiled")
        assert (result.ruined, result.notes) == (alone.ruined, alone.notes)
        np.testing.assert_allclose(result.equity, alone.equity, rtol=1e-9)
        for metric, value in alone.metrics.items():
            assert result[metric] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)
            assert frame.loc[place, metric] == result[metric]
    assert (frame["seconds"] > 0).all()


def test_a_call_for_many_that_fails_leaves_it_to_each(
    inline_session: Session, data: FrameDataHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_parallel_backtests(MANY, data, session=inline_session, progress=False).frame
    calls = []

    def fails(configs: Any, *_: Any) -> Any:
        calls.append(len(configs))
        raise MemoryError("no room for so many")

    monkeypatch.setattr("admf_dask.backtests.work.run_together", fails)
    alone = run_parallel_backtests(MANY, data, session=inline_session, progress=False).frame
    assert max(calls) > 20
    pd.testing.assert_frame_equal(alone.drop(columns="seconds"), expected.drop(columns="seconds"), rtol=1e-12)


def test_a_timeout_is_for_one_backtest(
    inline_session: Session, data: FrameDataHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []

    def record(configs: Sequence[Any], *rest: Any) -> Any:
        together.append(len(configs))
        return run_together(configs, *rest)

    monkeypatch.setattr("admf_dask.backtests.work.run_together", record)
    timed = run_parallel_backtests(MANY, data, session=inline_session, timeout=60.0, progress=False)
    assert timed.failures.empty
    assert together == []
    run_parallel_backtests(MANY, data, session=inline_session, progress=False)
    assert max(together) > 20, "without a timeout they are done together"


def spoiled(change: str) -> pd.DataFrame:
    table = datasets.load_prices("FB").iloc[:60].copy()
    if change == "unsorted":
        return table.iloc[::-1]
    if change == "repeated":
        return table.iloc[[0, 1, 2, 2, *range(3, 60)]]
    if change == "no close":
        return table.drop(columns="close")
    table.loc[table.index[7], "open"] = {"NaN": np.nan, "zero": 0.0, "infinite": np.inf}[change]
    return table


BAD = {
    "unsorted": r"must be ascending without repeats, but row 1 \(.*\) follows",
    "repeated": r"must be ascending without repeats, but row 3 \(.*\) follows",
    "no close": "must have a column 'close'",
    "NaN": "'open' is nan in row 7",
    "zero": "'open' is 0.0 in row 7",
    "infinite": "'open' is inf in row 7",
}


@pytest.mark.parametrize("change", BAD)
def test_bars_that_cannot_be_are_named_through_every_face(
    change: str, inline_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = spoiled(change), datasets.load_prices("FB")
    with pytest.raises(DataError, match=f"XYZ: .*{BAD[change]}"):
        run_parallel_backtests(
            [{"class": "buy_and_hold", "symbol": "FB"}],
            {"FB": good, "XYZ": bad},
            session=inline_session,
            progress=False,
        )
    with pytest.raises(DataError, match=BAD[change]):
        backtest_objective("sma_crossover", bad)
    bad.to_csv(tmp_path / "x.csv", index_label="date")
    source: dict[str, Any] = {"file": str(tmp_path / "x.csv")}
    configs = {
        "data": {"XYZ": source},
        "configs": [{"class": "buy_and_hold", "symbol": "XYZ"}],
    }
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(configs))
    argv = [
        "backtest",
        str(tmp_path / "b.yaml"),
        "--quiet",
        "--mode",
        "thread",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "XYZ: " in said
    words = {
        "no close": r"x\.csv has no column 'close'",
        "unsorted": r"rows of x\.csv .* newest first: row 1 .*`sort: true`",
    }
    assert re.search(words.get(change, BAD[change]), said), said
    if change == "unsorted":
        source["sort"] = True
        (tmp_path / "b.yaml").write_text(yaml.safe_dump(configs))
        assert main(argv) == 0


def test_too_few_bars_for_a_window_is_a_backtest_that_never_trades(inline_session: Session) -> None:
    bars = datasets.load_prices("FB").iloc[:20]
    configs = [
        {"class": "sma_crossover", "parameters": {"fast": 10, "slow": 50}},
        {"class": "rsi_reversion", "parameters": {"period": 30, "lower": 30, "upper": 70}},
        {"class": "donchian_breakout", "parameters": {"entry": 40, "exit": 10}},
        {"class": "sma_crossover", "parameters": {"fast": 2, "slow": 4}},
    ]
    results = run_parallel_backtests(configs, bars, session=inline_session, progress=False)
    for result in list(results)[:3]:
        assert (result["n_fills"], result["final_equity"]) == (0, 1e6)
        assert "it never traded" in result.notes[0]
    assert results[3]["n_fills"] > 0
    assert not results[3].notes
