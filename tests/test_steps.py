"""The steps for symbols: what they find, what they compute, and what they refuse."""

from __future__ import annotations

import itertools
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import symbol_work as work
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask import DataError, ParallelDataProcessor, Session, TaskError
from admf_dask.datasets import load_prices
from admf_dask.functions import function_parts
from admf_dask.runtime import FailedItemsWarning
from admf_dask.steps import (
    FrameReader,
    adjust,
    align,
    clean,
    compose,
    inspect,
    resample,
    returns,
    rolling,
)

AAPL_SPLITS = pd.DataFrame({"date": ["2000-06-21", "2005-02-28"], "split": [2.0, 2.0]})


@pytest.fixture(scope="module")
def aapl() -> pd.DataFrame:
    return load_prices("AAPL")


def bars(close: list[float], start: str = "2024-01-01", freq: str = "B", **columns: Any) -> pd.DataFrame:
    index = pd.date_range(start, periods=len(close), freq=freq, name="date")
    frame = pd.DataFrame({"open": close, "high": close, "low": close, "close": close, "volume": 100}, index=index)
    return frame.assign(**columns)


def steady(count: int) -> list[float]:
    """Prices that go up and down without any pattern or outlier."""
    return [100 + 0.1 * (n**3 % 11) for n in range(count)]


def kinds(frame: pd.DataFrame, **options: Any) -> list[tuple[str, str | None, int]]:
    """Kind, column and row of each finding; -1 for a time that no row has."""
    found = inspect(clean(frame, **options)).findings
    rows = [int(np.argmax(frame.index == when)) if when in frame.index else -1 for when in found["when"]]
    columns = [None if pd.isna(column) else column for column in found["column"]]
    return list(zip(found["kind"], columns, rows, strict=True))


# Cleaning


def test_real_prices_have_their_holidays_and_jumps_reported_and_stay_as_they_are(aapl: pd.DataFrame) -> None:
    cleaned = clean(aapl)
    pd.testing.assert_frame_equal(cleaned, aapl)
    assert aapl.attrs == {}
    report = inspect(cleaned)
    jumps = report.findings[report.findings["kind"] == "jump"]
    # Two splits and the profit warning of September 2000.
    assert jumps["when"].dt.strftime("%Y-%m-%d").tolist() == ["2000-06-21", "2000-09-29", "2005-02-28"]
    assert jumps["value"].round(2).tolist() == [-0.45, -0.52, -0.5]
    weekdays = pd.bdate_range(aapl.index[0], aapl.index[-1])
    assert report.missing_bars == len(weekdays.difference(aapl.index)) > report.counts["gap"] > 100
    assert str(report) == "3,270 rows, 3,270 kept; 118 gaps and 3 jumps"
    assert not report.ok
    # Independent of the function: the days after 11 September 2001.
    september = report.findings[report.findings["when"] == "2001-09-11"]
    assert september[["kind", "value"]].to_numpy().tolist() == [["gap", 4.0]]


def test_clean_prices_are_clean() -> None:
    report = inspect(clean(bars(steady(50))))
    assert (report.ok, report.rows, report.kept, report.missing_bars) == (True, 50, 50, 0)
    assert str(report) == "50 rows, 50 kept; nothing wrong"
    assert set(report.counts.values()) == {0}


NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("close", NAN, ("not_a_number", "close", 7)),
        ("open", float("inf"), ("not_a_number", "open", 7)),
        ("low", 0.0, ("not_positive", "low", 7)),
        ("volume", -1, ("negative_volume", "volume", 7)),
        ("high", 50.0, ("high_below_low", "high", 7)),
        ("open", 103.0, ("outside_range", "open", 7)),
        ("close", 99.0, ("outside_range", "close", 7)),
    ],
)
def test_each_bad_tick_is_found_where_it_is_and_dropped_when_asked(
    column: str, value: float, expected: tuple[str, str, int]
) -> None:
    frame = bars(steady(20))
    frame[column] = frame[column].astype(float)
    frame.iloc[7, list(frame.columns).index(column)] = value
    assert expected in kinds(frame)
    assert len(clean(frame)) == 20
    dropped = clean(frame, bad_ticks="drop")
    pd.testing.assert_frame_equal(dropped, frame.drop(frame.index[7]))
    assert inspect(dropped).kept == 19
    with pytest.raises(DataError, match=f"the first is {expected[0]} at 2024-01-10"):
        clean(frame, bad_ticks="raise")


