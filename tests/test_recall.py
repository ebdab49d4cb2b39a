"""Chunks that are asked back because slots have nothing to do: the decision, the way to the worker, and a real cluster."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import recall_work as work

from admf_dask import ParallelOptimizer, ParameterSpace, batch_objective
from admf_dask.policy import Policy
from admf_dask.runtime.blackbox import BlackBox, ask_back, read_executing
from admf_dask.runtime.calls import UNTIL
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.executors import ClusterExecutor, Sent
from admf_dask.runtime.job import Watch
from admf_dask.runtime.recall import ANSWER_SECONDS, Recalls, UnderWay, worth
from admf_dask.runtime.score import BatchEvaluator

RUN = "0123456789abcdef" * 2


def test_who_has_most_to_do_is_asked_first_and_who_has_little_is_not() -> None:
    seen = [UnderWay(1, 0, 5), UnderWay(2, 100, 500), UnderWay(3, 600, 300), UnderWay(4, 990, 0)]
    assert Recalls(8).choose(seen, 1, 0.0, 0.001) == [seen[1]]
    assert Recalls(8).choose(seen, 8, 0.0, 0.001) == [seen[1], seen[2]]
    assert Recalls(8).choose(seen, 8, 0.0, None) == []


def test_a_rest_is_expected_to_take_as_long_as_what_was_seen_of_the_chunk() -> None:
    recalls = Recalls(2)
    slow, quick = UnderWay(1, 10, 3), UnderWay(2, 50, 40)
    assert recalls.choose([slow, quick], 1, 10.0, 1e-6) == []
    assert recalls.choose([slow, UnderWay(2, 80, 10)], 1, 10.005, 1e-6) == []
    # The first is still at the same item: three more like that are at least 3 x 11 ms.
    assert recalls.choose([slow, UnderWay(2, 85, 5)], 1, 10.011, 1e-6) == [slow]


def test_the_one_item_of_a_chunk_is_not_asked_for_however_long_it_takes() -> None:
    recalls = Recalls(2)
    assert [recalls.choose([UnderWay(1, 7, 0)], 1, when, 100.0) for when in (0.0, 3600.0)] == [[], []]


def test_a_chunk_is_asked_once_and_another_instead_only_when_it_does_not_answer() -> None:
    recalls, seen = Recalls(4), [UnderWay(1, 0, 900), UnderWay(2, 1000, 800)]
    assert recalls.choose(seen, 1, 0.0, 0.001) == [seen[0]]
    assert recalls.choose(seen, 1, ANSWER_SECONDS / 2, 0.001) == []
    assert recalls.choose(seen, 1, ANSWER_SECONDS * 2, 0.001) == [seen[1]]


def test_more_answers_under_way_than_idle_slots_is_no_reason_to_ask_for_more() -> None:
    recalls, seen = Recalls(4), [UnderWay(number, 1000 * number, 900) for number in range(6)]
    assert recalls.choose(seen, 3, 0.0, 0.001) == seen[:3]
    assert recalls.choose(seen, 1, ANSWER_SECONDS / 2, 0.001) == []


def test_who_was_asked_and_is_still_at_an_item_after_a_while_is_silent() -> None:
    recalls = Recalls(4)
    long, untold, other = UnderWay(1, 5, 900, 6), UnderWay(2, 1000, 800), UnderWay(3, 2000, 10, 2001)
    assert recalls.choose([long, untold, other], 2, 0.0, 0.001) == [long, untold]
    assert recalls.silent([long, untold, other], ANSWER_SECONDS / 2) == []
    assert recalls.silent([long, untold, other], ANSWER_SECONDS) == [long]
    # What it said is of a group before the one that it is in.
    assert recalls.silent([UnderWay(1, 5, 900, 5)], ANSWER_SECONDS) == []


def test_many_slots_do_not_ask_for_crumbs() -> None:
    assert (worth(2), worth(64)) == (0.03, 0.064)


def test_the_driver_writes_into_the_slot_of_the_one_thread_and_the_next_chunk_does_not_see_it(tmp_path: Path) -> None:
    box = BlackBox(tmp_path)
    slot = box.slot(RUN)
    watch, other = Watch(threading.Event(), slot, 7), Watch(threading.Event(), slot, 8)
    slot.note(3, 1)
    (span,) = read_executing(tmp_path, os.getpid(), RUN) or ()
    assert not watch.over
    ask_back(tmp_path, os.getpid(), span.slot, 7)
    assert (watch.over, other.over) == (True, False)
    assert read_executing(tmp_path, os.getpid(), RUN) == (span,)
    assert not Watch(threading.Event(), box.slot(RUN), 7).over


def test_asking_a_process_that_is_gone_does_nothing(tmp_path: Path) -> None:
    ask_back(tmp_path, 1, 0, 7)
    assert not list(tmp_path.iterdir())


class AskedAt(Watch):
    """Asked back when item `at` is under way."""

    def __init__(self, at: int) -> None:
        super().__init__(threading.Event(), None)
        self.asked_at = at

    @property
    def over(self) -> bool:
        return self.cells[self.at] >= self.asked_at or self.reached

    reached = False


def test_an_evaluator_ends_after_the_group_in_which_it_was_asked() -> None:
    watch, done = AskedAt(0), []

    def item(number: int) -> int:
        watch.reached = number >= 40
        done.append(number)
        return number

    block = MapEvaluator(item, range(1_000_000))(0, 1_000_000, 1e9, watch)
    assert block.stop == len(done)
    assert done == list(range(len(done)))
    assert 40 < len(done) < 400


class BusyForAMoment(ClusterExecutor):
    """All slots get something to do; the event loop has seen that, and before it does anything they are idle again."""

    moments, looks = 0, 0

    @property
    def _idle(self) -> int:
        idle: int = self.__dict__["idle"]
        if not idle and self.moments:
            self.moments -= 1
            self.even_out(2, None)
        return idle

    @_idle.setter
    def _idle(self, idle: int) -> None:
        self.__dict__["idle"] = idle

    def _seen(self) -> dict[UnderWay, tuple[int, int]]:
        self.looks += 1
        self.even_out(0, None)
        return {}


def test_slots_that_are_idle_again_at_once_are_looked_after_once() -> None:
    begun: list[Any] = []
    client: Any = SimpleNamespace(loop=SimpleNamespace(add_callback=lambda *call: begun.append(call)))
    executor = BusyForAMoment(client, slots=2)
    executor.even_out(1, None)
    executor.even_out(0, None)
    executor.moments = 1
    looks = []
    for look, *given in begun:
        asyncio.run(look(*given))
        looks.append(executor.looks)
    assert looks == [0, 1]
    # Idle, busy and idle before the first look: that one has nothing to look for any more.
    begun.clear()
    for idle in (1, 0, 2):
        executor.even_out(idle, None)
    for look, *given in begun:
        asyncio.run(look(*given))
        looks.append(executor.looks)
    assert looks == [0, 1, 1, 2]
    begun.clear()
    executor.even_out(1, None)
    executor.even_out(2, None)
    assert len(begun) == 1
    executor._stopped = True
    asyncio.run(begun[0][0](*begun[0][1:]))
    assert executor.looks == 2


def test_a_chunk_is_seen_where_its_own_run_is_at_it(tmp_path: Path) -> None:
    box, slots = BlackBox(tmp_path), []
    for run, at in ((RUN, 13), ("f" + RUN[1:], 17), (RUN, 27)):
        # A slot belongs to a thread.
        thread = threading.Thread(target=lambda run=run: slots.append(box.slot(run)))  # type: ignore[misc]
        thread.start()
        thread.join()
        slots[-1].note(at, 2)
        slots[-1].cells[slots[-1].at + UNTIL] = at + 3
    cluster: Any = SimpleNamespace(pids=lambda: [os.getpid(), 1])
    executor = ClusterExecutor(
        None,
        4,
        cluster,
        black_boxes=str(tmp_path),
        _run=RUN,
        _under_way={7: Sent((10, 20), 1.0), 8: Sent((20, 40), 1.0)},
    )
    assert executor._seen() == {
        UnderWay(7, 13, 5, 16): (os.getpid(), slots[0].base),
        UnderWay(8, 27, 11, 30): (os.getpid(), slots[2].base),
    }


@pytest.mark.parametrize("boxed", [False, True])
def test_a_chunk_of_a_run_that_was_taken_away_ends_too(boxed: bool, tmp_path: Path) -> None:
    cancelled, done = threading.Event(), []
    watch = Watch(cancelled, BlackBox(tmp_path).slot(RUN) if boxed else None, 7)

    def item(number: int) -> None:
        done.append(number)
        if number == 40:
            cancelled.set()

    MapEvaluator(item, range(1_000_000))(0, 1_000_000, 1e9, watch)
    assert 40 < len(done) < 400


@pytest.mark.parametrize(("on_error", "ends"), [("raise", True), ("record", False)])
def test_a_chunk_ends_with_the_failure_that_ends_its_run(on_error: str, ends: bool) -> None:
    def item(number: int) -> int:
        if number == 40:
            raise ValueError(number)
        return number

    def batch(columns: dict[str, Any]) -> Any:
        return [item(number) for number in columns["number"].tolist()]

    items, watch, policy = 20_000, Watch(threading.Event(), None), Policy(on_error)
    space = ParameterSpace({"number": range(items)})
    plain = MapEvaluator(item, range(items), (), policy)(0, items, 1e9, watch)
    rows = BatchEvaluator(batch_objective(max_rows=100)(batch), space, (), policy)(0, items, 1e9, watch)
    for block in (plain, rows):
        assert [failed.index for failed in block.failures] == [40]
        assert (block.stop < 400) is ends


def test_on_a_cluster_a_rest_goes_to_the_slot_that_has_nothing_to_do(process_session: Any, tmp_path: Path) -> None:
    items = [(number, str(tmp_path)) for number in range(80)]
    # Without, the item that waits for the last one would be in one chunk with it, and before it.
    assert process_session.map(work.last_meets_the_one_before, items, progress=False).values() == [True] * 80


def test_what_stands_behind_a_long_item_goes_there_without_an_answer(process_session: Any, tmp_path: Path) -> None:
    items = [(number, str(tmp_path)) for number in range(80)]
    # The first of the upper half waits until all that stood behind it in its chunk are done.
    assert process_session.map(work.waits_for_those_behind, items, progress=False).values() == [True] * 80


def test_so_does_that_of_a_batch(process_session: Any, tmp_path: Path) -> None:
    objective = batch_objective(max_rows=200)(work.batch_meets)
    found = ParallelOptimizer(session=process_session).optimize(
        {"number": range(4000)}, objective, data=str(tmp_path), progress=False
    )
    assert found.frame["score"].tolist() == [1.0] * 4000


def test_what_waits_for_a_slot_waits_on_the_scheduler_from_the_first_chunk_on(
    process_session: Any, tmp_path: Path
) -> None:
    # Dask would send two more chunks to some worker each, where they wait behind its first one, however long that is.
    executor, gate = process_session._executor(), tmp_path / "open"
    executor.start(RUN, "map", MapEvaluator(work.waits_for, [str(gate)] * 4))
    scheduler = process_session._cluster.scheduler

    def states() -> list[str]:
        return sorted(task.state for key, task in list(scheduler.tasks.items()) if key[0] == f"map-{RUN}")

    try:
        for number in range(4):
            executor.submit((number, number + 1), 1.0)
        assert work.wait(lambda: len(states()) == 4 and "waiting" not in states())
        assert states() == ["processing"] * 2 + ["queued"] * 2
        gate.touch()
        done: list[Any] = []
        while len(done) < 4:
            done += executor.wait()
        assert sorted(reply.chunk for reply in done) == [(number, number + 1) for number in range(4)]
    finally:
        gate.touch()
        executor.stop()
