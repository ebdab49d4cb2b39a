"""The table of faults: what goes wrong in an item is that item's outcome, exactly, in every mode; all others are evaluated."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cluster_work
import fault_work as work
import psutil
import pytest

from admf_dask import Journal, Outcomes, ParallelOptimizer, Session, TaskError, TaskTimeout, WorkerDied
from admf_dask.events import Notice
from admf_dask.runtime import FailedItemsWarning
from admf_dask.runtime.alarm import LostStops
from admf_dask.runtime.chunks import ChunkSizer
from admf_dask.text import format_bytes

INNOCENT = list(range(40))


def mixed(session: Session, *faults: str, **options: Any) -> Outcomes:
    """A run of 40 innocent items with some faults among them."""
    items: list[Any] = list(INNOCENT)
    for place, fault in enumerate(faults):
        items.insert(7 + 11 * place, fault)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FailedItemsWarning)
        outcomes = session.map(work.act, items, progress=False, **options)
    assert [outcome.value for outcome in outcomes if outcome.ok] == INNOCENT, "an innocent item was lost or changed"
    assert {outcome.item for outcome in outcomes if not outcome.ok} == set(faults)
    return outcomes


def only_failure(outcomes: Outcomes) -> Any:
    (failed,) = (outcome for outcome in outcomes if not outcome.ok)
    return failed


HARMLESS = {
    "raise": (ValueError, "invalid literal"),
    "unpicklable result": (TaskError, "must survive pickling"),
    "unpicklable error": (TaskError, "HoldsALock: locked"),
    "error that will not unpickle": ((TaskError, work.WillNotUnpickle), "1 and 2"),
    "error that breaks its pickle": (TaskError, "BreaksItsPickle: gone"),
    "system exit": (SystemExit, "4"),
    "recursion": (RecursionError, "maximum recursion depth"),
    "no str": ((TaskError, work.CannotBePrinted), None),
    "keyboard interrupt": (KeyboardInterrupt, ""),
}
DEADLY: dict[str, tuple[str | None, int | None]] = {
    "segfault": ("SIGSEGV", None),
    "exit": (None, 3),
    "kill": ("SIGKILL", None),
    "terminate": ("SIGTERM", None),
}
ENDLESS = {
    "python loop": True,
    "sleep": False,
    "python loop that swallows": False,
    "c loop": False,
    "c loop that holds the interpreter": False,
}
"""Fault -> whether a soft stop ends it."""


def check(failed: Any, fault: str) -> None:
    """The one outcome that a fault has in every mode in which it can be survived."""
    assert failed.item == fault
    if fault in HARMLESS:
        kind, words = HARMLESS[fault]
        assert isinstance(failed.error, kind)
        assert words is None or words in str(failed.error)
        assert "fault_work.py" in failed.traceback or fault in ("unpicklable result", "no str")
        assert failed.attempts == 1
    elif fault in DEADLY:
        assert isinstance(failed.error, WorkerDied)
        assert (failed.error.signal, failed.error.exit_code) == DEADLY[fault]
        assert failed.error.item == fault
        assert (failed.attempts, failed.error.attempts) == (2, 2)
        assert failed.error.memory_limit > 0
        assert (failed.error.signal or "exit code 3") in str(failed.error)
    else:
        assert isinstance(failed.error, TaskTimeout)
        assert failed.error.item == fault
        assert "longer than timeout=" in str(failed.error)
        assert ("loop_for_ever" in failed.traceback) is ENDLESS[fault]
        if failed.traceback:
            assert re.search(r"TaskTimeout: took longer than timeout=\S+ seconds and was stopped", failed.traceback)
            assert "SoftStop" not in failed.traceback


@pytest.mark.parametrize("fault", HARMLESS)
def test_faults_that_leave_the_process_alone(any_session: Session, inline_session: Session, fault: str) -> None:
    if fault == "keyboard interrupt" and any_session is inline_session:
        # In the calling thread that is the user.
        with pytest.raises(KeyboardInterrupt) as stop:
            mixed(any_session, fault)
        assert isinstance(stop.value.partial, Outcomes)  # type: ignore[attr-defined]
        return
    check(only_failure(mixed(any_session, fault)), fault)


@pytest.mark.cluster
@pytest.mark.parametrize("fault", DEADLY)
def test_faults_that_take_the_process_along(process_session: Session, fault: str) -> None:
    check(only_failure(mixed(process_session, fault)), fault)


@pytest.mark.cluster
def test_all_faults_at_once_in_processes_of_several_threads(hybrid_session: Session) -> None:
    faults = [*HARMLESS, *DEADLY, *ENDLESS]
    faults.remove("sleep")
    outcomes = mixed(hybrid_session, *faults, timeout=1.0)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert len(failed) == len(faults)
    for outcome in failed:
        check(outcome, outcome.item)
    assert {outcome.attempts for outcome in outcomes if outcome.ok} <= {1, 2}


@pytest.mark.cluster
@pytest.mark.parametrize("mode", ["process", "hybrid"])
def test_items_that_outgrow_their_process_are_stopped_and_told_of_in_one_sentence_each(
    mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing else is printed, by the workers neither, not for one that holds much of what it may."""
    faults = ["memory in small steps", "memory in big steps"]
    items: list[Any] = [*range(10), "memory held for a while", *faults, *range(10, 20)]
    threads = 2 if mode == "hybrid" else 1
    with (
        Session(
            mode=mode, workers=2 * threads, threads_per_process=threads, memory_limit="600MB", dashboard=None
        ) as session,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FailedItemsWarning)
        outcomes = session.map(work.act, items, progress=True)
    assert [outcome.value for outcome in outcomes if outcome.ok] == [*range(10), True, *range(10, 20)]
    out, err = capfd.readouterr()
    told = [line for line in err.splitlines() if not line.startswith("act: ")]
    assert out == ""
    assert len(told) == 2, told
    failures = [outcome for outcome in outcomes if not outcome.ok]
    assert [failed.item for failed in failures] == faults
    for failed in failures:
        assert isinstance(failed.error, WorkerDied)
        peak = failed.error.peak_memory
        assert peak is not None
        assert peak > 500 * 2**20
        assert failed.error.memory_limit == 600_000_000
        assert failed.attempts == 2
        assert (
            f"'{failed.item}' ended its worker: its worker process outgrew the memory limit of 572 MiB (it had "
            f"{format_bytes(peak)}) and was stopped while it evaluated this item, 2 times, the last time alone; give each "
            "process more with memory_limit= or fewer workers=, or let the item need less"
        ) in told