def test_a_spike_is_a_bad_tick_and_a_jump_that_stays_is_not() -> None:
    close = steady(30)
    spiky = [*close[:10], 1000.0, *close[11:]]
    assert kinds(bars(spiky)) == [("spike", "close", 10)]
    assert len(clean(bars(spiky), bad_ticks="drop")) == 29
    split = [*close[:10], *(price / 2 for price in close[10:])]
    assert kinds(bars(split)) == [("jump", "close", 10)]
    assert len(clean(bars(split), bad_ticks="drop")) == 30
    with pytest.raises(DataError, match=r"the first is jump at 2024-01-15 .*close -0.49"):
        clean(bars(split), jumps="raise")
    assert kinds(bars(split), deviations=1e6) == []
    assert kinds(bars([5.0] * 20 + [9.0] * 2)) == [], "no scale where half of all returns are the same"
    assert kinds(bars([1.01**n for n in range(40)])) == [], "rounding is none either"


def test_duplicates_and_disorder() -> None:
    frame = bars(steady(8))
    twice = pd.concat([frame, frame.iloc[[2]].assign(close=100.0)])
    assert ("duplicate", None, 2) in kinds(twice)
    assert inspect(clean(twice)).counts["unsorted"] == 1
    assert clean(twice, duplicates="keep_first").equals(frame)
    last = clean(twice, duplicates="keep_last", unsorted="sort")
    assert last.index.equals(frame.index)
    assert last["close"].iloc[2] == 100.0
    assert clean(twice, duplicates="drop").index.equals(frame.index.delete(2))
    for option, words in (("duplicates", "duplicate at 2024-01-03"), ("unsorted", "unsorted at 2024-01-03")):
        with pytest.raises(DataError, match=words):
            clean(twice, **{option: "raise"})


def test_of_two_rows_the_good_one_stays() -> None:
    frame = bars([100.0, 101.0, 102.0])
    bad = frame.iloc[[1]].assign(close=NAN)
    found = clean(pd.concat([frame.iloc[:1], bad, frame.iloc[1:]]), bad_ticks="drop", duplicates="keep_first")
    pd.testing.assert_frame_equal(found, frame, check_freq=False, check_dtype=False)


def test_gaps_within_a_day_at_weekends_and_between_weeks() -> None:
    minutes = bars(steady(390), "2024-03-04 09:30", "min")
    two_days = pd.concat([minutes, minutes.set_axis(minutes.index + pd.Timedelta(days=1))])
    assert inspect(clean(two_days)).counts["gap"] == 0, "the night is none"
    report = inspect(clean(two_days.drop(two_days.index[[5, 6, 7, 400]])))
    gaps = report.findings[report.findings["kind"] == "gap"]
    assert gaps["when"].tolist() == [two_days.index[5], two_days.index[400]]
    assert (gaps["value"].tolist(), report.missing_bars) == ([3.0, 1.0], 4)
    every_day = bars(steady(60), freq="D")
    assert kinds(every_day.drop(every_day.index[13])) == [("gap", None, -1)]
    weekly = bars(steady(60), freq="W-FRI")
    assert inspect(clean(weekly.drop(weekly.index[[20, 21]]))).missing_bars == 2
    monthly = bars(steady(60), freq="ME")
    assert inspect(clean(monthly)).ok
    with pytest.raises(DataError, match=r"the first is gap at .* \(2 missing\)"):
        clean(weekly.drop(weekly.index[[20, 21]]), gaps="raise")


def test_the_clock_that_is_changed_is_no_gap() -> None:
    for freq in ("h", "D"):
        times = pd.date_range("2024-03-01", "2024-04-10", freq=freq, tz="America/New_York")
        frame = pd.DataFrame({"close": steady(len(times))}, index=times)
        assert inspect(clean(frame)).counts["gap"] == 0
        gone = times[300 if freq == "h" else 20]
        report = inspect(clean(frame.drop(gone)))
        assert report.findings["when"].tolist() == [gone]


