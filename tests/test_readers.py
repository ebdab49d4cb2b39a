"""Price files of every kind become the same frame; what cannot be read is named by file, row and value."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask import DataError
from admf_dask.cli import main
from admf_dask.datasets import load_prices
from admf_dask.steps import FrameReader, find_symbols, read_symbols
from admf_dask.steps.parquet import read_frame, write_table


@pytest.fixture(scope="module")
def aapl() -> pd.DataFrame:
    return load_prices("AAPL").tail(50)


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, wanted, check_index_type=False, check_freq=False)
    assert isinstance(found.index, pd.DatetimeIndex)


# What is read


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.pq"])
@pytest.mark.parametrize("as_index", [True, False])
def test_a_file_of_any_kind_is_the_frame_that_was_written(
    aapl: pd.DataFrame, tmp_path: Path, name: str, as_index: bool
) -> None:
    table = aapl if as_index else aapl.reset_index()
    if ".csv" in name:
        table.to_csv(tmp_path / name, index=as_index)
    else:
        table.to_parquet(tmp_path / name)
    same(FrameReader().read(tmp_path / name), aapl)
    same(FrameReader(date_column="date").read(tmp_path / name), aapl)
    found = FrameReader(columns={"price": "close"}, timezone="America/New_York").read(str(tmp_path / name))
    same(found, aapl.rename(columns={"close": "price"}).tz_localize("America/New_York"))


@pytest.mark.parametrize(
    ("texts", "date_format", "wanted"),
    [
        (["2013-03-01", "2013-03-04 16:00"], None, ["2013-03-01", "2013-03-04 16:00"]),
        (["20130301", "20130304"], None, ["2013-03-01", "2013-03-04"]),
        (["01032013", "04032013"], "%d%m%Y", ["2013-03-01", "2013-03-04"]),
        (["03/01/13", " 03/04/13"], "%m/%d/%y", ["2013-03-01", "2013-03-04"]),
        (["1362096000", "1362355200"], "s", ["2013-03-01", "2013-03-04"]),
        (["1362096000500", "1362355200000"], "ms", ["2013-03-01 00:00:00.5", "2013-03-04"]),
    ],
)
def test_dates_have_many_forms_and_one_meaning(
    tmp_path: Path, texts: list[str], date_format: str | None, wanted: list[str]
) -> None:
    (tmp_path / "a.csv").write_text("date,close\n" + "".join(f"{text},1\n" for text in texts))
    found = FrameReader(date_format=date_format).read(tmp_path / "a.csv")
    assert found.index.tolist() == [pd.Timestamp(text) for text in wanted]
    numbers = pd.DataFrame({"close": [1, 1], "Timestamp": texts})
    numbers.to_parquet(tmp_path / "a.parquet")
    assert FrameReader(date_format=date_format).read(tmp_path / "a.parquet").index.tolist() == found.index.tolist()


def test_offsets_and_timezones(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,close\n2024-03-08T09:30:00-05:00,1\n2024-03-11T09:30:00-04:00,2\n")
    found = FrameReader(timezone="America/New_York").read(path)
    assert found.index.tolist() == [pd.Timestamp(f"2024-03-{day} 09:30", tz="America/New_York") for day in ("08", "11")]
    with pytest.raises(DataError, match=r"several offsets; write FrameReader\(timezone="):
        FrameReader().read(path)
    path.write_text("time,close\n2024-03-08T09:30:00Z,1\n")
    assert FrameReader(timezone="Asia/Tokyo").read(path).index[0] == pd.Timestamp("2024-03-08 18:30", tz="Asia/Tokyo")
    path.write_text("time,close\n2024-03-08T09:30:00Z,1\n2024-03-11T09:30:00,2\n")
    with pytest.raises(DataError, match="an offset and others without one, such as '2024-03-11T09:30:00'"):
        FrameReader(timezone="UTC").read(path)
    path.write_text("time,close\n8.3.2024 09:30 -0500,1\n11.3.2024 09:30 -0400,2\n")
    written = FrameReader(timezone="America/New_York", date_format="%d.%m.%Y %H:%M %z").read(path)
    assert written.index.equals(found.index)
    path.write_text("time,close\n08-03-2024,1\n11-03-2023,2\n")
    assert FrameReader(date_format="%d-%m-%Y").read(path).index.tz is None
    path.write_text("time,close\n2024-03-08 09:30-05,1\n")
    assert FrameReader().read(path).index[0] == found.index[0]
    for hour in ("2024-03-10 02:30", "2024-11-03 01:30"):
        path.write_text(f"time,close\n2024-03-08 09:30,1\n{hour},2\n")
        with pytest.raises(DataError, match=f"row 1: '{hour}' is at no or at two times in America/New_York"):
            FrameReader(timezone="America/New_York").read(path)


def _frames() -> dict[str, Any]:
    """Name -> a frame, or what is to be written with Arrow alone."""
    times = pd.date_range("2024-01-02 09:30", periods=4, freq="min", name="date")
    numbers = pd.DataFrame({"close": [1.5, None, 3.0, -0.0], "volume": [1, 2, 3, 2**62]}, index=times)
    return {
        "numbers": numbers,
        "small numbers": numbers.astype({"close": "float32", "volume": "float64"}).assign(up=[True, False, True, True]),
        "ranges": numbers.reset_index(),
        "a range": pd.DataFrame({"close": [1.0, 2.0]}, index=pd.RangeIndex(4, 8, 2)),
        "numbered columns": pd.DataFrame([[1.0, 2.0]]),
        "two levels": numbers.reset_index().set_index(["date", "volume"]),
        "times of several units": numbers.assign(s=times.as_unit("s"), ms=times.as_unit("ms"), ns=times.as_unit("ns")),
        "no time": numbers.assign(at=[times[0], pd.NaT, times[1], times[2]]),
        "with nothing in numbers": pd.DataFrame(
            {"n": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}
        ),
        "a timezone": numbers.tz_localize("America/New_York"),
        "text": numbers.assign(exchange=["N", None, "Q", "Q"]),
        "categories": numbers.assign(exchange=pd.Categorical(["N", None, "Q", "Q"])),
        "dates and durations": numbers.assign(day=times.date, took=times - times[0]),
        "nothing": numbers.assign(nothing=None),
        "no rows": numbers.iloc[:0],
        "no columns": numbers[[]],
    }


@pytest.mark.parametrize("name", list(_frames()))
def test_parquet_is_read_as_pandas_reads_it(tmp_path: Path, name: str) -> None:
    frame = _frames()[name]
    frame.attrs = {"source": "a vendor"}
    frame.to_parquet(tmp_path / "a.parquet")
    wanted, found = pd.read_parquet(tmp_path / "a.parquet"), read_frame(str(tmp_path / "a.parquet"))
    pd.testing.assert_frame_equal(found, wanted, check_freq=True, check_index_type="exact", check_column_type="exact")
    assert found.attrs == wanted.attrs
    if len(found) and "close" in found:
        found.iloc[0, found.columns.get_loc("close")] = 7.0


def test_plain_parquet_of_others_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int32()),
            "ok": pa.array([True, None, False]),
            "u": pa.array([1, 2, 3], pa.uint8()),
        }
    )
    path = tmp_path / "year=2024" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(table, path, row_group_size=2)
    pd.testing.assert_frame_equal(read_frame(str(path)), pd.read_parquet(path), check_column_type="exact")


def test_only_columns_that_repeat_are_written_by_a_dictionary(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "feature": chance.normal(size=10_000),
            "price": chance.integers(9_000, 10_000, 10_000) / 100,
            "volume": chance.integers(0, 10, 10_000),
            "exchange": chance.choice(["N", "Q"], 10_000),
            "a.b": chance.normal(size=10_000),
            "at": pd.date_range("2024-01-02", periods=10_000, freq="min"),
        }
    )
    path = str(tmp_path / "a.parquet")
    for table, by_dictionary in ((frame, ["price", "volume", "exchange"]), (frame[:250], ["exchange"])):
        write_table(pa.Table.from_pandas(table), path)
        columns = pq.read_metadata(path).row_group(0)
        facts = [columns.column(place) for place in range(columns.num_columns)]
        assert [fact.path_in_schema for fact in facts if fact.has_dictionary_page] == by_dictionary
        pd.testing.assert_frame_equal(pd.read_parquet(path), table)


def test_plain_parquet_does_without_the_machinery_of_data_sets(tmp_path: Path) -> None:
    _frames()["numbers"].to_parquet(tmp_path / "a.parquet")
    script = (
        "import sys; from admf_dask.steps.parquet import read_frame; read_frame(sys.argv[1]); "
        "assert 'pyarrow.dataset' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.parquet")], check=True, timeout=60)


def test_memory_that_arrow_keeps_is_given_back_after_a_large_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    pool, released = pa.default_memory_pool(), []

    class Pool:
        def release_unused(self) -> None:
            pool.release_unused()
            released.append(True)

    monkeypatch.setattr(pa, "default_memory_pool", Pool)
    for rows, times in ((1_000, 0), (200_000, 1)):
        path = tmp_path / "a.parquet"
        pd.DataFrame({"close": np.arange(rows) / 7}).to_parquet(path)
        assert len(read_frame(str(path))) == rows
        assert len(released) == times


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=3))
def test_order_and_repeats_stay_as_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], again: list[int]
) -> None:
    rows = [*order, *again]
    frame = load_prices("IBM").head(8).iloc[rows]
    folder = tmp_path_factory.mktemp("order")
    frame.to_csv(folder / "a.csv")
    frame.to_parquet(folder / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        same(FrameReader().read(folder / name), frame)


def test_a_reader_is_a_value() -> None:
    reader = FrameReader(columns={"close": "Adj Close"}, date_column="Day", timezone="UTC")
    assert pickle.loads(pickle.dumps(reader)) == reader != FrameReader()
    assert eval(repr(reader), {"FrameReader": FrameReader}) == reader


# What is refused

GOOD = "date,close\n2013-03-01,1\n2013-03-04,2\n"


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", {}, "^a.csv is empty"),
        ("date,close\n", {}, "^a.csv has no rows"),
        ("when,close\n1,2\n", {}, r"no column of dates, only 'when' and 'close'; write FrameReader\(date_column="),
        ("date;close\n1;2\n", {}, r"write FrameReader\(date_column=...\) and FrameReader\(separator=';'\)"),
        ("date,time,close\n1,2,3\n", {}, "may be dated by 'date' or 'time'"),
        (GOOD, {"date_column": "dat"}, "has no column 'dat', only 'date' and 'close'; did you mean 'date'"),
        (GOOD, {"columns": {"price": "closed"}}, "has no column 'closed'.*did you mean 'close'"),
        ("date,Close,Adj\n2013-03-01,1,2\n", {"columns": {"close": "Adj"}}, "has a column 'Close' beside 'Adj'"),
        (
            GOOD + "03/05/2013,3\n",
            {},
            "unreadable date in row 2: '03/05/2013' is no date in ISO 8601; write date_format=",
        ),
        (GOOD + ",3\n", {}, "unreadable date in row 2"),
        (GOOD + "2013-02-30,3\n", {}, "row 2: '2013-02-30'"),
        (GOOD, {"date_format": "%d.%m.%Y"}, "row 0: '2013-03-01' is no date like %d.%m.%Y"),
        (GOOD, {"date_format": "s"}, "row 0: '2013-03-01'"),
        ('date,close\n"2013', {}, "cannot be read as CSV"),
        ("date,close\n2013-03-01,1,2,3\n2013-03-01,1,2,3,4\n", {}, "cannot be read as CSV: ParserError"),
    ],
)
def test_a_wrong_csv_is_named_with_row_and_value(
    tmp_path: Path, content: str, options: dict[str, Any], words: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        FrameReader(**options).read(tmp_path / "a.csv")


def test_missing_broken_and_foreign_files(tmp_path: Path, aapl: pd.DataFrame) -> None:
    aapl.to_parquet(tmp_path / "AAPL.parquet")
    whole = (tmp_path / "AAPL.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.parquet").write_bytes(b"")
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress(GOOD.encode() * 100)[:-20])
    (tmp_path / "text.csv.gz").write_text(GOOD)
    (tmp_path / "bytes.csv").write_bytes(b"date,close\n2013-03-01,\xff\xfe\n")
    (tmp_path / "AAPL.xlsx").write_bytes(b"")
    aapl.iloc[:0].to_parquet(tmp_path / "rows.parquet")
    aapl.reset_index(drop=True).to_parquet(tmp_path / "dates.parquet")
    for name, words in (
        ("APL.parquet", r"^APL.parquet is not in .*; did you mean 'AAPL.parquet'"),
        ("half.parquet", "^half.parquet cannot be read as Parquet: Arrow"),
        ("none.parquet", "cannot be read as Parquet"),
        ("half.csv.gz", "cannot be read as CSV: EOFError"),
        ("text.csv.gz", "cannot be read as CSV: BadGzipFile"),
        ("bytes.csv", "cannot be read as CSV: UnicodeDecodeError"),
        ("AAPL.xlsx", "is no price file; its name must end in .parquet, .pq, .csv or .csv.gz"),
        ("rows.parquet", "has no rows"),
        ("dates.parquet", "has no column of dates, only 'open', "),
    ):
        with pytest.raises(DataError, match=words):
            FrameReader().read(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"separator": ""}, "one character"),
        ({"timezone": "New York"}, "such as 'America/New_York', but is 'New York'"),
        ({"columns": ["close"]}, "mapping new name -> name in the file"),
        ({"columns": {"a": "x", "b": "x"}}, "'x' has several"),
    ],
)
def test_options_that_fit_no_file_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FrameReader(**options)


# Which symbols there are


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_symbols_are_found_in_folders_and_by_patterns(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("B.csv", "A.parquet", "A.csv", "BRK.B.csv.gz", "C.pq", ".D.csv", "notes.txt")))
    (tmp_path / "E.csv").mkdir()
    found = find_symbols(tmp_path)
    assert {symbol: Path(path).name for symbol, path in found.items()} == {
        "A": "A.parquet", "B": "B.csv", "BRK.B": "BRK.B.csv.gz", "C": "C.pq",
    }  # fmt: skip
    assert list(find_symbols(f"{tmp_path}/{{symbol}}.csv")) == ["A", "B"]
    touch(tmp_path / "deep/A/daily.csv", tmp_path / "deep/B/daily.csv", tmp_path / "deep/C/hourly.csv")
    assert find_symbols(tmp_path / "deep/{symbol}/daily.csv") == {
        name: str(tmp_path / f"deep/{name}/daily.csv") for name in "AB"
    }
    touch(tmp_path / "twice/A/A_day.csv", tmp_path / "twice/B/A_day.csv", tmp_path / "day_A+B.csv")
    assert list(find_symbols(tmp_path / "twice/{symbol}/{symbol}_day.csv")) == ["A"]
    touch(tmp_path / "open/A/A.pq", tmp_path / "open/B/A.csv", tmp_path / "open/C/C.csv.gz")
    assert list(find_symbols(tmp_path / "open/{symbol}/{symbol}")) == ["A", "C"]
    assert list(find_symbols(tmp_path / "day_{symbol}.csv")) == ["A+B"]


def test_no_symbols_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    for given_path, words in (
        (tmp_path, r"no file of any symbol .* \{symbol\} \(.parquet, .pq, .csv, .csv.gz\)"),
        (tmp_path / "{symbol}.csv", r"none is like \{symbol\}.csv$"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "none/{symbol}.csv", "cannot be listed"),
    ):
        with pytest.raises(DataError, match=words):
            find_symbols(given_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\ufeffAAA\n# comment\n\nNA  # a ticker\nTRUE\nC#\n"),
        ("a.csv", "Symbol,weight\nAAA,1\nNA,2\nTRUE,3\n\nC#,4\n"),
        ("a.json", '["AAA", "NA", "TRUE", "C#"]'),
        ("b.json", '{"symbols": ["AAA", "NA", "TRUE", "C#"], "date": "2024-01-01"}'),
    ],
)
def test_names_are_read_as_text_whatever_they_look_like(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_symbols(tmp_path / name) == ["AAA", "NA", "TRUE", "C#"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "symbl\nA\n", "must have a column 'symbol'; did you mean 'symbl'"),
        ("a.csv", "weight,symbol\n1,A\n2,\n", "list of names, but has ''"),
        ("a.csv", "weight,symbol\n1\n", "list of names, but has ''"),
        ("a.json", '{"symbol": ["A"]}', "a key 'symbols'; did you mean 'symbol'"),
        ("a.json", '{"symbols": "A"}', "list of names, but has 'A'"),
        ("a.json", '["A", 3]', "list of names, but has 3"),
        ("a.json", "[", "cannot be read"),
        ("a.txt", "# nothing\n", "must hold names, but is empty"),
        ("a.csv", "", "must have a column 'symbol'"),
    ],
)
def test_a_wrong_file_of_symbols_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_symbols(tmp_path / name)


# From a shell


def test_the_command_reads_files_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "prices", tmp_path / "out"
    data.mkdir()
    for symbol in ("AAA", "BBB"):
        (data / f"{symbol}.csv").write_text("Day;Last\n01.03.2013;1\n04.03.2013;3\n")
    command = ["process", "--function", "symbol_work:features", "--data", str(data), "--out", str(out), "--quiet"]
    command += ["--mode", "thread", "--workers", "1", "--dashboard", "none", "--option", "window=2"]
    reading = ["--date-column", "Day", "--date-format", "%d.%m.%Y", "--timezone", "UTC", "--separator", ";"]
    assert main([*command, *reading, "--column", "close=Last"]) == 0
    found = pd.read_parquet(out / "AAA.parquet")
    assert found.index.tolist() == [pd.Timestamp("2013-03-01", tz="UTC"), pd.Timestamp("2013-03-04", tz="UTC")]
    assert found["mean"].tolist()[1:] == [2.0]
    capsys.readouterr()
    for wrong, words in (
        (["--column", "close"], "--column must be new=old"),
        (["--column", "close=Last", "--column", "close=Day"], "must give each new name once"),
        (["--timezone", "Berlin"], "these files cannot be described: timezone must be a name"),
    ):
        assert main([*command, *wrong]) == 2
        assert words in capsys.readouterr().err
