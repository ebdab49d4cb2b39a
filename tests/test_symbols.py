"""Many symbols through a function: in order, with failures apart, to files, and going on after a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import symbol_work as work

from admf_dask import DataError, ParallelDataProcessor, Session, TaskError
from admf_dask.runtime import FailedItemsWarning

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several sizes and two kinds."""
    found = tmp_path / "prices"
    found.mkdir()
    for number, name in enumerate(["AAA", "BBB", "CCC", "DDD"]):
        work.prices(5 + 50 * number).to_parquet(found / f"{name}.parquet")
    work.prices(7).to_csv(found / "EEE.csv", index=False)
    return found


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "marks"
    found.mkdir()
    monkeypatch.setenv("ADMF_DASK_TEST_MARKS", str(found))
    return found


def calls(marks: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in marks.iterdir()}


def test_results_come_in_the_order_given_and_a_repeated_symbol_once(any_session: Session) -> None:
    processor = ParallelDataProcessor(session=any_session)
    results = processor.process_symbols(["IBM", "AAPL", "GE", "IBM"], work.length, progress=False)
    assert list(results.items()) == [("IBM", 3), ("AAPL", 4), ("GE", 2)]
    with pytest.raises(KeyError, match="'AAPLE' was not processed; did you mean 'AAPL'"):
        _ = results["AAPLE"]


def test_frames_come_from_a_mapping_a_folder_or_a_pattern(any_session: Session, folder: Path) -> None:
    processor = ParallelDataProcessor(session=any_session)
    mapping = {"X": work.prices(3), "Y": work.prices(4)}
    assert dict(processor.process_symbols(None, work.total, data=mapping, progress=False)) == {"X": 3.0, "Y": 6.0}
    from_folder = processor.process_symbols(None, work.total, data=folder, progress=False)
    assert list(from_folder) == ["AAA", "BBB", "CCC", "DDD", "EEE"]
    pattern = processor.process_symbols(["BBB", "AAA"], work.total, data=f"{folder}/{{symbol}}.parquet", progress=False)
    assert list(pattern.items()) == [("BBB", from_folder["BBB"]), ("AAA", 10.0)]
    steps = processor.process_symbols(["AAA"], [work.double, work.total], data=folder, progress=False)
    assert steps["AAA"] == 20.0


def test_failures_are_apart_and_never_silently_missing(any_session: Session, folder: Path) -> None:
    work.prices(4).to_parquet(folder / "BAD.parquet")
    (folder / "BROKEN.parquet").write_bytes(b"PAR1 no")
    (folder / "EMPTY.csv").write_text("close\n")
    processor = ParallelDataProcessor(session=any_session)
    with pytest.warns(FailedItemsWarning, match="4 of 6"):
        results = processor.process_symbols(
            ["AAA", "BAD", "BROKEN", "EMPTY", "GONE", "BBB"], work.features, data=folder, progress=False, window=2
        )
    assert list(results) == ["AAA", "BBB"]
    assert results["AAA"]["mean"].tolist()[1:] == [0.5, 1.5, 2.5, 3.5]
    assert results.failures.index.tolist() == ["BAD", "BROKEN", "EMPTY", "GONE"]
    with pytest.raises(ValueError, match="no volume"):
        _ = results["BAD"]
    for symbol, words in (("BROKEN", "cannot be read"), ("EMPTY", "has no rows"), ("GONE", "there is no file of GONE")):
        with pytest.raises(DataError, match=words):
            _ = results[symbol]
    assert results.get("BAD") is None


def test_workers_write_whole_files_and_only_what_changed_is_done_again(
    inline_session: Session, folder: Path, marks: Path, tmp_path: Path
) -> None:
    processor, out = ParallelDataProcessor(session=inline_session), tmp_path / "out"

    def run(function: Any = work.features, **options: Any) -> Any:
        return processor.process_symbols(None, function, data=folder, out=out, progress=False, **options)

    results = run()
    assert sorted(path.name for path in out.iterdir()) == [".journal", *(f"{name}.parquet" for name in results)]
    pd.testing.assert_frame_equal(results["BBB"], pd.read_parquet(out / "BBB.parquet"))
    assert results.written.loc["AAA", "rows"] == 5
    run()
    assert set(calls(marks).values()) == {1}
    work.prices(9).to_parquet(folder / "CCC.parquet")
    (out / "AAA.parquet").unlink()
    run()
    assert calls(marks) == {"AAA": 2, "BBB": 1, "CCC": 2, "DDD": 1, "EEE": 1}
    run()
    assert calls(marks) == {"AAA": 2, "BBB": 1, "CCC": 2, "DDD": 1, "EEE": 1}
    run(window=5)
    assert set(calls(marks).values()) == {2, 3}
    run(window=5, force=True)
    assert set(calls(marks).values()) == {3, 4}