def test_findings_survive_parquet_steps_and_are_bounded(aapl: pd.DataFrame, tmp_path: Path) -> None:
    for frame in (aapl, aapl.tz_localize("America/New_York")):
        cleaned = clean(frame, most=2)
        json.dumps(cleaned.attrs, allow_nan=False)
        returns(rolling(cleaned, 5)).to_parquet(tmp_path / "a.parquet")
        before, after = inspect(cleaned), inspect(pd.read_parquet(tmp_path / "a.parquet"))
        pd.testing.assert_frame_equal(before.findings, after.findings)
        assert before.counts == after.counts
        assert (before.counts["gap"], len(before.findings)) == (118, 4)
    broken = aapl.copy()
    broken.attrs["cleaning"] = {"rows": 3}
    with pytest.raises(DataError, match="must be what clean"):
        inspect(broken)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_broken_is_found_and_nothing_else(data: st.DataObject) -> None:
    size = 40
    frame = bars(steady(size))
    frame["close"] = frame["close"].astype(float)
    broken = data.draw(st.sets(st.integers(1, size - 2), max_size=5))
    value = data.draw(st.sampled_from([NAN, 0.0, -3.0]))
    frame.iloc[sorted(broken), 3] = value
    order = data.draw(st.permutations(range(size)))
    shuffled = frame.iloc[list(order)]
    report = inspect(clean(shuffled))
    kind = "not_a_number" if np.isnan(value) else "not_positive"
    assert report.counts[kind] == len(broken)
    assert report.counts["unsorted"] == sum(b < a for a, b in itertools.pairwise(order))
    mended = clean(shuffled, bad_ticks="drop", unsorted="sort")
    pd.testing.assert_frame_equal(mended, frame.drop(frame.index[sorted(broken)]), check_freq=False)


# Bars


def test_a_week_is_made_of_its_days(aapl: pd.DataFrame) -> None:
    weekly = resample(aapl, "W-FRI")
    for end in weekly.index[[0, 100, 500]]:
        days = aapl.loc[end - pd.Timedelta(days=6) : end]
        expected = [
            days["open"].iloc[0],
            days["high"].max(),
            days["low"].min(),
            days["close"].iloc[-1],
            days["volume"].sum(),
        ]
        assert weekly.loc[end].tolist() == expected
    assert weekly["volume"].sum() == aapl["volume"].sum()
    assert weekly["volume"].dtype == "int64"
    # The last day of a month belongs to that month.
    assert resample(aapl, "ME").loc["2001-01-31", "close"] == aapl.loc["2001-01-31", "close"]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.sampled_from(["7min", "30min", "2h", "D", "W-FRI"]), st.integers(0, 9))
def test_longer_bars_keep_what_must_be_kept(count: int, rule: str, seed: int) -> None:
    chance = np.random.default_rng(seed)
    times = pd.DatetimeIndex(
        pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(chance.integers(0, 20000, count)), "min")
    )
    close = 100 + chance.standard_normal(count).cumsum() * 0.1
    frame = pd.DataFrame({"Open": close, "HIGH": close + 1, "low": close - 1, "Close": close, "Volume": 1}, index=times)
    longer = resample(frame, rule)
    assert longer["Volume"].sum() == count
    assert not longer.isna().any().any()
    assert longer["HIGH"].max() == frame["HIGH"].max()
    assert longer["low"].min() == frame["low"].min()
    assert (longer["Open"].iloc[0], longer["Close"].iloc[-1]) == (close[0], close[-1])
    assert list(longer.columns) == list(frame.columns)
    pd.testing.assert_frame_equal(resample(longer, rule), longer, check_freq=False)


