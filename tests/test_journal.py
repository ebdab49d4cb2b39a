"""The durable record: what was evaluated is never evaluated again, however the run ended, and what is stale is refused."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import fault_work
import journal_work as work
import leaks
import numpy as np
import pandas as pd
import pytest

from admf_dask import (
    Journal,
    JournalCorrupt,
    JournalError,
    JournalMismatch,
    ParallelOptimizer,
    ParameterSpace,
    Session,
)
from admf_dask.events import BlockRecalled, Event, RunStarted
from admf_dask.journal import store
from admf_dask.journal.lock import Lock
from admf_dask.journal.status import state_now, this_process
from admf_dask.runtime import FailedItemsWarning
from admf_dask.runtime.driver import JournalWarning

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore::admf_dask.runtime.mapping.FailedItemsWarning")


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which each evaluation leaves a trace."""
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv(work.FOLDER_OF_MARKS, str(folder))
    return folder


def calls(marks: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in marks.iterdir()}


def table(result: Any) -> pd.DataFrame:
    """What must be equal between an interrupted run and one in a piece."""
    return result.frame.drop(columns="seconds")


@pytest.fixture
def optimizer(inline_session: Session) -> ParallelOptimizer:
    return ParallelOptimizer(session=inline_session)


def sweep(
    optimizer: ParallelOptimizer, journal: Any, space: Any = None, function: Any = work.score, **options: Any
) -> Any:
    return optimizer.optimize(space or work.space(), function, journal=journal, progress=False, **options)


def test_the_same_call_evaluates_nothing_twice(optimizer: ParallelOptimizer, marks: Path, tmp_path: Path) -> None:
    first = sweep(optimizer, tmp_path / "j")
    seen = calls(marks)
    assert set(seen.values()) == {1}
    again = sweep(optimizer, tmp_path / "j")
    assert calls(marks) == seen
    assert table(again).equals(table(first))
    assert again.failures.equals(first.failures)
    assert (again.recalled, again.rejected, again.total_evaluations) == (800, first.rejected, first.total_evaluations)


def test_a_wider_grid_in_another_order_evaluates_only_what_is_new(
    optimizer: ParallelOptimizer, marks: Path, tmp_path: Path
) -> None:
    sweep(optimizer, tmp_path / "j")
    wider = ParameterSpace(
        {"slow": [*range(60, 45, -1), *range(5, 45)], "fast": range(25, 0, -1)}, constraints=["fast < slow"]
    )
    result = sweep(optimizer, tmp_path / "j", wider)
    assert set(calls(marks).values()) == {1}
    assert len(calls(marks)) == len(
        wider.get_combinations() + [p for p in work.space().get_combinations() if p["slow"] == 45]
    )
    alone = sweep(optimizer, None, wider)
    assert table(result).equals(table(alone))
    assert result.failures["fast"].tolist() == alone.failures["fast"].tolist()


def test_a_narrower_grid_and_stricter_constraints_take_what_fits(
    optimizer: ParallelOptimizer, marks: Path, tmp_path: Path
) -> None:
    sweep(optimizer, tmp_path / "j")
    seen = calls(marks)
    narrow = ParameterSpace({"fast": [3, 4, 13], "slow": [10, 4, 12]}, constraints=["fast < slow", "slow != 12"])
    result = sweep(optimizer, tmp_path / "j", narrow)
    assert sorted(map(tuple, result.frame[["fast", "slow"]].to_numpy().tolist())) == [(3, 4), (3, 10), (4, 10)]
    assert set(calls(marks)) - set(seen) == {"(3,4)"}


def test_a_sample_and_a_list_are_recognised_by_their_combinations(
    optimizer: ParallelOptimizer, marks: Path, tmp_path: Path
) -> None:
    sweep(optimizer, tmp_path / "j")
    seen = calls(marks)
    sample = sweep(optimizer, tmp_path / "j", work.space().sample(50, seed=1))
    listed = sweep(
        optimizer, tmp_path / "j", [{"slow": 9, "fast": 2}, {"fast": 2, "slow": 9}, {"fast": 1, "slow": 100}]
    )
    assert len(sample.frame) + len(sample.failures) == 50
    assert listed.frame["score"].tolist() == [191.0, 191.0, 0.0]
    assert {name: n for name, n in calls(marks).items() if seen.get(name) != n} == {"(1,100)": 1, "(2,9)": 2}


