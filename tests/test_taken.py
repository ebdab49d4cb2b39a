"""What is taken from a worker that is in the middle of a long item: what evaluators do of it, and the driver makes of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from admf_dask import ParameterSpace, batch_objective
from admf_dask.backtests.work import Backtests
from admf_dask.outcomes import Block
from admf_dask.runtime.calls import UNTIL
from admf_dask.runtime.driver import Run, Title
from admf_dask.runtime.evaluate import GROUP_MOST, MapEvaluator
from admf_dask.runtime.executors import ClusterExecutor, Sent
from admf_dask.runtime.job import Watch, pack_reply
from admf_dask.runtime.replies import Range, Reply
from admf_dask.runtime.score import BatchEvaluator, ScoreEvaluator

COUNT = 5_000


class Cut(Watch):
    """Its chunk is cut during a call, so many items after what the evaluator had said by then."""

    def __init__(self, later: int = 0) -> None:
        super().__init__(threading.Event(), None)
        self.later = later
        self.before: int | None = None

    def end(self, stop: int) -> int:
        return stop if self.before is None else min(stop, self.before)

    def cut(self) -> None:
        if self.before is None:
            self.before = self.cells[self.at + UNTIL] + self.later


@pytest.mark.parametrize("later", [0, 1, 37, 600])
@pytest.mark.parametrize("at", [0, 1, 2, 40, 511, 512, 700, 1022, 1023, 3000, COUNT - 2])
@pytest.mark.parametrize("kind", ["map", "grid", "constrained", "mostly constrained", "batch", "batch that fails"])
def test_an_evaluator_does_all_before_the_cut_and_nothing_after_it(kind: str, at: int, later: int) -> None:
    watch, called = Cut(later), []

    def item(number: int) -> float:
        called.append(number)
        if number >= at:
            watch.cut()
        if kind == "batch that fails" and number == at:
            raise ValueError(number)
        return float(number)

    def many(columns: dict[str, Any]) -> Any:
        return [item(number) for number in columns["number"].tolist()]

    constraints = {
        "constrained": ["number % 3 > 0 or number < 3"],
        # Whole slices of the grid have nothing to evaluate.
        "mostly constrained": ["number < 3 or 1000 < number < 1030 or number > 2900"],
    }.get(kind, [])
    space = ParameterSpace({"number": range(COUNT)}, constraints=constraints)
    evaluator: MapEvaluator
    if kind == "map":
        evaluator = MapEvaluator(item, range(COUNT))
    elif kind.startswith("batch"):
        evaluator = BatchEvaluator(batch_objective(max_rows=100)(many), space)
    else:
        evaluator = ScoreEvaluator(lambda params: item(params["number"]), space)
    block = evaluator(0, COUNT, 1e9, watch)
    assert watch.before is not None
    assert block.stop == min(COUNT, watch.before)
    assert max(called) < watch.before
    if "mostly" not in kind:
        # Quick items are evaluated in groups; a third of the constrained ones are no items.
        assert watch.before <= at + later + GROUP_MOST * (1.6 if kind == "constrained" else 1)
    assert block.evaluated + block.rejected == block.stop


def test_nor_do_backtests_that_are_done_together(monkeypatch: pytest.MonkeyPatch) -> None:
    import admf_dask.backtests.work as module
    from admf_dask.runtime.calls import BEGAN

    watch, done = Cut(), []

    def together(configs: list[Any], of: list[Any], prices: Any) -> Any:
        assert watch.cells[watch.at + BEGAN]
        watch.cut()
        done.append(len(configs))
        raise RuntimeError("each has to say for itself")

    def alone(self: Any, stretch: Any, start: int, stop: int, *_: Any) -> int:
        done.append(stop)
        return stop

    monkeypatch.setattr(module, "run_together", together)
    monkeypatch.setattr(Backtests, "_loop", alone)
    monkeypatch.setattr(Backtests, "_alike", lambda self, families, low, high: (list(range(high - low)), [None]))
    monkeypatch.setattr(Backtests, "_pack", lambda self, start, reached, rows, began: reached)
    monkeypatch.setattr(module, "Families", lambda *_: None)
    task: Any = type("Task", (), {"engine": "auto", "rename": None})()
    reached: Any = Backtests(task, range(COUNT), (None,))(0, COUNT, 1e9, watch)
    assert done == [watch.before, watch.before]
    assert reached == watch.before


def test_the_driver_is_told_what_was_taken_and_the_chunk_is_the_shorter_for_it() -> None:
    sent = Sent((0, 40), 1.0)
    executor = ClusterExecutor(None, 2, _under_way={7: sent})
    executor._take_away(7, 11)
    executor._take_away(7, 11)
    executor._take_away(7, 12)
    assert sent.rest == (0, 11)
    executor._on_post(7, _block(0, 11), None)
    seen = [(reply.chunk, reply.block and reply.block.stop, reply.goes_on) for reply in executor.wait()]
    assert seen == [((0, 40), None, (0, 11)), ((0, 11), 11, None)]


def test_a_worker_that_goes_on_with_what_was_taken_is_not_waited_for() -> None:
    executor = ClusterExecutor(None, 2, _under_way={7: Sent((0, 11), 1.0)})
    executor._on_post(7, _block(0, 20), 20)
    assert executor._under_way == {}
    (reply,) = executor.wait()
    assert (reply.chunk, reply.goes_on) == ((0, 11), None)


def _block(start: int, stop: int) -> bytes:
    return pack_reply(MapEvaluator(abs, range(100))(start, stop, 60.0, Watch(threading.Event(), None)))


@dataclass
class Script:
    """An executor that answers each chunk as it is told, and where it is not told with what the evaluator makes of it."""

    answers: dict[Range, list[Reply]]
    slots: int = 1
    in_flight_limit: int = 1
    can_cut: bool = True
    submitted: list[Range] = field(default_factory=list)
    replies: queue.SimpleQueue[Reply] = field(default_factory=queue.SimpleQueue)

    def start(self, run: str, kind: str, evaluator: MapEvaluator) -> None:
        self.evaluator = evaluator

    def submit(self, chunks: Sequence[Range], budget: float, *, alone: bool = False) -> None:
        for chunk in chunks:
            self.submitted.append(chunk)
            for reply in self.answers.pop(chunk, [None]):  # type: ignore[list-item]
                self.replies.put(reply or Reply(chunk, block=self.evaluate(*chunk)))

    def evaluate(self, start: int, stop: int) -> Any:
        return self.evaluator(start, stop, 60.0, Watch(threading.Event(), None))

    def even_out(self, idle: int, seconds_per_item: float | None) -> None:
        return

    def wait(self) -> list[Reply]:
        return [self.replies.get(timeout=10)]

    def stop(self) -> None:
        return


def test_each_item_is_in_one_block_whatever_is_taken_and_whoever_began_it_all_the_same() -> None:
    evaluator = MapEvaluator(abs, range(10))

    def block(start: int, stop: int) -> Block:
        return evaluator(start, stop, 60.0, Watch(threading.Event(), None))

    answers = {
        (0, 10): [Reply((0, 10), goes_on=(0, 4)), Reply((0, 4), block=block(0, 6))],
        (0, 4): [Reply((0, 4), block=block(0, 2), goes_on=(2, 4)), Reply((2, 4), block=block(2, 4))],
    }
    script = Script(answers)
    blocks = list(Run(evaluator, 10, script, Title("map", "abs")))
    assert sorted(np.concatenate([block.indices for block in blocks]).tolist()) == list(range(10))
    assert script.submitted[0] == (0, 10)
    assert (0, 4) in script.submitted[1:]
    assert script.replies.empty()
    assert not answers