def test_resample_takes_ways_edges_and_missing_values() -> None:
    minutes = bars([1.0, 2.0, 3.0, 4.0], "2024-03-04 09:30", "min", vwap=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(DataError, match=r"not 'vwap'; write aggregations=\{'vwap': 'last'\}"):
        resample(minutes, "2min")
    found = resample(minutes, "2min", aggregations={"VWAP": "mean", "close": "max"})
    assert found["vwap"].tolist() == [1.5, 3.5]
    right = resample(minutes[["close"]], "2min", label="right", closed="right")
    assert right["close"].tolist() == [1.0, 3.0, 4.0]
    assert right.index[0] == pd.Timestamp("2024-03-04 09:30")
    minutes["volume"] = [NAN, NAN, 5.0, NAN]
    assert resample(minutes[["volume"]], "2min")["volume"].fillna(-1).tolist() == [-1.0, 5.0]


# Splits and dividends


def test_the_table_of_the_source_is_reproduced() -> None:
    """The sample calculation of Yahoo Finance's page on the adjusted close (sln28256)."""
    days = pd.to_datetime(
        ["2003-02-16", "2003-02-17", "2003-02-18", "2003-02-19", "2003-02-20", "2003-02-21", "2003-02-22"]
    )
    frame = pd.DataFrame({"close": [46.99, 48.30, 24.96, 24.91, 24.95, 24.53, 24.54], "volume": 10}, index=days)
    actions = pd.DataFrame({"date": ["2003-02-18", "2003-02-21"], "split": [2.0, None], "dividend": [None, 0.08]})
    found = adjust(frame, actions)
    assert found["close"].round(2).tolist() == [23.42, 24.07, 24.88, 24.83, 24.87, 24.53, 24.54]
    assert found["volume"].tolist() == [20.0, 20.0, 10.0, 10.0, 10.0, 10.0, 10.0]


def test_real_splits_leave_no_jump(aapl: pd.DataFrame) -> None:
    adjusted = adjust(aapl, AAPL_SPLITS)
    jumps = inspect(clean(adjusted)).findings.query("kind == 'jump'")
    assert jumps["when"].dt.strftime("%Y-%m-%d").tolist() == ["2000-09-29"]
    assert adjusted.loc["2005-02-28":].equals(aapl.astype(float).loc["2005-02-28":])
    np.testing.assert_allclose(adjusted.loc[:"2000-06-20", "close"], aapl.loc[:"2000-06-20", "close"] / 4)
    np.testing.assert_allclose(adjusted.loc[:"2000-06-20", "volume"], aapl.loc[:"2000-06-20", "volume"] * 4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(5, 200), min_size=3, max_size=30),
    st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.0]),
    st.floats(0, 0.9),
    st.data(),
)
def test_an_adjusted_return_is_the_return_of_a_holder(
    close: list[float], ratio: float, part: float, data: st.DataObject
) -> None:
    """On the ex-date: whoever holds one share has `ratio` shares after, and the dividend on each is not a loss."""
    frame = bars(close)
    day = data.draw(st.integers(1, len(close) - 1))
    dividend = part * close[day - 1] / ratio
    actions = pd.DataFrame({"date": [frame.index[day]], "split": [ratio], "dividend": [dividend]})
    found = returns(adjust(frame, actions))["return_1"].to_numpy()
    expected = frame["close"].pct_change().to_numpy(copy=True)
    expected[day] = close[day] / (close[day - 1] / ratio - dividend) - 1
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_a_table_for_many_symbols_and_two_actions_on_one_day() -> None:
    frame = bars([10.0, 10.0, 10.0], "2024-01-01")
    table = pd.DataFrame({"symbol": ["A", "A", "B"], "date": ["2024-01-02"] * 3, "dividend": [1.0, 1.5, 5.0]})
    assert adjust(frame, table, symbol="A")["close"].tolist() == [7.5, 10.0, 10.0]
    assert adjust(frame, table, symbol="C")["close"].tolist() == [10.0, 10.0, 10.0]
    assert compose((adjust, {"actions": table}))("B", frame)["close"].tolist() == [5.0, 10.0, 10.0]
    with pytest.raises(DataError, match="must know which"):
        adjust(frame, table)
    zoned = frame.tz_localize("Asia/Tokyo")
    assert adjust(zoned, table, symbol="B")["close"].tolist() == [5.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ({"date": ["2024-01-02"], "split": [0.0]}, "ratio of a split must be positive, but on 2024-01-02 it is 0"),
        ({"date": ["2024-01-02"], "split": [-2.0]}, "must be positive"),
        ({"date": ["2024-01-02"], "dividend": [-1.0]}, "must not be negative"),
        ({"date": ["2024-01-02"], "dividend": [10.0]}, "below the close before it, but on 2024-01-02 it is 10"),
        ({"date": ["2024-01-02"], "split": [4.0], "dividend": [3.0]}, r"is 2.5 after the split 4:1"),
        ({"date": ["2023-01-02"], "split": [2.0]}, r"dates of the frame \(2024-01-01 to 2024-01-03\).*2023-01-02"),
        ({"date": ["2024-02-02"], "split": [2.0]}, 'write outside="ignore"'),
        ({"date": ["soon"], "split": [2.0]}, "must be dates or text such as"),
        ({"date": [20240102], "split": [2.0]}, "but are numbers"),
        ({"date": [None], "split": [2.0]}, "row 0 has none"),
        (
            {"date": ["2024-01-02"], "spilt": [2.0]},
            "must have a column 'split', but has date, spilt; did you mean 'spilt'",
        ),
        ({"day": ["2024-01-02"], "split": [2.0]}, "must have a column 'date'"),
    ],
)
def test_actions_that_cannot_be_are_refused(actions: dict[str, Any], words: str) -> None:
    frame = bars([10.0, 10.0, 10.0])
    with pytest.raises(DataError, match=words):
        adjust(frame, pd.DataFrame(actions))