def test_all_of_it_is_a_bag_or_a_dask_frame(thread_session: Session, folder: Path, tmp_path: Path) -> None:
    processor = ParallelDataProcessor(session=thread_session)
    results = processor.process_symbols(None, work.features, data=folder, out=tmp_path / "out", progress=False)
    whole = results.to_dask().compute(scheduler="sync")
    assert whole.groupby("symbol").size().to_dict() == {"AAA": 5, "BBB": 55, "CCC": 105, "DDD": 155, "EEE": 7}
    pairs = dict(results.to_bag().compute(scheduler="sync"))
    assert {symbol: len(frame) for symbol, frame in pairs.items()}["CCC"] == 105
    lazy = processor.to_bag(["AAA", "BBB"], work.total, data=folder)
    assert dict(lazy.compute(scheduler="sync")) == {"AAA": 10.0, "BBB": float(sum(range(55)))}


@pytest.mark.cluster
def test_killed_half_way_and_started_again_nothing_is_done_twice_and_no_file_is_half(
    tmp_path: Path, marks: Path, inline_session: Session
) -> None:
    data, out, chance = tmp_path / "prices", tmp_path / "out", random.Random(1)
    data.mkdir()
    names = [f"S{number:03d}" for number in range(150)]
    for name in names:
        work.prices(chance.randint(5, 400)).to_parquet(data / f"{name}.parquet")
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", str(HERE / "symbol_work.py"), str(data), str(out)]
    with subprocess.Popen(command, env=environment) as driver:
        while len(list(out.glob("S*.parquet"))) < 40:
            assert driver.poll() is None
        driver.send_signal(signal.SIGKILL)
    for path in out.glob("S*.parquet"):
        assert len(pd.read_parquet(path)) == len(pd.read_parquet(data / path.name)), "a half-written file"
    from admf_dask import Journal

    recorded = {item.symbol for item in Journal(out / ".journal").frame["item"]}
    before = calls(marks)
    results = ParallelDataProcessor(session=inline_session).process_symbols(
        None, work.slow_features, data=data, out=out, progress=False
    )
    assert list(results) == names
    assert {name for name, count in calls(marks).items() if count > before.get(name, 0)}.isdisjoint(recorded)
    assert set(calls(marks)) == set(names)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "AAA\n# comment\n\nBBB\n"), ("a.csv", "symbol,weight\nAAA,1\nBBB,2\n"), ("a.json", '["AAA", "BBB"]')],
)
def test_symbols_may_stand_in_a_file(inline_session: Session, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    processor = ParallelDataProcessor(session=inline_session)
    assert list(processor.process_symbols(tmp_path / name, work.length, progress=False)) == ["AAA", "BBB"]


def test_what_concerns_all_is_refused_before_the_start(inline_session: Session, tmp_path: Path) -> None:
    processor = ParallelDataProcessor(session=inline_session)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ("AAA", {}, r"write \['AAA'\]"),
        (["AAA", 3], {}, "the list has 3"),
        (None, {}, "there is no data="),
        (["AAA"], {"data": tmp_path / "none"}, "does not exist"),
        (["AAA"], {"data": 5}, "data must be a mapping"),
    ]
    for symbols, options, words in cases:
        with pytest.raises(DataError, match=words):
            processor.process_symbols(symbols, work.length, progress=False, **options)
    (tmp_path / "wrong.csv").write_text("ticker\nAAA\n")
    with pytest.raises(DataError, match="must have a column 'symbol'"):
        processor.process_symbols(tmp_path / "wrong.csv", work.length)
    with pytest.raises(TypeError, match="a function or a list of functions"):
        processor.process_symbols(["A"], [])
    with pytest.raises(TaskError, match="must return a DataFrame"):
        processor.process_symbols(["A"], work.length, out=tmp_path / "out", progress=False)