CRASH = """
import sys
import fault_work as work
from admf_dask import ParallelConfig, Session
mode, journal = sys.argv[1:]
if __name__ == "__main__":
    with Session(ParallelConfig(enabled=mode == "thread", mode="thread", max_workers=2, dashboard=None)) as session:
        session.map(work.crashes_once_recorded, work.WITH_A_CRASH, data=journal, journal=journal, progress=False)
"""


@pytest.mark.cluster
@pytest.mark.parametrize("mode", ["thread", "inline"])
def test_where_a_crash_takes_the_driver_along_the_journal_has_what_was_done(
    process_session: Session, tmp_path: Path, mode: str
) -> None:
    """And in process mode the same call goes on from there, and finds out who it was."""
    script, journal = tmp_path / "script.py", tmp_path / "journal"
    script.write_text(CRASH)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(script), mode, str(journal)],
        env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "TMPDIR": str(tmp_path)},
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGSEGV
    before = Journal(journal).status()
    assert before.state == "killed"
    assert 0 < before.done < len(work.WITH_A_CRASH)
    with pytest.warns(FailedItemsWarning, match="1 of 1,501"):
        outcomes = process_session.map(
            work.crashes_once_recorded, work.WITH_A_CRASH, data=str(journal), journal=journal, progress=False
        )
    check(only_failure(outcomes), "segfault")
    assert Journal(journal).status().recalled == before.done


@pytest.mark.cluster
@pytest.mark.parametrize("fault", ENDLESS)
def test_what_never_ends_is_ended_by_its_timeout(process_session: Session, fault: str) -> None:
    failed = only_failure(mixed(process_session, fault, timeout=0.5))
    check(failed, fault)
    assert failed.seconds >= 0.5