def test_actions_outside_are_left_out_when_asked() -> None:
    frame = bars([10.0, 10.0, 10.0])
    actions = pd.DataFrame({"date": ["2023-01-02", "2024-01-02", "2025-01-02"], "split": [3.0, 2.0, 3.0]})
    assert adjust(frame, actions, outside="ignore")["close"].tolist() == [5.0, 10.0, 10.0]
    assert adjust(frame, actions.iloc[:0])["close"].tolist() == [10.0] * 3


# Features


def test_returns_are_those_of_pandas_and_nothing_is_filled(aapl: pd.DataFrame) -> None:
    found = returns(returns(aapl, "log"), periods=5)
    np.testing.assert_allclose(found["log_return_1"], np.log(aapl["close"]).diff(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["return_5"], aapl["close"].pct_change(5))
    assert found["return_5"].isna().sum() == 5
    gap = returns(bars([1.0, NAN, 4.0, 5.0]))["return_1"]
    assert gap.isna().tolist() == [True, True, True, False]
    assert returns(bars([1.0, 2.0]), periods=5)["return_5"].isna().all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=60), st.integers(2, 12))
def test_rolling_figures_look_only_at_their_window(values: list[float], window: int) -> None:
    frame = bars(values)
    found = rolling(frame, window)
    for row in range(len(values)):
        part = np.array(values[max(0, row + 1 - window) : row + 1])
        line = found.iloc[row]
        if len(part) < window:
            assert line[[f"{name}_{window}" for name in ("mean", "std", "min", "max", "zscore")]].isna().all()
            continue
        assert line[f"min_{window}"] == part.min()
        assert line[f"max_{window}"] == part.max()
        assert line[f"mean_{window}"] == pytest.approx(part.mean(), rel=1e-9)
        assert line[f"std_{window}"] == pytest.approx(part.std(ddof=1), rel=1e-3, abs=max(values) * 1e-6)
    until = rolling(frame.iloc[:-1], window)
    pd.testing.assert_frame_equal(until, found.iloc[: len(until)], check_freq=False)


def test_rolling_names_windows_and_second_columns(aapl: pd.DataFrame) -> None:
    found = rolling(rolling(aapl, [20, 50], "mean"), 20, ["zscore"], column="Volume", prefix="volume_")
    assert list(found.columns[5:]) == ["mean_20", "mean_50", "volume_zscore_20"]
    volume = aapl["volume"].tail(20)
    assert found["volume_zscore_20"].iloc[-1] == pytest.approx((volume.iloc[-1] - volume.mean()) / volume.std())
    assert rolling(bars([3.0] * 5), 3)["zscore_3"].isna().all()


# Calendars


SESSIONS = pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05", "2024-01-08"])


def test_bars_are_put_on_sessions_and_what_is_missing_is_told() -> None:
    frame = bars([10.0, 11.0, 12.0, 13.0, 14.0], flag=[1.0, 2.0, 3.0, 4.0, 5.0]).drop(pd.Timestamp("2024-01-03"))
    found = align(frame, SESSIONS)
    assert found["close"].fillna(-1).tolist() == [10.0, 11.0, -1.0, 14.0]
    assert found.index.equals(SESSIONS[:4])
    assert found.index.name == "date"
    told = {"calendar": None, "fill": None, "sessions": 4, "missing": ["2024-01-03"], "extra": ["2024-01-04"]}
    assert found.attrs["alignment"] == told
    filled = align(frame.assign(high=20.0), SESSIONS, fill="ffill")
    assert filled.loc["2024-01-03"].tolist() == [11.0, 11.0, 11.0, 11.0, 0.0, 2.0]
    assert filled.loc["2024-01-02", "high"] == 20.0


def test_a_fill_leaves_what_was_missing_in_a_bar() -> None:
    frame = bars([10.0, NAN, 12.0]).drop(pd.Timestamp("2024-01-03"))
    frame = pd.concat([frame, bars([13.0], "2024-01-05")])
    found = align(frame, SESSIONS, fill="ffill")
    assert found["close"].fillna(-1).tolist() == [10.0, -1.0, 10.0, 13.0]


def test_zoned_bars_keep_their_zone() -> None:
    frame = bars([10.0, 11.0, 12.0]).tz_localize("America/New_York")
    assert align(frame, SESSIONS).index.equals(SESSIONS[:3].tz_localize("America/New_York"))


