"""Chunks that are cut because slots have nothing to do: the decision, the way to the worker, and a real cluster."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cut_work as work
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admf_dask import ParallelOptimizer, ParameterSpace, batch_objective
from admf_dask.policy import Policy
from admf_dask.runtime.blackbox import BlackBox, cut, read_executing
from admf_dask.runtime.calls import UNTIL
from admf_dask.runtime.cuts import (
    HAND_OVER_SECONDS,
    LONGEST_LOOK_SECONDS,
    SETTLED_SECONDS,
    Cutter,
    Outlook,
    UnderWay,
    worth,
)
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.executors import ClusterExecutor, Sent
from admf_dask.runtime.job import Watch
from admf_dask.runtime.score import BatchEvaluator, ScoreEvaluator

RUN = "0123456789abcdef" * 2


def under_way(number: int, at: int, left: int) -> UnderWay:
    """At a single item, which is all that will be begun without a look."""
    return UnderWay(number, at, left, at + 1 + left, at + 1)


def test_who_has_most_to_do_is_cut_first_and_who_has_little_is_not() -> None:
    seen = [under_way(1, 0, 5), under_way(2, 100, 500), under_way(3, 600, 300), under_way(4, 990, 0)]
    assert Cutter(8).choose(seen, 1, 0.0, 0.001) == [(seen[1], 101 + 252)]
    assert Cutter(8).choose(seen, 2, 0.0, 0.001) == [(seen[1], 101 + 252), (seen[2], 601 + 152)]
    assert Cutter(8).choose(seen, 8, 0.0, None) == []
    assert Cutter(8).choose(seen, 0, 0.0, 0.001) == []


@given(
    left=st.integers(1, 10_000), pace=st.floats(1e-6, 1.0), takers=st.integers(1, 63), rest=st.floats(0.0, 10.0)
)  # fmt: skip
def test_who_is_cut_and_those_who_get_the_rest_end_together_as_far_as_items_allow(
    left: int, pace: float, takers: int, rest: float
) -> None:
    chunk = under_way(1, 5, left)
    end = Outlook(chunk, rest, pace).end(takers)
    keeps, given_away = end - 6, left - (end - 6)
    his, theirs = rest + keeps * pace, HAND_OVER_SECONDS + given_away * pace / takers
    # One item more for him would not be better, nor one less.
    assert keeps == 0 or his <= theirs + 1e-9
    assert given_away <= 0 or his + pace > theirs - pace / takers - 1e-9


def test_what_is_begun_without_a_look_stays_where_it_is() -> None:
    group = UnderWay(1, 0, 900, 1000, 950)
    assert Cutter(2).choose([group], 1, 0.0, 0.001) == [(group, 950)]
    last = UnderWay(1, 0, 900, 1000, 1000)
    assert Cutter(2).choose([last], 1, 0.0, 0.001) == []
    assert Cutter(2).choose([last, under_way(2, 2000, 800)], 1, 0.0, 0.001) != []


def test_a_rest_is_expected_to_take_as_long_as_what_was_seen_of_the_chunk() -> None:
    cutter = Cutter(2)
    slow, quick = under_way(1, 10, 3), under_way(2, 50, 40)
    assert cutter.choose([slow, quick], 1, 10.0, 1e-6) == []
    # Nine items in as many milliseconds, twenty to go; the other is still at the one it was at.
    assert cutter.choose([slow, under_way(2, 59, 20)], 1, 10.009, 1e-6) == [(under_way(2, 59, 20), 60 + 12)]


def test_the_longer_an_item_takes_the_longer_it_is_expected_to_take_and_nothing_stays_behind_it() -> None:
    cutter, stuck = Cutter(2), under_way(1, 10, 900)
    assert cutter.choose([stuck], 1, 10.0, 1e-6) == []
    assert cutter.choose([stuck], 1, 10.011, 1e-6) == []
    assert cutter.choose([stuck], 1, 10.013, 1e-6) == [(stuck, 11)]
    assert cutter.choose([stuck], 1, 11.0, 0.0) == [(stuck, 11)]


def test_the_one_item_of_a_chunk_is_not_cut_however_long_it_takes() -> None:
    cutter = Cutter(2)
    assert [cutter.choose([under_way(1, 7, 0)], 1, when, 100.0) for when in (0.0, 3600.0)] == [[], []]


def test_who_has_nothing_to_give_does_not_stand_before_who_has() -> None:
    cutter, hung, long = Cutter(2), under_way(1, 7, 0), under_way(2, 100, 100)
    assert cutter.choose([hung, long], 0, 0.0, 0.001) == []
    assert cutter.choose([hung, long], 1, 3600.0, 0.001) == [(long, 101)]


def test_after_a_cut_nothing_more_is_cut_for_the_same_slots_till_it_shows_whether_it_was_right() -> None:
    cutter, seen = Cutter(4), [under_way(1, 0, 900), under_way(2, 1000, 800)]
    assert cutter.choose(seen, 1, 0.0, 0.001) == [(seen[0], 1 + 452)]
    assert cutter.choose(seen, 1, SETTLED_SECONDS / 2, 0.001) == []
    assert cutter.choose(seen, 2, SETTLED_SECONDS / 2, 0.001) == [(seen[1], 1001 + 397)]
    assert cutter.choose(seen, 1, SETTLED_SECONDS * 4, 0.001) == [(seen[0], 1 + 412)]


def test_more_slots_than_chunks_share_what_there_is() -> None:
    cutter, seen = Cutter(64), [under_way(1, 0, 900), under_way(2, 1000, 800)]
    # Three slots for the first, two for the second.
    assert cutter.choose(seen, 5, 0.0, 0.001) == [(seen[0], 1 + 228), (seen[1], 1001 + 270)]
    assert cutter.choose(seen, 5, SETTLED_SECONDS / 2, 0.001) == []


def test_for_others_what_is_long_is_cut_to_what_they_may_wait_for_and_what_is_not_long_is_left() -> None:
    cutter, seen = Cutter(2), [under_way(1, 0, 401), under_way(2, 1000, 399), UnderWay(3, 5000, 900, 6001, 5500)]
    assert cutter.shorten(seen, 0.0, 0.001) == [(seen[0], 201), (seen[2], 5500)]
    assert cutter.shorten(seen, 0.0, None) == []
    assert cutter.shorten([UnderWay(4, 0, 900, 1000, 1000)], 0.0, 0.001) == []


def test_many_slots_do_not_ask_for_crumbs() -> None:
    assert (worth(2), worth(64)) == (0.012, 0.064)


def test_the_driver_writes_into_the_slot_of_the_one_thread_and_the_next_chunk_does_not_see_it(tmp_path: Path) -> None:
    box = BlackBox(tmp_path)
    slot = box.slot(RUN)
    watch, other = Watch(threading.Event(), slot, 7), Watch(threading.Event(), slot, 8)
    slot.note(3, 1)
    assert watch.claim(40) == 40
    (span,) = read_executing(tmp_path, os.getpid(), RUN) or ()
    assert span.until == 40
    cut(tmp_path, os.getpid(), span.slot, 7, 50)
    assert (watch.claim(45), watch.claim(60), watch.end(100), other.end(100)) == (45, 50, 50, 100)
    cut(tmp_path, os.getpid(), span.slot, 7, 47)
    assert (watch.end(100), other.end(100)) == (47, 100)
    assert Watch(threading.Event(), box.slot(RUN), 7).end(100) == 100


def test_cutting_a_chunk_of_a_process_that_is_gone_does_nothing(tmp_path: Path) -> None:
    cut(tmp_path, 1, 0, 7, 9)
    assert not list(tmp_path.iterdir())


def test_an_evaluator_ends_where_it_was_cut_also_in_the_middle_of_a_group(tmp_path: Path) -> None:
    slot, done = BlackBox(tmp_path).slot(RUN), []
    watch = Watch(threading.Event(), slot, 7)

    def item(number: int) -> int:
        if number == 40:
            cut(tmp_path, os.getpid(), slot.base, 7, 1_007)
        done.append(number)
        return number

    block = MapEvaluator(item, range(1_000_000))(0, 1_000_000, 1e9, watch)
    assert block.stop == 1_007
    assert done == list(range(1_007))


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
    for look, *words in begun:
        asyncio.run(look(*words))
        looks.append(executor.looks)
    assert looks == [0, 1]
    # Idle, busy and idle before the first look: that one has nothing to look for any more.
    begun.clear()
    for idle in (1, 0, 2):
        executor.even_out(idle, None)
    for look, *words in begun:
        asyncio.run(look(*words))
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
        UnderWay(7, 13, 5, 20, 16): (os.getpid(), slots[0].base),
        UnderWay(8, 27, 11, 40, 30): (os.getpid(), slots[2].base),
    }


def test_what_was_cut_off_is_taken_when_its_worker_is_seen_and_from_where_it_will_look_next(tmp_path: Path) -> None:
    slot = BlackBox(tmp_path).slot(RUN)
    cluster: Any = SimpleNamespace(pids=lambda: [os.getpid()])
    sent = Sent((10, 90), 1.0)
    executor = ClusterExecutor(None, 2, cluster, black_boxes=str(tmp_path), _run=RUN, _under_way={7: sent})
    executor._cuts = {7: 50, 6: 3}
    slot.note(-1, 1)
    executor._take_cuts()
    assert (sent.rest, executor._cuts) == ((10, 90), {7: 50}), "it is between two items"
    slot.cells[slot.at], slot.cells[slot.at + UNTIL] = 52, 55
    executor._take_cuts()
    assert (sent.rest, executor._cuts) == ((10, 55), {})
    (reply,) = executor.wait()
    assert (reply.chunk, reply.goes_on) == ((10, 90), (10, 55))


class Crowd:
    """A cluster that is asked three times whether others wait; then the run is over."""

    def __init__(self, waits: bool, others: bool) -> None:
        self.waits, self.others, self.asked, self.graphs = waits, others, 0, 0
        self.executor: Any = None

    def pids(self) -> list[int]:
        return [os.getpid()]

    def has_others(self, tasks: str) -> bool:
        return self.others

    async def next_graph(self, patience: float) -> None:
        assert patience == LONGEST_LOOK_SECONDS
        self.graphs += 1

    def others_wait(self, tasks: str) -> bool:
        assert tasks == f"map-{RUN}"
        self.asked += 1
        self.executor._stopped = self.asked == 3
        return self.waits


@pytest.mark.parametrize(("waits", "others"), [(False, True), (True, True), (False, False)])
def test_a_run_makes_room_while_others_wait(tmp_path: Path, waits: bool, others: bool) -> None:
    slot, sent, cluster = BlackBox(tmp_path).slot(RUN), Sent((0, 5_000), 1.0), Crowd(waits, others)
    slot.note(100, 1)
    slot.cells[slot.at + UNTIL] = 101
    executor = cluster.executor = ClusterExecutor(
        None, 1, cluster, black_boxes=str(tmp_path), _run=RUN, _kind="map", _under_way={7: sent}
    )
    executor._seconds_per_item = 0.001
    asyncio.run(executor._make_room(cluster))
    assert sent.rest == (0, 301 if waits else 5_000)
    assert cluster.graphs == (0 if others else 3), "without others it waits for some"


@pytest.mark.parametrize("boxed", [False, True])
def test_a_chunk_of_a_run_that_was_taken_away_ends_too(boxed: bool, tmp_path: Path) -> None:
    cancelled, done = threading.Event(), []
    watch = Watch(cancelled, BlackBox(tmp_path).slot(RUN) if boxed else None, 7)

    def item(number: int) -> None:
        done.append(number)
        if number == 40:
            cancelled.set()

    block = MapEvaluator(item, range(1_000_000))(10, 1_000_000, 1e9, watch)
    assert 30 < len(done) < 400
    assert block.stop == 10 + len(done)


@pytest.mark.parametrize("constraints", [[], ["number < 5"]])
@pytest.mark.parametrize("kind", ["map", "grid", "batch"])
def test_of_one_that_was_taken_away_before_nothing_is_done(kind: str, constraints: list[str]) -> None:
    cancelled = threading.Event()
    cancelled.set()
    space = ParameterSpace({"number": range(5_000)}, constraints=constraints)
    evaluator: Any = {
        "map": lambda: MapEvaluator(pytest.fail, range(5_000)),
        "grid": lambda: ScoreEvaluator(pytest.fail, space),
        "batch": lambda: BatchEvaluator(batch_objective(pytest.fail), space),
    }[kind]()
    block = evaluator(1_000, 5_000, 1e9, Watch(cancelled, None))
    assert (block.start, block.stop, block.evaluated, block.rejected) == (1_000, 1_000, 0, 0)


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
            executor.submit([(number, number + 1)], 1.0)
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


def test_who_waits_for_a_slot_is_seen_be_it_a_run_or_a_task_of_the_user(process_session: Any, tmp_path: Path) -> None:
    executor, gate = process_session._executor(), tmp_path / "open"
    executor.start(RUN, "map", MapEvaluator(work.waits_for, [str(gate)] * 4))
    cluster, client = process_session._cluster, process_session.client

    def waits(name: str) -> bool:
        async def look() -> bool:
            return cluster.others_wait(name)

        return bool(client.sync(look))

    try:
        for number in range(4):
            executor.submit([(number, number + 1)], 1.0)
        assert work.wait(lambda: len(cluster.scheduler.queued) == 2)
        assert (waits(f"map-{RUN}"), waits("map-another")) == (False, True)
        task = client.submit(abs, -1, pure=False)
        assert work.wait(lambda: waits(f"map-{RUN}"))
        gate.touch()
        assert task.result() == 1
        assert work.wait(lambda: not waits(f"map-{RUN}"))
    finally:
        gate.touch()
        executor.stop()


def test_a_graph_of_somebody_else_is_heard_of(process_session: Any, tmp_path: Path) -> None:
    cluster, client, gate = process_session._cluster, process_session.client, tmp_path / "open"

    async def heard() -> bool:
        waiting = asyncio.ensure_future(cluster.next_graph(60.0))
        await asyncio.sleep(0)
        futures.append(client.submit(work.waits_for, str(gate), pure=False, key="somebody-else"))
        await waiting
        return True

    async def has_others(name: str) -> bool:
        return cluster.has_others(name)

    async def stirred() -> bool:
        waiting = asyncio.ensure_future(cluster.next_graph(60.0))
        await asyncio.sleep(0)
        cluster.stir()
        await waiting
        return True

    futures: list[Any] = []
    try:
        assert client.sync(heard, callback_timeout=30)
        assert client.sync(stirred, callback_timeout=30)
        assert work.wait(lambda: client.sync(has_others, "map-another"))
        assert not client.sync(has_others, "somebody-else")
    finally:
        gate.touch()
    futures[0].result()
    assert work.wait(lambda: not client.sync(has_others, "map-another")), "what is done waits for nothing"


def test_a_run_that_is_over_waits_for_no_graph(
    process_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, cluster, gate = process_session._executor(), process_session._cluster, tmp_path / "open"
    monkeypatch.setattr("admf_dask.runtime.executors.LONGEST_LOOK_SECONDS", 600.0)
    executor.start(RUN, "map", MapEvaluator(work.waits_for, [str(gate)]))
    try:
        executor.submit([(0, 1)], 1.0)
        scheduler = cluster.scheduler
        assert work.wait(lambda: any(key[0] == f"map-{RUN}" for key in list(scheduler.tasks)))
        assert work.wait(lambda: bool(cluster._graphs._waiting))
        gate.touch()
        assert len(executor.wait()) == 1
        assert work.wait(lambda: bool(cluster._graphs._waiting)), "it is not over yet"
    finally:
        gate.touch()
        executor.stop()
    assert work.wait(lambda: not cluster._graphs._waiting)


def test_each_run_looks_for_those_who_wait(process_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looking: list[ClusterExecutor] = []

    async def look(executor: ClusterExecutor, cluster: Any) -> None:
        assert cluster is process_session._cluster
        looking.append(executor)

    monkeypatch.setattr(ClusterExecutor, "_make_room", look)
    assert process_session.map(abs, [-1], progress=False).values() == [1]
    assert len(looking) == 1
