"""Many symbols through a function: in order, with failures apart, to files, and going on after a kill."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import leaks
import pandas as pd
import pytest
import symbol_work as work

from admf_dask import ConfigError, DataError, Journal, JournalError, ParallelDataProcessor, Session, TaskError
from admf_dask.admission import Admission
from admf_dask.events import BlockFinished
from admf_dask.runtime import FailedItemsWarning
from admf_dask.symbols import size

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


def test_the_largest_is_begun_first_and_a_repeated_symbol_once(inline_session: Session, folder: Path) -> None:
    done: list[str] = []

    def note(symbol: str, frame: pd.DataFrame) -> int:
        done.append(symbol)
        return len(frame)

    data = {"A": work.prices(3), "B": work.prices(300), "C": work.prices(30)}
    processor = ParallelDataProcessor(session=inline_session)
    results = processor.process_symbols(["A", "B", "A", "C", "B"], note, data=data, progress=False)
    assert done == ["B", "C", "A"]
    assert list(results.items()) == [("A", 3), ("B", 300), ("C", 30)]
    done.clear()
    processor.process_symbols(["AAA", "DDD", "BBB", "CCC"], note, data=folder, progress=False)
    assert done == ["DDD", "CCC", "BBB", "AAA"]


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


def test_results_never_lie_where_the_data_is(inline_session: Session, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    processor = ParallelDataProcessor(session=inline_session)
    for data in (folder, f"{folder}/{{symbol}}", f"{folder}/{{symbol}}.parquet"):
        for out in (folder, tmp_path / "link", tmp_path / "elsewhere" / ".." / "prices"):
            with pytest.raises(DataError, match="would be lost; give another out="):
                processor.process_symbols(None, work.double, data=data, out=out, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # Where only CSV is read, Parquet beside it is in nobody's way.
    done = processor.process_symbols(None, work.double, data=f"{folder}/{{symbol}}.csv", out=folder, progress=False)
    assert list(done) == ["EEE"]


def test_options_that_a_function_does_not_take_are_refused_before_anything_runs(
    inline_session: Session, tmp_path: Path
) -> None:
    def feature(symbol: str, frame: pd.DataFrame, window: int = 20) -> pd.DataFrame:
        return frame

    processor = ParallelDataProcessor(session=inline_session)
    data = {"A": work.prices(3)}
    for given, words in (
        ({"data": data, "windw": 5}, "got an unexpected keyword argument 'windw'; did you mean 'window'"),
        ({"data": data, "symbol": 5}, "multiple values for argument 'symbol'"),
        (
            {},
            "feature is called with symbol and its options, but: missing a required argument: 'frame'; a frame needs data=",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            processor.process_symbols(["A"], feature, out=tmp_path / "out", progress=False, **given)
    assert not list((tmp_path / "out").rglob("*.sqlite"))


def test_an_option_may_have_any_name_and_a_function_any_signature(inline_session: Session) -> None:
    def measure(symbol: str, frame: pd.DataFrame, function: str = "mean") -> float:
        return float(getattr(frame["close"], function)())

    @functools.wraps(measure)
    def without_frame(symbol: str, **options: Any) -> dict[str, Any]:
        return options

    processor = ParallelDataProcessor(session=inline_session)
    data = {"A": work.prices(3)}
    done = processor.process_symbols(["A"], measure, data=data, progress=False, function="max")
    assert done["A"] == data["A"]["close"].max()
    assert processor.process_symbols(["A"], without_frame, progress=False, given=1)["A"] == {"given": 1}


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
    assert run(window=5, force=True).skipped == []
    assert set(calls(marks).values()) == {3, 4}
    assert run(window=5).skipped == list(results), "and after force= all is as recorded again"
    assert set(calls(marks).values()) == {3, 4}


def test_what_counts_is_content_not_time(inline_session: Session, folder: Path, marks: Path, tmp_path: Path) -> None:
    def run() -> Any:
        return ParallelDataProcessor(session=inline_session).process_symbols(
            None, work.features, data=folder, out=tmp_path / "out", progress=False
        )

    run()
    os.utime(folder / "AAA.parquet")
    again = run()
    assert again.skipped == ["AAA", "BBB", "CCC", "DDD", "EEE"]
    assert repr(again) == "<SymbolResults: 5 ok (5 of them skipped), 0 failed>"
    assert again.written["skipped"].all()
    assert again.written.loc["BBB", ["rows", "rows_in", "bytes_in"]].tolist() == [
        55, 55, (folder / "BBB.parquet").stat().st_size,
    ]  # fmt: skip
    text = (folder / "EEE.csv").read_text()
    (folder / "EEE.csv").write_text(text.replace("6.0", "7.0"))
    assert run().skipped == ["AAA", "BBB", "CCC", "DDD"], "the same size, and another content"
    (tmp_path / "out" / "BBB.parquet").write_bytes(b"half")
    assert run().skipped == ["AAA", "CCC", "DDD", "EEE"], "a result that is not what was written"
    assert set(calls(marks).values()) == {1, 2}


def test_frames_in_memory_are_known_by_their_content(inline_session: Session, marks: Path, tmp_path: Path) -> None:
    def run(data: Any) -> list[str]:
        results = ParallelDataProcessor(session=inline_session).process_symbols(
            None, work.features, data=data, out=tmp_path / "out", progress=False
        )
        return list(results.skipped)

    assert run({"A": work.prices(3), "B": work.prices(4)}) == []
    assert run({"A": work.prices(3), "B": work.prices(4) + 1, "C": work.prices(2)}) == ["A"], "B is of the same size"
    assert run({"A": work.prices(3), "B": work.prices(4) + 1, "C": work.prices(2)}) == ["A", "B", "C"]
    assert calls(marks) == {"A": 1, "B": 2, "C": 1}


@pytest.mark.cluster
def test_two_giants_do_not_meet_in_a_process_where_they_do_not_fit(
    hybrid_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _giants_keep_apart(hybrid_session, tmp_path, monkeypatch)


def test_two_giants_do_not_meet_in_this_process_either(
    thread_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _giants_keep_apart(thread_session, tmp_path, monkeypatch)


def _giants_keep_apart(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {f"G{n}": work.prices(200_000) for n in range(6)} | {f"S{n:02d}": work.prices(20) for n in range(40)}
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    processor = ParallelDataProcessor(session=session)
    free = processor.process_symbols(None, work.meets, data=data, progress=False, folder=str(tmp_path / "1"))
    assert max(free.values()) > 1, "they do meet where there is room"
    giant = 3 * data["G0"].memory_usage().sum()
    monkeypatch.setattr(Admission, "of", lambda layout: Admission(layout.threads_per_process, int(1.5 * giant)))
    apart = processor.process_symbols(None, work.meets, data=data, progress=False, folder=str(tmp_path / "2"))
    assert max(apart.values()) == 1
    assert len(apart) == 46


def test_a_look_at_a_file_tells_what_it_becomes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"close": range(50_000), "volume": [1.5] * 50_000})
    for name, read in (("a.parquet", pd.read_parquet), ("a.csv", pd.read_csv), ("a.csv.gz", pd.read_csv)):
        path = str(tmp_path / name)
        frame.to_parquet(path) if "csv" not in name else frame.to_csv(path, index=False)
        real = read(path).memory_usage(deep=True).sum()  # type: ignore[operator]
        assert size.memory_per_byte(path) * os.path.getsize(path) == pytest.approx(size.COPIES * real, rel=0.4)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    assert size.memory_per_byte(str(tmp_path / "b.parquet")) == size.COPIES * size.UNKNOWN


def test_results_never_pass_through_this_process(process_session: Session, tmp_path: Path) -> None:
    blocks: list[int] = []

    class Spy:
        def on_event(self, event: Any) -> None:
            if isinstance(event, BlockFinished):
                blocks.append(len(event.block.payload or b""))

    results = ParallelDataProcessor(session=process_session).process_symbols(
        [f"S{n}" for n in range(8)], work.large, out=tmp_path / "out", progress=Spy()
    )
    assert results.written["bytes"].sum() > 50_000_000
    assert sum(blocks) < 20_000


def test_results_go_on_in_a_dask_graph_of_the_users(process_session: Session, folder: Path, tmp_path: Path) -> None:
    import dask

    results = ParallelDataProcessor(session=process_session).process_symbols(
        None, [(work.features, {"window": 2}), work.double], data=folder, out=tmp_path / "out", progress=False
    )
    client = process_session.client
    rows = client.compute(results.to_dask().groupby("symbol")["close"].sum(), sync=True)
    assert rows["AAA"] == 20.0
    ranked = results.to_bag().map(work.last_mean).topk(2, key=work.second)
    assert client.compute(ranked, sync=True) == [("DDD", 153.5), ("CCC", 103.5)]
    lengths = [dask.delayed(len)(dask.delayed(results.__getitem__)(symbol)) for symbol in results]
    assert dask.delayed(sum)(lengths).compute(scheduler="sync") == 327


def test_a_full_disk_is_a_named_failure_and_nothing_half_stays(tmp_path: Path) -> None:
    """In a process of its own: a limit on the size of files holds for all that it writes."""
    code = f"""
    import resource, signal, sys, warnings
    sys.path.insert(0, {str(HERE)!r})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    import symbol_work as work
    from admf_dask import ParallelConfig, ParallelDataProcessor, Session
    import pandas as pd, numpy as np
    data = {{"BIG": pd.DataFrame({{"close": np.random.default_rng(0).random(200_000)}}), "A": work.prices(3)}}
    with Session(ParallelConfig(enabled=False)) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        results = ParallelDataProcessor(session=session).process_symbols(
            None, work.features, data=data, out={str(tmp_path / "out")!r}, progress=False
        )
    print(list(results), results.failures["message"].tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['A'] ['BIG.parquet cannot be written in ")
    assert "make room there, or give another out=" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".journal", "A.parquet"]


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
    # Its workers end with it, but a moment later, and may have written one more.
    assert not leaks.still_there(str(tmp_path)), "an orphan"
    for path in out.glob("S*.parquet"):
        assert len(pd.read_parquet(path)) == len(pd.read_parquet(data / path.name)), "a half-written file"
    done = {path.stem for path in out.glob("S*.parquet")}
    (out / ".S149.1.partial").write_bytes(b"PAR1 half")  # of no process that writes here, so only a sweep removes it
    before = calls(marks)
    results = ParallelDataProcessor(session=inline_session).process_symbols(
        None, work.slow_features, data=data, out=out, progress=False
    )
    assert list(results) == names
    assert set(results.skipped) == done, "noted in the journal or not, what was written is done"
    assert {name for name, count in calls(marks).items() if count > before.get(name, 0)} == set(names) - done
    assert sorted(path.name for path in out.iterdir()) == [".journal", *(f"{name}.parquet" for name in names)]
    assert ParallelDataProcessor(session=inline_session).process_symbols(
        None, work.slow_features, data=data, out=out, progress=False
    ).skipped == names  # fmt: skip


@pytest.mark.cluster
def test_a_worker_killed_half_way_loses_nothing_and_does_nothing_finished_again(
    process_session: Session, tmp_path: Path
) -> None:
    data, out, folder = tmp_path / "prices", tmp_path / "out", tmp_path / "folder"
    data.mkdir()
    folder.mkdir()
    names = [f"S{number:03d}" for number in range(40)]
    for number, name in enumerate(names):
        work.prices(400 - number).to_parquet(data / f"{name}.parquet")
    results = ParallelDataProcessor(session=process_session).process_symbols(
        None, work.ends_its_worker_once, data=data, out=out, progress=False, folder=str(folder)
    )
    assert (folder / "killed").exists()
    assert list(results) == names
    assert results.failures.empty
    assert {name: len(frame) for name, frame in results.items()} == {n: 400 - i for i, n in enumerate(names)}
    assert sorted(path.name for path in out.iterdir()) == [".journal", *(f"{name}.parquet" for name in names)]


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
        (["AAA"], {"out": HERE / "conftest.py"}, "cannot be written to: File exists; give another out="),
        (["AAA"], {"out": "/proc/none"}, "cannot be written to"),
    ]
    for symbols, options, words in cases:
        with pytest.raises(DataError, match=words):
            processor.process_symbols(symbols, work.length, progress=False, **options)
    (tmp_path / "wrong.csv").write_text("ticker\nAAA\n")
    with pytest.raises(DataError, match="must have a column 'symbol'"):
        processor.process_symbols(tmp_path / "wrong.csv", work.length)
    with pytest.raises(TypeError, match="a function or a list of functions"):
        processor.process_symbols(["A"], [])
    with pytest.raises(JournalError, match="a folder holds one set of results"):
        processor.process_symbols(
            ["A"], work.length, out=tmp_path / "out", journal=Journal(tmp_path / "j", changed="keep")
        )
    with pytest.raises(TaskError, match="must return a DataFrame"):
        processor.process_symbols(["A"], work.length, out=tmp_path / "out", progress=False)


def test_memory_that_arrow_keeps_is_given_back_after_large_symbols_only(
    inline_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    pool, released = pa.default_memory_pool(), []

    class Pool:
        def release_unused(self) -> None:
            pool.release_unused()
            released.append(pool.bytes_allocated())

    monkeypatch.setattr(pa, "default_memory_pool", Pool)
    processor = ParallelDataProcessor(session=inline_session)
    rows = {"SMALL": 10, "LARGE": 100_000}
    processor.process_symbols(list(rows), work.ramp, out=tmp_path / "out", progress=False, rows=rows)
    assert len(released) == 1