@pytest.mark.filterwarnings("ignore:Series.values returning")  # of exchange_calendars itself
def test_real_prices_are_on_the_sessions_of_their_exchange(aapl: pd.DataFrame) -> None:
    pytest.importorskip("exchange_calendars")
    found = align(aapl, "XNYS")
    pd.testing.assert_frame_equal(found, aapl)
    assert found.attrs["alignment"] == {"calendar": "XNYS", "fill": None, "sessions": 3270, "missing": [], "extra": []}
    one = align(aapl.iloc[[5]], "XNYS")
    assert len(one) == 1
    with pytest.raises(DataError, match="'XNYSE'; did you mean 'XNYS'"):
        align(aapl, "XNYSE")
    with pytest.raises(DataError, match="calendar XKRX cannot tell 1940-01-01"):
        align(bars([1.0, 2.0], "1940-01-01"), "XKRX")


def test_without_the_extra_the_install_line_is_the_answer(aapl: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(DataError, match=r'type: pip install "admf-dask\[calendars\]"'):
        align(aapl, "XNYS")


# What all refuse


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (
            lambda f: clean(f.reset_index()),
            DataError,
            r"clean needs times in the index.*but has RangeIndex.*FrameReader",
        ),
        (lambda f: clean(f[["volume"]]), DataError, "must have a column 'close', but has volume"),
        (lambda f: clean(f.assign(close="x")), DataError, r"must hold numbers, but has 'x' in row 0 \(2024-01-01"),
        (lambda f: clean(f, duplicates="keep"), ValueError, "duplicates must be one of .*; did you mean 'keep_"),
        (lambda f: clean(f, deviations=0), ValueError, "deviations must be positive"),
        (lambda f: resample(f.iloc[::-1], "D"), DataError, 'row 1 .* follows .*unsorted="sort"'),
        (lambda f: resample(f, "fortnight"), ValueError, "rule must be a frequency such as"),
        (lambda f: resample(f, "D", aggregations={"vwapp": "last"}), DataError, "must have a column 'vwapp'"),
        (lambda f: resample(f, "D", closed="middle"), ValueError, "closed must be one of"),
        (lambda f: returns(f, kind="ratio"), ValueError, "kind must be one of 'simple', 'log'"),
        (lambda f: returns(f, periods=0), ValueError, "at least 1, but is 0"),
        (lambda f: returns(f, periods=1.5), ValueError, "whole number of rows"),
        (lambda f: returns(f, column="clsoe"), DataError, "must have a column 'clsoe', but has .*did you mean 'close'"),
        (lambda f: returns(f.assign(close=[1.0, 0.0, 2.0])), DataError, r"'close' is 0 in row 1 \(2024-01-02"),
        (lambda f: returns(returns(f)), DataError, "has 'return_1' already"),
        (lambda f: rolling(f, 1), ValueError, "a window must be a whole number of rows, at least 2, but is 1"),
        (lambda f: rolling(f, []), ValueError, "at least one window"),
        (lambda f: rolling(f, 2, ["median"]), ValueError, "a feature must be one of"),
        (lambda f: rolling(f.rename(columns={"open": "Close"}), 2, column="CLOSE"), DataError, "must be there once"),
        (lambda f: adjust(f, [1]), TypeError, "takes a DataFrame"),
        (lambda f: align(f, SESSIONS[1:]), DataError, "must reach from 2024-01-01 to 2024-01-03"),
        (lambda f: align(f, pd.DatetimeIndex([])), DataError, "but are none"),
        (lambda f: align(f.iloc[:0], SESSIONS), DataError, "no rows"),
        (lambda f: align(f, SESSIONS, fill="zero"), ValueError, "fill must be one of"),
        (
            lambda f: align(f.set_axis(f.index + pd.Timedelta("16h")), SESSIONS),
            DataError,
            "row 0 is at 2024-01-01 16:00",
        ),
        (lambda f: align(pd.concat([f, f]).sort_index(), SESSIONS), DataError, "row 1 repeats 2024-01-01"),
        (lambda f: clean("AAPL", f), TypeError, "takes 1 positional"),
        (lambda f: returns("AAPL", "log"), TypeError, r"write compose\(returns\), or \[returns\]"),
    ],
)
def test_misuse_is_answered_with_what_to_type(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call(bars([10.0, 11.0, 12.0]))


def test_steps_leave_the_given_frame_alone(aapl: pd.DataFrame) -> None:
    before = aapl.copy(deep=True)
    for step in (
        clean,
        returns,
        lambda f: rolling(f, 5),
        lambda f: resample(f, "ME"),
        lambda f: adjust(f, AAPL_SPLITS),
    ):
        step(aapl)
    align(aapl, aapl.index, fill="ffill")
    pd.testing.assert_frame_equal(aapl, before)
    assert aapl.attrs == {}


# Composition


PIPELINE = compose(
    (clean, {"duplicates": "keep_last"}),
    (resample, {"rule": "W-FRI"}),
    returns,
    (rolling, {"windows": [4, 13]}),
    work.double,
)


def test_composed_steps_are_the_steps_and_can_be_pickled(aapl: pd.DataFrame) -> None:
    by_hand = work.double("AAPL", rolling(returns(resample(clean(aapl, duplicates="keep_last"), "W-FRI")), [4, 13]))
    pd.testing.assert_frame_equal(PIPELINE("AAPL", aapl), by_hand)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(PIPELINE))("AAPL", aapl), by_hand)
    assert PIPELINE.__name__ == "clean+resample+returns+rolling+double"