@pytest.mark.parametrize("mode", ["thread", "inline"])
def test_where_nothing_can_be_ended_the_log_says_what_the_run_waits_for(
    mode: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    session = request.getfixturevalue(f"{mode}_session")
    failed = only_failure(mixed(session, "short c sleep", timeout=0.3))
    assert isinstance(failed.error, TaskTimeout)
    (record,) = (record for record in caplog.records if record.name == "admf_dask")
    assert "item 7 takes longer than timeout=0.3 seconds" in record.getMessage()
    assert "with mode='process' its process would be ended" in record.getMessage()


@pytest.mark.parametrize("fault", ["python loop", "python loops where nothing can be raised"])
def test_python_code_is_stopped_without_a_loss_of_its_process(any_session: Session, fault: str) -> None:
    """Nor a word on stderr: pytest makes an error of what could not be raised and was printed."""
    before = {o.worker for o in any_session.map(work.sleeps, [20] * 8, progress=False)}
    failed = only_failure(mixed(any_session, fault, timeout=0.3))
    assert isinstance(failed.error, TaskTimeout)
    assert "loop_for_ever" in failed.traceback, "the traceback shows where it was"
    after = {o.worker for o in any_session.map(work.sleeps, [20] * 8, progress=False)}
    assert before & after


def test_what_else_cannot_be_raised_is_printed_as_before() -> None:
    heard: list[Any] = []
    other: Any = SimpleNamespace(exc_type=ValueError)
    LostStops(heard.append)(other)
    assert heard == [other]


@pytest.mark.cluster
def test_in_hybrid_mode_the_siblings_of_a_hung_item_run_again(hybrid_session: Session) -> None:
    outcomes = mixed(hybrid_session, "c loop that holds the interpreter", "python loop that swallows", timeout=0.5)
    assert {type(outcome.error) for outcome in outcomes if not outcome.ok} == {TaskTimeout}
    assert {outcome.attempts for outcome in outcomes if outcome.ok} == {1}, "no innocent item is blamed"


@pytest.mark.cluster
def test_who_holds_the_interpreter_does_not_make_its_neighbours_guilty(hybrid_session: Session) -> None:
    with pytest.warns(FailedItemsWarning, match="1 of 24"):
        outcomes = hybrid_session.map(work.holds_or_sleeps, range(24), timeout=0.8, progress=False)
    assert [type(outcome.error) for outcome in outcomes if not outcome.ok] == [TaskTimeout]
    assert not outcomes[11].ok


@pytest.mark.cluster
def test_a_hung_batch_is_halved_to_the_combination_that_hangs(process_session: Session) -> None:
    optimizer = ParallelOptimizer(session=process_session)
    with pytest.warns(FailedItemsWarning, match="1 of 64"):
        result = optimizer.optimize({"x": range(64)}, cluster_work.batch_that_hangs_at_13, timeout=0.6, progress=False)
    assert result.failures["x"].tolist() == [13]
    assert result.failures["error_type"].tolist() == ["TaskTimeout"]
    assert result.frame["score"].tolist() == [float(x) for x in range(64) if x != 13]


@pytest.mark.cluster
def test_a_process_killed_from_outside_costs_no_item(killable_session: Session, tmp_path: Path) -> None:
    def kill() -> None:
        cluster_work.wait_for_file(str(tmp_path / "pid"))
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = killable_session.map(work.wait_to_be_killed_once, range(20), data=str(tmp_path), progress=False)
    killer.join()
    assert outcomes.values() == list(range(20))
    assert {outcome.index: outcome.attempts for outcome in outcomes if outcome.attempts > 1} == {5: 2}


@pytest.mark.cluster
def test_numba_makes_no_lock_that_a_killed_worker_leaks(process_session: Session) -> None:
    (method,) = process_session.map(work.start_method, [0], progress=False).values()
    assert method == "spawn"


@pytest.mark.cluster
def test_idle_workers_that_die_are_replaced(killable_session: Session) -> None:
    pids = {o.worker for o in killable_session.map(work.sleeps, [20] * 8, progress=False)}
    for pid in pids:
        psutil.Process(int(pid.removeprefix("pid "))).kill()
    outcomes = killable_session.map(work.act, INNOCENT, progress=False)
    assert outcomes.values() == INNOCENT


def test_a_result_too_large_to_travel_is_a_failure_in_words(any_session: Session) -> None:
    failed = only_failure(mixed(any_session, "too large a result"))
    assert "954 MiB is more than 477 MiB" in str(failed.error)
    assert "write it to a file" in str(failed.error)


@pytest.mark.parametrize("part", ["function", "items", "data"])
def test_what_cannot_travel_in_is_a_failure_of_the_call_where_anything_travels(any_session: Session, part: str) -> None:
    lock = threading.Lock()
    call: dict[str, Any] = {
        "function": (lambda item: lock and item, [1, 2], None),
        "items": (work.gives_one, [1, lock], None),
        "data": (work.gives_one, [1, 2], lock),
    }[part]
    function, items, data = call
    if any_session.layout.mode == "thread":
        assert len(any_session.map(function, items, data=data, progress=False)) == 2
        return
    with pytest.raises(TaskError, match=f"the {part} must survive pickling to reach the workers.*lock") as caught:
        any_session.map(function, items, data=data, progress=False)
    assert len(caught.value.partial) == 0  # type: ignore[attr-defined]


@pytest.mark.cluster
def test_what_does_not_come_out_of_its_pickle_is_a_failure_of_the_call(killable_session: Session) -> None:
    with pytest.raises(TaskError, match="a worker cannot load the function or its data: ValueError") as caught:
        killable_session.map(work.gives_one, [1, work.BreaksItsPickle()], progress=False)
    assert "On the worker:" in caught.value.__notes__[0]
    assert killable_session.map(work.act, INNOCENT, progress=False).values() == INNOCENT


@pytest.mark.cluster
def test_the_run_says_what_it_lost_in_one_sentence(process_session: Session) -> None:
    heard: list[str] = []

    class Ear:
        def on_event(self, event: Any) -> None:
            if isinstance(event, Notice):
                heard.append(event.text)

    with pytest.warns(FailedItemsWarning):
        process_session.map(work.act, [1, "exit", 2], progress=Ear())
    assert len(heard) == 1
    assert heard[0].startswith("'exit' ended its worker: its worker process ended with exit code 3")


# -- what the run does about failures ----------------------------------------------------------------------------------


def test_raise_stops_at_the_first_failure_and_keeps_what_was_done(any_session: Session) -> None:
    items: list[Any] = [*range(100), "raise", *range(1_000_000)]
    with pytest.raises(ValueError, match="invalid literal") as caught:
        any_session.map(work.act, items, on_error="raise", progress=False)
    assert any("item 100: 'raise'" in note for note in caught.value.__notes__)
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert isinstance(partial, Outcomes)
    # The chunk in which it happened ends with it, and what others are at is stopped.
    assert len(partial) < 900_000
    assert partial[100].item == "raise" if len(partial) > 100 else len(partial) > 0


def test_the_impatient_stop_after_some_failures(any_session: Session) -> None:
    items: list[Any] = [*range(10), "raise", 11, "raise", *range(1_000), "raise"]
    with pytest.warns(FailedItemsWarning, match="3 of"):
        any_session.map(work.act, items, on_error="stop_after:4", progress=False)
    with pytest.raises(TaskError, match=r"stopped by on_error='stop_after:2': \d of .* 'raise': ValueError") as caught:
        any_session.map(work.act, items, on_error="stop_after:2", progress=False)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(caught.value.partial) > 0  # type: ignore[attr-defined]


def test_an_optimisation_stops_too_and_carries_its_partial_result(any_session: Session) -> None:
    optimizer = ParallelOptimizer(session=any_session)
    with pytest.raises(ValueError, match="not at 7") as caught:
        optimizer.optimize({"a": range(50)}, cluster_work.fails_at_seven, on_error="raise", progress=False)
    assert caught.value.partial.state == "interrupted"  # type: ignore[attr-defined]
    assert caught.value.partial.failed == 1  # type: ignore[attr-defined]


def test_transient_errors_are_tried_again_and_counted(any_session: Session, tmp_path: Path) -> None:
    outcomes = any_session.map(
        work.fails_twice, range(4), data=str(tmp_path), retries=2, retry_on=ConnectionError, progress=False
    )
    assert outcomes.values() == [0, 1, 2, 3]
    assert [outcome.attempts for outcome in outcomes] == [1, 3, 1, 3]


def test_errors_that_were_not_declared_are_not_tried_again(inline_session: Session, tmp_path: Path) -> None:
    with pytest.warns(FailedItemsWarning):
        outcomes = inline_session.map(
            work.fails_twice, range(2), data=str(tmp_path), retries=5, retry_on=TimeoutError, progress=False
        )
    assert outcomes[1].attempts == 1
    with pytest.warns(FailedItemsWarning):
        outcomes = inline_session.map(work.fails_twice, [0, 3], data=str(tmp_path), retries=1, progress=False)
    assert outcomes[1].attempts == 2


# -- chance ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> tuple[list[float], list[tuple[float, float]]]:
    from admf_dask import ParallelConfig

    with Session(ParallelConfig(enabled=False)) as session:
        numbers = session.map(work.draws, range(60), seed=7, progress=False).values()
        return numbers, session.map(work.draws_in_all_ways, range(60), seed=7, progress=False).values()


def test_the_same_seed_gives_the_same_numbers_in_every_mode_and_order(any_session: Session, drawn: Any) -> None:
    assert any_session.map(work.draws, range(60), seed=7, progress=False).values() == drawn[0]
    assert any_session.map(work.draws_in_all_ways, range(60), seed=7, progress=False).values() == drawn[1]
    assert any_session.map(work.draws_while_dask_measures, range(60), seed=7, progress=False).values() == drawn[1]
    backwards = any_session.map(work.draws, range(59, -1, -1), seed=7, progress=False).values()
    assert backwards[::-1] == drawn[0]
    assert len(set(drawn[0])) == 60
    assert any_session.map(work.draws, range(60), seed=8, progress=False).values() != drawn[0]


def pieces(count: int) -> Any:
    """Chunks of so many items, whatever they cost."""
    return lambda self, remaining, in_flight=0: min(count, remaining)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_chance_does_not_depend_on_chunks(any_session: Session, drawn: Any, size: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(ChunkSizer, "size", pieces(size))
    assert any_session.map(work.draws_in_all_ways, range(60), seed=7, progress=False).values() == drawn[1]


def test_items_that_share_the_state_of_chance_do_not_meet(thread_session: Session, inline_session: Session) -> None:
    """Each draws twice, and others would draw in between."""
    given: dict[str, Any] = {"seed": 11, "progress": False}
    expected = inline_session.map(work.draws_before_and_after, range(20), **given).values()
    assert thread_session.map(work.draws_before_and_after, range(20), **given).values() == expected


@pytest.mark.cluster
def test_chance_does_not_depend_on_workers_retries_deaths_and_resuming(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMF_DASK_MAY_DIE", "yes")
    monkeypatch.setattr(ChunkSizer, "size", pieces(9))
    options: dict[str, Any] = {"data": str(tmp_path), "seed": 7, "retries": 2, "journal": tmp_path / "journal"}
    with Session(mode="hybrid", workers=3, threads_per_process=3, dashboard=None) as session:
        for number, _ in enumerate(session.as_completed(work.draws_after_trouble, range(60), **options)):
            if number == 20:
                break
        # Whether the run that was left had recorded it or not, 17 has now met its death in the run that counts.
        (tmp_path / "trouble-17").unlink(missing_ok=True)
        outcomes = session.map(work.draws_after_trouble, range(60), progress=False, **options)
    assert outcomes.values() == drawn[1]
    assert {outcome.index for outcome in outcomes if outcome.attempts > 1} >= {17}


def test_a_batch_gets_a_seed_for_each_combination(any_session: Session) -> None:
    optimizer = ParallelOptimizer(session=any_session)
    space = {"a": range(40), "b": [0.5, 1.0]}
    result = optimizer.optimize(space, cluster_work.batch_of_seeds, seed=3, progress=False)
    again = optimizer.optimize(
        {"b": [1.0, 0.5], "a": range(39, -1, -1)}, cluster_work.batch_of_seeds, seed=3, progress=False
    )
    key = ["a", "b"]
    assert result.frame.set_index(key)["score"].sort_index().equals(again.frame.set_index(key)["score"].sort_index())
    assert result.frame["score"].nunique() == 80
    with pytest.raises(TypeError, match="must take a parameter `seeds`"):
        optimizer.optimize(space, cluster_work.batch_score, seed=3, progress=False)
