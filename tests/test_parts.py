"""A worker that tells what it has of a chunk and goes on: what it posts, what the driver makes of it, and a death."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cut_work as work
import numpy as np
import pytest

from admf_dask import ParameterSpace, Session
from admf_dask.admission import Admission
from admf_dask.outcomes import Block
from admf_dask.policy import Policy
from admf_dask.runtime import job as jobs
from admf_dask.runtime.blackbox import BlackBox, cut
from admf_dask.runtime.chunks import PARTS, Budget
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.executors import ClusterExecutor, Sent
from admf_dask.runtime.job import POSTED, Job, Watch, pack_reply, unpack_reply
from admf_dask.runtime.score import ScoreEvaluator
from admf_dask.runtime.supply import Supply
from admf_dask.weights import Weights

RUN = "0123456789abcdef" * 2


class Paced:
    """An evaluator that does so many items in each part, in so many seconds by its own account."""

    def __init__(self, evaluator: MapEvaluator, *parts: tuple[int, float]) -> None:
        self.evaluator, self.policy, self.parts = evaluator, evaluator.policy, list(parts)

    def __call__(self, start: int, stop: int, budget: float, watch: Watch) -> Block:
        items, busy = self.parts.pop(0)
        return replace(self.evaluator(start, min(stop, start + items), 60.0, watch), busy=busy)


class Told(Job):
    """A job on a worker that keeps what it posts."""

    def __init__(self, evaluator: Any, *, posts: bool = True) -> None:
        super().__init__(RUN, b"", None, posts=posts)
        self.words: list[dict[str, Any]] = []
        self._lock, self._evaluator, self._worker = threading.Lock(), evaluator, self
        self.loop = SimpleNamespace(add_callback=lambda send, words: send(words))

    def batched_send(self, words: dict[str, Any]) -> None:
        self.words.append(words)

    def spans(self) -> list[tuple[int, int, int | None]]:
        blocks = [(unpack_reply(words["packed"]), words["goes_on_at"]) for words in self.words]
        return [(block.start, block.stop, goes_on_at) for block, goes_on_at in blocks]


ITEMS = MapEvaluator(abs, range(100))
SOON = (50, 0.5)
"""Of 90 items the others take 0.4 seconds at that pace."""


def test_a_worker_that_will_soon_be_done_tells_what_it_has_and_goes_on() -> None:
    job = Told(Paced(ITEMS, SOON, (40, 0.4)))
    assert job.evaluate(10, 100, 0.5, Watch(threading.Event(), None, 7)) == POSTED
    assert job.spans() == [(10, 60, 60), (60, 100, None)]
    assert {(words["run"], words["number"]) for words in job.words} == {(RUN, 7)}


def test_one_that_will_not_returns_the_rest_and_so_does_one_that_was_too_hopeful() -> None:
    few = 90 // PARTS - 1
    job = Told(Paced(ITEMS, (few, 0.5)))
    assert job.evaluate(10, 100, 0.5, Watch(threading.Event(), None)) == POSTED
    assert job.spans() == [(10, 10 + few, None)]
    job = Told(Paced(ITEMS, SOON, *[(3, 0.5)] * (PARTS - 1)))
    assert job.evaluate(10, 100, 0.5, Watch(threading.Event(), None)) == POSTED
    assert job.spans() == [(10, 60, 60), (60, 63, None)]
    job = Told(Paced(ITEMS, SOON, *[(14, 0.5)] * (PARTS - 1)))
    assert job.evaluate(10, 100, 0.5, Watch(threading.Event(), None)) == POSTED
    assert [goes_on for _, _, goes_on in job.spans()] == [60, 74, 88, None]


def test_a_chunk_that_is_done_is_told_of_once() -> None:
    job = Told(ITEMS)
    assert job.evaluate(10, 100, 60.0, Watch(threading.Event(), None)) == POSTED
    assert job.spans() == [(10, 100, None)]


def test_where_nobody_listens_for_posts_the_task_returns_what_fits_into_one_budget() -> None:
    job = Told(Paced(ITEMS, SOON), posts=False)
    assert unpack_reply(job.evaluate(10, 100, 0.5, Watch(threading.Event(), None))).stop == 60
    assert job.words == []


@pytest.mark.parametrize("limit", ["LARGEST_PART", "LARGEST_POSTED"])
def test_large_parts_end_their_chunk_so_that_they_do_not_pile_up(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LARGEST_PART", 10)
    monkeypatch.setattr(jobs, limit, 10)
    job = Told(Paced(ITEMS, SOON))
    answer = job.evaluate(10, 100, 0.5, Watch(threading.Event(), None))
    if limit == "LARGEST_PART":
        assert (answer, job.spans()) == (POSTED, [(10, 60, None)])
    else:
        assert (unpack_reply(answer).stop, job.words) == (60, [])


@pytest.mark.parametrize("end", [60, 75, 100])
def test_a_chunk_that_is_cut_goes_on_to_there(tmp_path: Any, end: int) -> None:
    box = BlackBox(tmp_path)
    watch = Watch(threading.Event(), box.slot(RUN), 7)

    def item(number: int) -> None:
        if number == 59:
            cut(tmp_path, os.getpid(), watch.slot.base if watch.slot else -1, 7, end)

    job = Told(Paced(MapEvaluator(item, range(100)), SOON, (40, 0.4)))
    job.evaluate(10, 100, 0.5, watch)
    assert job.spans() == ([(10, 60, None)] if end == 60 else [(10, 60, 60), (60, end, None)])


class CutMeanwhile(Watch):
    """Its chunk is cut where the next part begins, when that has begun."""

    looks = 0

    def end(self, stop: int) -> int:
        self.looks += 1
        return stop if self.looks == 1 else min(stop, 60)


def test_a_chunk_that_is_cut_where_its_next_part_begins_ends_there() -> None:
    job = Told(Paced(MapEvaluator(abs, range(100)), SOON, (0, 0.0)))
    # Only the job looks here: the evaluator has a watch of its own.
    watch = CutMeanwhile(threading.Event(), None)
    job._evaluator.evaluator = lambda start, stop, *_: ITEMS(start, stop, 60.0, Watch(threading.Event(), None))  # type: ignore[union-attr]
    job.evaluate(10, 100, 0.5, watch)
    assert job.spans() == [(10, 60, 60), (60, 60, None)]


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_a_failure_that_ends_the_run_ends_the_chunk(on_error: str) -> None:
    job = Told(
        Paced(MapEvaluator(lambda number: 1 // (number - 59), range(100), (), Policy(on_error)), SOON, (40, 0.4))
    )
    job.evaluate(10, 100, 0.5, Watch(threading.Event(), None))
    assert job.spans() == ([(10, 60, None)] if on_error == "raise" else [(10, 60, 60), (60, 100, None)])


def _block(start: int, stop: int) -> bytes:
    return pack_reply(MapEvaluator(abs, range(100))(start, stop, 60.0, Watch(threading.Event(), None)))


def told(executor: ClusterExecutor) -> list[Any]:
    return [(reply.chunk, reply.block and reply.block.stop, reply.goes_on) for reply in executor.wait()]


def test_the_driver_knows_what_is_left_of_a_chunk() -> None:
    sent = Sent((0, 40), 1.0)
    executor = ClusterExecutor(None, 2, _under_way={7: sent})
    executor._on_post(7, _block(0, 10), 10)
    assert sent.rest == (10, 40)
    executor._on_post(6, _block(10, 11), None)
    executor._on_post(7, _block(10, 30), None)
    executor._on_post(7, _block(30, 40), None)
    assert told(executor) == [((0, 40), 10, (10, 40)), ((10, 40), 30, None)]
    assert executor._under_way == {}


def test_nothing_is_heard_of_a_run_that_is_over() -> None:
    executor = ClusterExecutor(None, 2, _under_way={7: Sent((0, 40), 1.0)}, _stopped=True)
    executor._on_post(7, _block(0, 10), None)
    assert executor._replies.empty()


def test_what_is_left_of_a_chunk_weighs_what_it_weighs() -> None:
    memory = np.array([50, 10, 10, 10], np.int64)
    admission = Admission(threads=2, room=60)
    supply = Supply.of(4, 2, Weights(np.ones(4, np.int64), memory), admission)
    supply.pending.take(4)
    supply.begin((0, 4))
    assert admission.allowance == 10
    supply.end((0, 4))
    supply.reached((0, 4), 1, 0.1, (1, 4))
    assert (admission.allowance, supply.pending.count) == (50, 0)
    supply.end((1, 4))
    supply.settle((1, 4), (1, 3))
    assert (admission.allowance, supply.pending.count) == (50, 1)
    supply.end((1, 3))
    supply.reached((1, 3), 2, 0.1)
    assert (admission.allowance, supply.pending.count) == (float("inf"), 2)


def test_on_a_cluster_a_part_is_seen_while_its_task_goes_on(process_session: Session, tmp_path: Any) -> None:
    items, tasks = [(number, str(tmp_path)) for number in range(24)], {}
    for outcome in process_session.as_completed(work.waits_until_the_first_is_seen, items):
        tasks[outcome.index] = outcome.value
        (tmp_path / f"seen-{outcome.index}").touch()
    assert isinstance(tasks[10], str)
    assert tasks[10] == tasks[11]


def test_of_a_worker_that_dies_what_it_told_is_done(killable_session: Session, tmp_path: Any) -> None:
    items = [(number, str(tmp_path)) for number in range(12 * killable_session.layout.workers)]
    result = killable_session.map(work.dies_once_after_it_told, items, progress=False)
    assert result.values() == list(range(len(items)))
    calls = [len(list(tmp_path.glob(f"call-{number}-*"))) for number in range(12)]
    assert calls == [1] * 11 + [2], "ten and one were told, the next took the worker along once"


@pytest.mark.parametrize(
    ("reached", "now", "spent"),
    [
        (10, 0.49, False), (10, 0.5, False), (10, 0.51, True), (80, 0.51, True), (84, 0.51, True), (86, 0.51, False),
        (99, 0.51, False), (99, 0.59, False), (99, 0.61, True), (0, 0.51, True), (100, 0.7, True),
    ],
)  # fmt: skip
def test_a_budget_is_spent_unless_a_little_more_is_all_that_is_needed(reached: int, now: float, spent: bool) -> None:
    assert Budget(0.5, 0, 100, 0.0).is_spent(reached, now) is spent
    assert Budget(0.5, 1_000, 1_100, 60.0).is_spent(1_000 + reached, 60.0 + now) is spent


@pytest.mark.parametrize("constraints", [(), ("number >= 0",)])
@pytest.mark.parametrize(
    ("seconds", "reached"),
    [([0.01] * 110, 110), ([0.01] * 118, 118), ([0.0101] * 130, 100), ([0.0101] * 100 + [0.05] * 10, 103)],
)
def test_a_worker_goes_on_to_the_end_of_a_chunk_that_is_near(
    seconds: list[float], reached: int, constraints: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def takes(params: dict[str, int]) -> float:
        clock[0] += seconds[params["number"]]
        return 1.0

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    space = ParameterSpace({"number": range(len(seconds))}, constraints=constraints)
    block = ScoreEvaluator(takes, space)(0, space.size, 1.0, Watch(threading.Event(), None))
    assert block.stop == reached
    assert len(block.indices) == reached