def test_options_go_to_the_steps_that_have_them() -> None:
    frame = bars([1.0, 2.0, 4.0], open=[1.0, 3.0, 9.0])
    both = compose(returns, (rolling, {"features": "max", "column": "close"}))
    found = both("A", frame, column="open", windows=2)
    assert found["return_1"].tolist()[1:] == [2.0, 2.0]
    assert found["max_2"].tolist()[1:] == [2.0, 4.0], "what is given with a step holds"
    with pytest.raises(TypeError, match="no step has an option 'window'; did you mean 'windows'"):
        both("A", frame, window=2)


def test_a_function_is_called_with_symbol_where_it_asks_for_it() -> None:
    frame = bars([1.0])

    def of_symbol(symbol: str, frame: Any = None) -> Any:
        return symbol, frame

    def of_two(name: str, table: Any, *, more: int = 0) -> Any:
        return name, table

    def of_table(table: Any, window: int = 3) -> Any:
        return table, window

    def of_any(*given: Any, **options: Any) -> Any:
        return given

    for function in (of_symbol, of_two, of_any):
        assert compose(function)("A", frame) == ("A", frame)
        assert compose(compose(function))("A", frame) == ("A", frame)
    assert compose(of_table)("A", frame, window=5) == (frame, 5)
    assert compose(work.length, lambda symbol, size: size + 1)("AAPL") == 5


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((), "at least one step"),
        (("clean",), r"step 1 is 'clean' \(str\); write resample, or \(resample, "),
        ((clean, (rolling, [20])), "step 2 is"),
        (((rolling, {"window": 20}),), "step 1, rolling, has no option 'window'; did you mean 'windows'"),
        ((lambda *, a: a,), "has no place for one"),
    ],
)
def test_what_is_no_step_is_refused_at_once(steps: tuple[Any, ...], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        compose(*steps)


def test_an_error_says_in_which_step_it_was() -> None:
    pipeline = compose(clean, (rolling, {"windows": [20], "column": "clsoe"}))
    with pytest.raises(DataError, match="did you mean 'close'") as caught:
        pipeline("AAPL", bars([1.0, 2.0]))
    assert caught.value.__notes__ == ["in step 2 of 2 for AAPL: rolling(windows=[20], column='clsoe')"]
    with pytest.raises(TaskError, match="returned None") as forgot:
        compose(lambda frame: None, clean)("AAPL", bars([1.0]))
    assert "step 1 of 2" in forgot.value.__notes__[0]


def test_a_journal_knows_a_pipeline_by_its_steps_their_order_and_options() -> None:
    def f(frame: Any) -> Any:
        return frame * 2

    def same(frame: Any) -> Any:
        return frame * 2

    one, other = (lambda frame: frame + 1), (lambda frame: frame + 2)
    different = [
        compose(clean, returns),
        compose(returns, clean),
        compose(clean, (returns, {"kind": "log"})),
        compose(clean, (returns, {"periods": 2})),
        compose(clean),
        compose(clean, returns, returns),
        compose(f, f),
        compose(f),
        compose(f, same),
        compose(one, other),
        compose(other, one),
        compose(one, one),
        compose(one, other, one),
        compose(one, other, other),
        compose(clean, (resample, {"rule": "D", "aggregations": {"x": one}})),
        compose(clean, (resample, {"rule": "D", "aggregations": {"x": other}})),
    ]
    told = [json.dumps(function_parts(each), sort_keys=True) for each in different]
    assert len(set(told)) == len(told)
    assert function_parts(compose(clean, (returns, {"kind": "log"}))) == function_parts(different[2])
    names = function_parts(different[2])
    assert "option 'kind' of step 2, returns" in names
    assert "the source of bar_columns" in names, "what a step calls is followed"


# Through the processor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Prices as a vendor delivers them: other names, dates of another form, a repeated row."""
    found = tmp_path / "prices"
    found.mkdir()
    for symbol in ("AAPL", "IBM", "MSFT"):
        table = load_prices(symbol).iloc[-400:]
        table = pd.concat([table, table.iloc[[-1]]]).rename(columns=str.title).rename_axis("Day")
        table.to_csv(found / f"{symbol}.csv", sep=";", date_format="%d.%m.%Y")
    return found


READER = FrameReader(date_column="Day", date_format="%d.%m.%Y", separator=";")
STEPS = [(clean, {"duplicates": "keep_last"}), (resample, {"rule": "W-FRI"}), (returns, {"kind": "log"})]


def test_from_files_of_a_vendor_to_features(process_session: Session, folder: Path, tmp_path: Path) -> None:
    processor = ParallelDataProcessor(session=process_session)
    results = processor.process_symbols(None, STEPS, data=folder, reader=READER, out=tmp_path / "out", progress=False)
    assert list(results) == ["AAPL", "IBM", "MSFT"]
    for symbol in results:
        expected = returns(resample(load_prices(symbol).iloc[-400:], "W-FRI"), "log")
        found = results[symbol]
        np.testing.assert_allclose(found["log_return_1"], expected["log_return_1"], rtol=1e-12)
        assert (found.index == expected.index).all()
        report = inspect(found)
        assert (report.rows, report.kept, report.counts["duplicate"]) == (401, 400, 1)
    pipeline = compose(*STEPS)
    again = processor.process_symbols(["IBM"], pipeline, data=folder, reader=READER, progress=False)
    pd.testing.assert_frame_equal(again["IBM"], results["IBM"], check_freq=False)
    bag = dict(processor.to_bag(["IBM"], STEPS, data=folder, reader=READER).compute(scheduler="sync"))
    pd.testing.assert_frame_equal(bag["IBM"], again["IBM"])


def test_other_options_steps_and_readers_are_done_again_and_the_same_are_not(
    inline_session: Session, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("ADMF_DASK_TEST_MARKS", str(marks))
    processor = ParallelDataProcessor(session=inline_session)

    def calls(steps: list[Any], reader: FrameReader = READER) -> int:
        processor.process_symbols(["IBM"], steps, data=folder, reader=reader, out=tmp_path / "out", progress=False)
        return (marks / "IBM").stat().st_size

    lower = FrameReader(
        columns={"close": "Close"}, date_column="Day", date_format="%d.%m.%Y", separator=";", timezone="UTC"
    )
    keep, drop = (clean, {"duplicates": "keep_last"}), (clean, {"duplicates": "drop"})
    features = (work.features, {"window": 2})
    rename = FrameReader(columns={"close": "Close"}, date_column="Day", date_format="%d.%m.%Y", separator=";")
    assert calls([keep, features], rename) == 1
    assert calls([keep, features], rename) == 1
    assert calls([drop, features], rename) == 2
    assert calls([drop, features, returns], rename) == 3
    assert calls([drop, features, returns], rename) == 3
    assert calls([drop, features, returns], lower) == 4


def test_a_step_alone_and_a_pair_work_too(inline_session: Session, folder: Path) -> None:
    processor = ParallelDataProcessor(session=inline_session)
    for function in (returns, (returns, {"periods": 1}), [returns]):
        results = processor.process_symbols(["IBM"], function, data=folder, reader=READER, progress=False)
        assert "return_1" in results["IBM"].columns


def test_failures_name_file_row_and_step(inline_session: Session, folder: Path) -> None:
    (folder / "BAD.csv").write_text("Day;Close\n01.02.2013;5\n2013-02-02;6\n")
    (folder / "ZERO.csv").write_text("Day;Close\n01.02.2013;5\n02.02.2013;0\n")
    processor = ParallelDataProcessor(session=inline_session)
    with pytest.warns(FailedItemsWarning, match="2 of 5"):
        results = processor.process_symbols(None, [clean, returns], data=folder, reader=READER, progress=False)
    failures = results.failures
    assert "BAD.csv has an unreadable date in row 1: '2013-02-02'" in failures.loc["BAD", "message"]
    assert "in step 2 of 2 for ZERO: returns()" in failures.loc["ZERO", "traceback"]


def test_a_reader_without_files_is_refused(inline_session: Session) -> None:
    processor = ParallelDataProcessor(session=inline_session)
    for data in (None, {"A": bars([1.0])}):
        with pytest.raises(DataError, match="a reader reads files"):
            processor.process_symbols(["A"], [clean], data=data, reader=READER)
    wrong: Any = "Day"
    with pytest.raises(TypeError, match="reader must be a FrameReader"):
        processor.process_symbols(["A"], [clean], data=".", reader=wrong)