def test_symbols_may_come_in_any_order_and_number(inline_session: Session, marks: Path, tmp_path: Path) -> None:
    inline_session.map(work.text, ["b", "a"], journal=tmp_path / "j", progress=False)
    outcomes = inline_session.map(work.text, ["a", "c", "b"], journal=tmp_path / "j", progress=False)
    assert outcomes.values() == ["A", "C", "B"]
    assert calls(marks) == {"a": 1, "b": 1, "c": 1}


def test_what_a_constraint_cannot_tell_is_not_recalled(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    sweep(optimizer, tmp_path / "j", {"a": range(5)}, made(1.0))
    space = ParameterSpace({"a": range(5)}, constraints=[lambda p: 2 / p["a"] > 0])
    result = sweep(optimizer, tmp_path / "j", space, made(1.0))
    assert result.recalled == 4
    assert result.failures["a"].tolist() == [0]


def test_equal_items_are_recalled_once(inline_session: Session, marks: Path, tmp_path: Path) -> None:
    recalled: list[list[int]] = []

    class Watch:
        def on_event(self, event: Any) -> None:
            if isinstance(event, BlockRecalled):
                recalled.append(event.block.indices.tolist())

    inline_session.map(work.text, ["a", "b", "a", "c"], journal=tmp_path / "j", progress=False)
    again = inline_session.map(work.text, ["d", "b", "a"], journal=tmp_path / "j", progress=Watch())
    assert again.values() == ["D", "B", "A"]
    assert [index for indices in recalled for index in indices] == [1, 2]
    assert calls(marks) == {"a": 2, "b": 1, "c": 1, "d": 1}


def test_failures_can_be_tried_again(optimizer: ParallelOptimizer, marks: Path, tmp_path: Path) -> None:
    first = sweep(optimizer, tmp_path / "j")
    again = sweep(optimizer, Journal(tmp_path / "j", retry_failed=True))
    assert again.recalled == 800 - len(first.failures)
    assert {name for name, n in calls(marks).items() if n > 1} == {f"(13,{s})" for s in range(14, 45)}
    third = sweep(optimizer, tmp_path / "j")
    assert third.recalled == 800
    assert third.failures["slow"].tolist() == list(range(14, 45))
    assert third.total_evaluations == first.total_evaluations


def test_keep_records_enough_to_go_on(optimizer: ParallelOptimizer, marks: Path, tmp_path: Path) -> None:
    first = sweep(optimizer, tmp_path / "j", keep=10)
    seen = calls(marks)
    again = sweep(optimizer, tmp_path / "j", keep=10)
    assert calls(marks) == seen
    assert table(again).equals(table(first))
    with pytest.raises(JournalMismatch, match="keep"):
        sweep(optimizer, tmp_path / "j")


# -- what makes a record stale -----------------------------------------------------------------------------------------


def made(factor: float) -> Any:
    def objective(params: dict[str, Any]) -> float:
        return params["a"] * factor

    return objective


OFFSET = 1.0


def reads_a_global(params: dict[str, Any]) -> float:
    return params["a"] + OFFSET + helper(0.0)


def helper(x: float) -> float:
    return x


def another_helper(x: float) -> float:
    return x + 1.0


def with_data(params: dict[str, Any], data: Any) -> float:
    return float(data["close"].iloc[params["a"]])


def test_what_changed_is_named_before_anything_runs(
    optimizer: ParallelOptimizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"a": range(5)}
    sweep(optimizer, tmp_path / "closure", space, made(2.0))
    sweep(optimizer, tmp_path / "closure", space, made(2.0))
    with pytest.raises(JournalMismatch, match=r"'factor', which made\.<locals>\.objective closes over"):
        sweep(optimizer, tmp_path / "closure", space, made(3.0))
    sweep(optimizer, tmp_path / "global", space, reads_a_global)
    monkeypatch.setitem(globals(), "OFFSET", 2.0)
    with pytest.raises(JournalMismatch, match="'OFFSET', which reads_a_global reads"):
        sweep(optimizer, tmp_path / "global", space, reads_a_global)
    monkeypatch.undo()
    monkeypatch.setitem(globals(), "helper", another_helper)
    with pytest.raises(
        JournalMismatch, match=r"the source of helper \(removed\).*another_helper \(added\)|another_helper"
    ):
        sweep(optimizer, tmp_path / "global", space, reads_a_global)
    frame = pd.DataFrame({"close": np.arange(5.0)}, index=pd.date_range("2020", periods=5, tz="UTC"))
    sweep(optimizer, tmp_path / "data", space, with_data, data=frame)
    sweep(optimizer, tmp_path / "data", space, with_data, data=frame.copy())
    with pytest.raises(JournalMismatch, match="the content of data"):
        sweep(optimizer, tmp_path / "data", space, with_data, data=frame + 1)
    with pytest.raises(JournalMismatch, match=r"seed \(added\)"):
        sweep(optimizer, tmp_path / "closure", space, made(2.0), seed=1)


def test_of_the_best_alone_the_ranking_is_a_setting_and_of_all_it_is_not(
    optimizer: ParallelOptimizer, tmp_path: Path
) -> None:
    sweep(optimizer, tmp_path / "all", {"a": range(9)}, made(1.0))
    assert sweep(optimizer, tmp_path / "all", {"a": range(9)}, made(1.0), maximize=False).recalled == 9
    sweep(optimizer, tmp_path / "best", {"a": range(9)}, made(1.0), keep=2)
    with pytest.raises(JournalMismatch, match="maximize"):
        sweep(optimizer, tmp_path / "best", {"a": range(9)}, made(1.0), keep=2, maximize=False)


def test_a_run_of_another_kind_is_another_call(
    optimizer: ParallelOptimizer, inline_session: Session, tmp_path: Path
) -> None:
    inline_session.map(made(1.0), [{"a": 1}], journal=tmp_path / "j", progress=False)
    with pytest.raises(JournalMismatch, match="it was a run of kind 'map', and this is 'optimize'"):
        sweep(optimizer, tmp_path / "j", [{"a": 1}], made(1.0))


def test_the_source_matters_and_comments_do_not(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    def load(text: str) -> Any:
        path = tmp_path / f"module_{abs(hash(text))}.py"
        path.write_text(textwrap.dedent(text))
        scope: dict[str, Any] = {"__name__": "a_users_module"}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        return scope["objective"]

    first = load("def objective(p):\n    return p['a'] * 1.0\n")
    commented = load('def objective(p):\n    """Says more."""\n    # and more\n    return (p["a"]\n        * 1.0)\n')
    changed = load("def objective(p):\n    return p['a'] * 2.0\n")
    sweep(optimizer, tmp_path / "j", {"a": [1]}, first)
    assert sweep(optimizer, tmp_path / "j", {"a": [1]}, commented).recalled == 1
    with pytest.raises(JournalMismatch, match="the source of objective"):
        sweep(optimizer, tmp_path / "j", {"a": [1]}, changed)


def test_the_choice_is_the_callers(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    space, folder = {"a": range(5)}, tmp_path / "j"
    sweep(optimizer, folder, space, made(2.0))
    both = sweep(optimizer, Journal(folder, changed="keep"), space, made(3.0))
    assert (both.recalled, both.best_score) == (0, 12.0)
    assert [sweep(optimizer, folder, space, made(factor)).recalled for factor in (2.0, 3.0)] == [5, 5]
    anew = sweep(optimizer, Journal(folder, changed="anew"), space, made(4.0))
    assert (anew.recalled, anew.best_score) == (0, 16.0)
    with pytest.raises(JournalMismatch):
        sweep(optimizer, folder, space, made(2.0))
    with pytest.raises(JournalError, match="changed must be refuse, anew or keep"):
        Journal(folder, changed="maybe")


def test_a_call_without_an_identity_is_refused_in_words(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    import threading

    lock = threading.Lock()
    with pytest.raises(JournalError, match="a journal must recognise the call when it comes again"):
        sweep(optimizer, tmp_path / "j", {"a": [1]}, lambda p: lock and 1.0)


# -- ends of all kinds -------------------------------------------------------------------------------------------------


def start_driver(journal: Path, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", **environment}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(HERE / "journal_work.py"), str(journal)],
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_blocks(journal: Path, count: int) -> None:
    while True:
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{journal / 'journal.sqlite'}?mode=ro", uri=True)
            ) as connection:
                found = connection.execute("SELECT count(*) FROM block").fetchone()[0]
        except sqlite3.Error:
            found = 0
        if found >= count:
            return


def wait_for_calls(marks: Path, count: int) -> None:
    while sum(calls(marks).values()) < count:
        pass


@pytest.mark.cluster
def test_a_driver_killed_at_random_instants_loses_nothing_recorded(
    optimizer: ParallelOptimizer, marks: Path, tmp_path: Path
) -> None:
    """In each mode in turn, on one journal; some time after a block was written, and never after the last."""
    chance = random.Random(5)
    journal = tmp_path / "j"
    recorded: list[int] = []
    for mode in ("process", "thread", "hybrid", "inline"):
        before = recorded[-1] if recorded else 0
        variables = {
            "TMPDIR": str(tmp_path),
            "ADMF_DASK_TEST_MODE": mode,
            work.FILE_TO_WAIT_FOR: str(tmp_path / "never"),
        }
        with start_driver(journal, **variables) as driver:
            wait_for_blocks(journal, before + chance.randint(1, 2))
            wait_for_calls(marks, sum(calls(marks).values()) + chance.randint(0, 30))
            driver.send_signal(signal.SIGKILL)
        with contextlib.closing(sqlite3.connect(journal / "journal.sqlite")) as connection:
            recorded.append(connection.execute("SELECT count(*) FROM block").fetchone()[0])
    assert not leaks.still_there(str(tmp_path)), "an orphan"
    status = Journal(journal).status()
    assert status.state == "killed"
    assert 0 < status.recalled + status.done < 800
    known = {f"({row.fast},{row.slow})" for row in Journal(journal).frame.itertuples()}
    before_last = calls(marks)
    result = sweep(optimizer, journal)
    assert {name for name, n in calls(marks).items() if n > before_last.get(name, 0)}.isdisjoint(known)
    assert table(result).equals(table(sweep(optimizer, None)))
    assert Journal(journal).status().state == "finished"


@pytest.mark.cluster
def test_two_drivers_on_one_journal_are_refused(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    journal, done = tmp_path / "j", tmp_path / "done"
    with start_driver(journal, **{"TMPDIR": str(tmp_path), work.FILE_TO_WAIT_FOR: str(done)}) as driver:
        wait_for_blocks(journal, 1)
        with pytest.raises(JournalError, match=f"process {driver.pid} is writing the one in"):
            sweep(optimizer, journal)
        status = Journal(journal).status()
        assert status.state == "running"
        assert "process" in status.words()
        assert len(Journal(journal).frame) > 0, "readable while the run goes on"
        done.touch()
        assert driver.wait(timeout=60) == 0
    assert Journal(journal).status().state == "finished"


def test_ctrl_c_as_a_run_begins_lets_the_next_one_in(inline_session: Session, tmp_path: Path) -> None:
    class Impatient:
        def on_event(self, event: Event) -> None:
            if isinstance(event, RunStarted):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        inline_session.map(abs, range(3), journal=tmp_path, progress=Impatient())
    # A notebook keeps the error, and all that it knows of the run.
    assert caught.value is not None
    assert inline_session.map(abs, range(3), journal=tmp_path, progress=False).values() == [0, 1, 2]


def test_who_writes_is_named_whoever_wrote_before(tmp_path: Path) -> None:
    (tmp_path / "journal.lock").write_text("12345678901")
    lock = Lock(tmp_path)
    try:
        with pytest.raises(JournalError, match=f"process {os.getpid()} is writing the one in"):
            Lock(tmp_path)
    finally:
        lock.release()
    Lock(tmp_path).release()


def test_a_run_whose_process_number_is_anothers_now_was_killed() -> None:
    pid, began = this_process()
    assert state_now("running", pid, began) == "running"
    assert state_now("running", pid, began - 60) == "killed"
    assert state_now("finished", pid, began - 60) == "finished"


def test_a_torn_last_record_costs_that_record_only(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    """A kill leaves the write-ahead log behind; here its tail is cut off at each of some bytes."""
    journal = tmp_path / "j"
    code = f"""
    import os
    import sys
    sys.path.insert(0, {str(HERE)!r})
    import journal_work as work
    from admf_dask import ParallelConfig, ParallelOptimizer, Session
    from admf_dask.journal.journal import Record
    from admf_dask.runtime import chunks
    chunks.SHARES = 10  # many small blocks
    Record.close = lambda self, state: os._exit(9)
    with Session(ParallelConfig(enabled=False)) as session:
        ParallelOptimizer(session=session).optimize(work.space(), work.score, journal={str(journal)!r}, progress=False)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=False, env={**os.environ, "PYTHONPATH": str(HERE.parent)}
    )
    log = (journal / "journal.sqlite-wal").read_bytes()
    whole = len(Journal(journal).frame)
    assert whole > 600
    (journal / "journal.sqlite-shm").unlink(missing_ok=True)
    content = (journal / "journal.sqlite").read_bytes()
    rows = []
    for cut in (len(log) - 1, len(log) * 2 // 3, len(log) // 3):
        (journal / "journal.sqlite").write_bytes(content)
        (journal / "journal.sqlite-wal").write_bytes(log[:cut])
        rows.append(len(Journal(journal).frame))
        (journal / "journal.sqlite-shm").unlink(missing_ok=True)
    assert whole > rows[0] >= rows[1] >= rows[2]
    result = sweep(optimizer, journal)
    assert 0 < result.recalled < 800
    assert table(result).equals(table(sweep(optimizer, None)))


def test_what_is_no_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal in"):
        Journal(tmp_path).status()
    (tmp_path / "journal.sqlite").write_bytes(b"not a database at all, and long enough to be read as one" * 20)
    with pytest.raises(JournalCorrupt, match="cannot be read"):
        Journal(tmp_path).status()
    with pytest.raises(JournalCorrupt, match="cannot be read"):
        _ = Journal(tmp_path).frame


def test_a_journal_of_a_newer_format_is_left_alone(optimizer: ParallelOptimizer, tmp_path: Path) -> None:
    sweep(optimizer, tmp_path, {"a": [1]}, made(1.0))
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    for look in (Journal(tmp_path).status, lambda: sweep(optimizer, tmp_path, {"a": [1]}, made(1.0))):
        with pytest.raises(JournalError, match=r"written by a newer admf_dask \(format 99"):
            look()


ON_A_SMALL_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=300k none "$0" && exec "$@"']
"""Runs a command that sees a file system of 300 KiB in a folder, which is the first argument."""


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="may not make a mount namespace",
)
@pytest.mark.cluster
@pytest.mark.parametrize("mode", ["process", "inline"])
def test_a_full_disk_ends_the_record_and_not_the_run(tmp_path: Path, mode: str) -> None:
    """A real one; when there is room again the same call goes on from what was recorded."""
    code = """
    import subprocess, sys, time, warnings
    from admf_dask import Journal, ParallelConfig, Session
    from admf_dask.runtime import chunks
    from admf_dask.runtime.driver import JournalWarning
    chunks.ChunkSizer.size = lambda self, remaining, in_flight=0: min(remaining, 40)
    mode, disk = sys.argv[1:]
    config = ParallelConfig(enabled=False) if mode == "inline" else ParallelConfig(mode=mode, max_workers=2, dashboard=None)
    def long(n):
        time.sleep(0.0002)
        return str(n) * 100
    with Session(config) as session, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        first = session.map(long, range(3_000), journal=disk, progress=False).values()
        words = [str(w.message) for w in seen if issubclass(w.category, JournalWarning)]
        assert "full. The run goes on; what finishes from now on is in memory only" in words[0], words
        recorded = len(Journal(disk).frame)
        subprocess.run(["mount", "-o", "remount,size=30m", disk], check=True)
        again = session.map(long, range(3_000), journal=disk, progress=False).values()
        print(recorded, first == again == [str(n) * 100 for n in range(3_000)], Journal(disk).status().recalled)
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [*ON_A_SMALL_DISK, str(disk), sys.executable, "-c", textwrap.dedent(code), mode, str(disk)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recorded, right, recalled = done.stdout.split()
    assert right == "True"
    assert 0 < int(recalled) == int(recorded) < 3_000


def test_a_block_that_is_too_large_for_the_journal_is_not_too_large_for_the_run(
    inline_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = store.connect

    def narrow(folder: Path, *, write: bool) -> sqlite3.Connection:
        connection = connect(folder, write=write)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        return connection

    monkeypatch.setattr(store, "connect", narrow)
    with pytest.warns(JournalWarning, match="takes blocks of up to a gigabyte, and not this one.*The run goes on"):
        outcomes = inline_session.map(work.long_text, ["a", "b"], journal=tmp_path / "j", progress=False)
    assert outcomes.values() == ["a" * 200_000, "b" * 200_000]


def test_interrupted_runs_go_on(
    optimizer: ParallelOptimizer, inline_session: Session, marks: Path, tmp_path: Path
) -> None:
    for number, outcome in enumerate(
        inline_session.as_completed(work.text, [f"s{n}" for n in range(50_000)], journal=tmp_path / "j")
    ):
        assert outcome.ok
        if number == 10:
            break
    status = Journal(tmp_path / "j").status()
    assert status.state == "interrupted"
    assert 0 < status.done < 50_000


def test_the_best_of_all_sittings_is_told_in_the_direction_of_the_run(
    optimizer: ParallelOptimizer, tmp_path: Path
) -> None:
    for maximize, best in ((True, 9), (False, 0)):
        folder = tmp_path / str(maximize)
        for values in (range(4, 6), range(10)):
            sweep(optimizer, folder, {"a": values}, made(1.0), maximize=maximize)
        status = Journal(folder).status()
        assert (status.best_score, status.best_item) == (best, {"a": best})


def test_status_counts_what_earlier_sittings_over_the_same_items_left(inline_session: Session, tmp_path: Path) -> None:
    def fails(params: dict[str, int]) -> int:
        if params["a"] % 3 == 0:
            raise ValueError("unlucky")
        return params["a"]

    optimizer = ParallelOptimizer(session=inline_session)
    for constraints, name in (((), "free"), (("a < 8",), "bound")):
        space = ParameterSpace({"a": range(10)}, constraints=constraints)
        for sitting in range(3):
            with pytest.warns(FailedItemsWarning):
                optimizer.optimize(space, fails, journal=tmp_path / name, progress=False)
            status = Journal(tmp_path / name).status()
            settled = (status.failed, status.rejected, status.recalled, status.done)
            assert settled == (len([n for n in range(10) if n % 3 == 0 and n < (8 if constraints else 10)]),
                               2 if constraints else 0, 10 if sitting else 0, 0 if sitting else 10)  # fmt: skip


def test_seconds_and_attempts_are_recorded(inline_session: Session, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": str(tmp_path), "journal": tmp_path / "j", "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", JournalWarning)
        first = inline_session.map(fault_work.fails_twice, [3, 4], retries=3, **options)
    again = inline_session.map(fault_work.fails_twice, [3, 4], retries=3, **options)
    assert [o.attempts for o in again] == [o.attempts for o in first] == [3, 1]
    assert [o.seconds for o in again] == [o.seconds for o in first]
    assert Journal(tmp_path / "j").frame["attempts"].tolist() == [3, 1]


def test_attempts_are_told_of_what_is_done_beside_what_was_recalled(inline_session: Session, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": str(tmp_path), "journal": tmp_path / "j", "progress": False, "retries": 3}
    inline_session.map(fault_work.fails_twice, [2], **options)
    both = inline_session.map(fault_work.fails_twice, [2, 4, 5], **options)
    assert [outcome.attempts for outcome in both] == [1, 1, 3]


def test_what_finished_together_is_recorded_together_or_not_at_all(
    optimizer: ParallelOptimizer, tmp_path: Path
) -> None:
    sweep(optimizer, tmp_path, {"a": range(3)}, made(1.0))
    with contextlib.closing(store.connect(tmp_path, write=True)) as connection:
        (stored,) = store.read_blocks(connection, 1)
        unstorable: Any = replace(stored.block, worker=object())  # type: ignore[arg-type]
        with pytest.raises(sqlite3.Error):
            store.write_blocks(connection, 1, [(stored.block, stored.ranges), (unstorable, stored.ranges)])
        assert len(list(store.read_blocks(connection, 1))) == 1


def test_failures_are_a_table_too(inline_session: Session, tmp_path: Path) -> None:
    with pytest.warns(FailedItemsWarning):
        first = inline_session.map(fault_work.act, [1, "raise"], journal=tmp_path / "j", progress=False)
    with pytest.warns(FailedItemsWarning):
        again = inline_session.map(fault_work.act, [1, "raise"], journal=tmp_path / "j", progress=False)
    assert type(again[1].error) is type(first[1].error) is ValueError
    assert again[1].traceback == first[1].traceback
    failures = Journal(tmp_path / "j").failures
    assert failures[["item", "error_type", "attempts"]].to_numpy().tolist() == [["raise", "ValueError", 1]]
