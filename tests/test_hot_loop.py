"""The loop around each item: none is lost, none done twice, wherever an exception comes from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from admf_dask import ParameterSpace
from admf_dask.policy import Policy
from admf_dask.runtime.alarm import SoftStop, stop_softly
from admf_dask.runtime.calls import BEGAN
from admf_dask.runtime.evaluate import GROUP_MOST, GROUP_SECONDS, MapEvaluator, Rows, Stretch
from admf_dask.runtime.job import Watch
from admf_dask.runtime.score import FIRST_LOOK, LARGEST_LOOK, LOOK_SECONDS, ScoreEvaluator
from admf_dask.space.items import TOGETHER

SPACE = ParameterSpace({"a": range(5), "b": range(7), "c": range(2)})


def number(params: dict[str, Any]) -> float:
    return params["a"] * 14.0 + params["b"] * 2 + params["c"]


class Claims(Watch):
    """Notes how many items each group has."""

    def __init__(self) -> None:
        super().__init__(threading.Event(), None)
        self.sizes: list[int] = []
        self.done = 0

    def counting(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def counted(item: Any) -> Any:
            self.done += 1
            return function(item)

        return counted

    def claim(self, until: int) -> int:
        self.sizes.append(until - self.done)
        return super().claim(until)


def evaluate(space: ParameterSpace, policy: Policy | None = None) -> Any:
    return ScoreEvaluator(number, space, policy=policy or Policy())(0, space.size, 1e9, Watch(threading.Event(), None))


@pytest.mark.parametrize("space", [SPACE, SPACE.with_constraints("a >= 0")], ids=["grid", "constrained"])
@pytest.mark.parametrize("at", [0, 1, 5, 60, 68])
def test_a_soft_stop_that_lands_between_two_items_costs_none(
    at: int, space: ParameterSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, watch, struck = ParameterSpace.each, Watch(threading.Event(), None), []

    def strike(self: ParameterSpace, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for place, item in enumerate(each(self, start, stop), start):
            yield item
            # As an alarm does it: only while the cells say that an item is under way.
            if place >= at and watch.cells[watch.at] >= 0 and not struck:
                struck.append(place)
                raise SoftStop

    # No item takes any time, so the groups are of 1, 2, 4 ... items.
    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: 0.0)
    monkeypatch.setattr(ParameterSpace, "each", strike)
    block = ScoreEvaluator(number, space)(0, space.size, 1e9, watch)
    assert struck == [max(at, 1)]
    assert block.indices.tolist() == list(range(70))
    assert block.columns["score"].tolist() == [float(n) for n in range(70)]
    assert (block.failures, block.stop) == ((), 70)


@pytest.mark.parametrize("made", [0, 1, 2, 5])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OverflowError("of a space")])
def test_any_other_exception_between_two_items_is_not_an_items(
    error: BaseException, made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = ParameterSpace.each

    def broken(self: ParameterSpace, start: int, stop: int) -> Iterator[dict[str, Any]]:
        yield from [*each(self, start, stop)][:made]
        raise error

    monkeypatch.setattr(ParameterSpace, "each", broken)
    with pytest.raises(type(error)):
        evaluate(SPACE)


def test_an_item_that_is_called_again_is_made_again() -> None:
    calls: list[dict[str, int]] = []

    def spoils(params: dict[str, int]) -> float:
        calls.append(dict(params))
        params["a"] = -1
        if len(calls) in (1, 4):
            raise ValueError("try again")
        return float(params["b"])

    space = ParameterSpace({"a": [3], "b": range(4)})
    block = ScoreEvaluator(spoils, space, policy=Policy(retries=1))(0, 4, 1e9, Watch(threading.Event(), None))
    assert calls == [{"a": 3, "b": b} for b in (0, 0, 1, 2, 2, 3)]
    assert block.columns["score"].tolist() == [0, 1, 2, 3]
    assert block.attempts == {0: 2, 2: 2}


@pytest.mark.parametrize("constraint", ["a >= 0", "a % 10 > 2", "a % 10 < 3", None])
def test_wherever_soft_stops_land_each_item_has_one_outcome(constraint: str | None) -> None:
    space = ParameterSpace({"a": range(300), "b": range(7), "c": range(2)})
    allowed = list(range(space.size))
    if constraint is not None:
        space = space.with_constraints(constraint)
        allowed = np.flatnonzero(space.mask(0, space.size)[0]).tolist()
    watch, over, thread = Watch(threading.Event(), None), threading.Event(), threading.get_ident()
    cells, at = watch.cells, watch.at
    cells[at] = -1

    def strike() -> None:
        while not over.wait(0.0005):
            index, began = cells[at], cells[at + BEGAN]
            if index >= 0:
                stop_softly(thread, cells, at, index, began)

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        block = ScoreEvaluator(number, space, policy=Policy(timeout=60))(0, space.size, 1e9, watch)
    finally:
        over.set()
        striker.join()
    failed = [failure.index for failure in block.failures]
    assert {failure.failure.kind for failure in block.failures} <= {"timeout"}
    assert sorted([*block.indices.tolist(), *failed]) == allowed
    assert block.rejected == space.size - len(allowed)
    assert np.array_equal(block.columns["score"], block.indices.astype(float))
    assert len(block.seconds) == len(block.indices)


@pytest.mark.parametrize("timeout", [None, 1.0, 0.1])
def test_quick_items_are_timed_in_groups(timeout: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = [0.0], Claims()

    def takes(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    items = [3e-5] * 2_000 + [1.0] + [3e-5] * 300
    MapEvaluator(watch.counting(takes), items, policy=Policy(timeout=timeout))(0, len(items), 1e9, watch)
    sizes = watch.sizes
    # What is stopped is said to have begun with its group: two hundredths of a timeout at the most.
    most = int((GROUP_SECONDS if timeout is None else min(GROUP_SECONDS, timeout / 50)) / 3e-5)
    doubling = [2**n for n in range(10) if 2**n < most]
    growing, rest = sizes[: len(doubling)], sizes[len(doubling) :]
    assert growing == doubling
    slow = next(at for at in range(len(rest)) if sum(growing) + sum(rest[: at + 1]) > 2_000)
    assert set(rest[:slow]) <= {most, most + 1}, "neither grown beyond nor begun again"
    assert rest[slow + 1] == 1


@pytest.mark.parametrize("constraint", [None, "n != 3", "n % 4 == 0"])
@pytest.mark.parametrize("budget", [0.5, 1e9])
def test_a_group_ends_where_items_turn_slow(
    constraint: str | None, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a slot has hundreds of slow ones to do that nobody can take from it."""
    clock, watch, count = [0.0], Claims(), 1_100

    def takes(params: dict[str, int]) -> float:
        clock[0] += 2**-20 if params["n"] < 1_000 else 1.0
        return float(params["n"])

    for module in ("evaluate", "score"):
        monkeypatch.setattr(f"admf_dask.runtime.{module}.perf_counter", lambda: clock[0])
    space = ParameterSpace({"n": range(count)}, constraints=[] if constraint is None else [constraint])
    block = ScoreEvaluator(watch.counting(takes), space)(0, count, budget, watch)
    allowed = {None: lambda n: True, "n != 3": lambda n: n != 3, "n % 4 == 0": lambda n: n % 4 == 0}[constraint]
    called = [n for n in range(count) if allowed(n)]
    if budget < 1:
        called = [n for n in called if n <= 1_000]
        assert block.stop == 1_001
    else:
        assert block.stop == count
    quick = sum(n < 1_000 for n in called)
    assert set(block.seconds[:quick].tolist()) == {2**-20}
    assert set(block.seconds[quick:].tolist()) == {1.0}, "each has its own time, also the first"
    assert block.indices.tolist() == called
    assert block.columns["score"].tolist() == called
    assert block.rejected == block.stop - len(called)
    if constraint is None and budget > 1:
        slow = next(at for at in range(len(watch.sizes)) if sum(watch.sizes[: at + 1]) > 1_000)
        assert watch.sizes[slow] > 100
        assert watch.sizes[slow + 1 :] == [1] * 99


def test_a_group_ends_where_items_turn_slow_and_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = [0.0], Claims()

    def takes(number: int) -> int:
        clock[0] += 2**-20 if number < 1_000 else 1.0
        if number >= 1_000:
            raise ValueError(number)
        return number

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    block = MapEvaluator(watch.counting(takes), range(1_100))(0, 1_100, 0.5, watch)
    assert (block.stop, [(failed.index, failed.seconds) for failed in block.failures]) == (1_001, [(1_000, 1.0)])
    assert block.indices.tolist() == list(range(1_000))
    assert set(block.seconds.tolist()) == {2**-20}


def test_slow_items_among_quick_ones_have_their_own_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def takes(seconds: float) -> None:
        clock[0] += seconds
        if seconds > 5:
            raise ValueError(seconds)

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    items = ([2**-20] * 400 + [1.0] + [2**-20] * 99 + [8.0]) * 4
    block = MapEvaluator(takes, items)(0, len(items), 1e9, Watch(threading.Event(), None))
    assert block.seconds.tolist() == [items[index] for index in block.indices.tolist()]
    assert [(failed.index, failed.seconds) for failed in block.failures] == [(n, 8.0) for n in (500, 1001, 1502, 2003)]


def test_neither_combinations_nor_items_are_made_before_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ahead, each = [0], [], ParameterSpace.each

    def takes(item: Any) -> float:
        ahead.append(made[0] - len(ahead))
        return 1.0

    def counted(self: ParameterSpace, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for item in each(self, start, stop):
            made[0] += 1
            yield item

    class Counted(Sequence[int]):
        def __len__(self) -> int:
            return 5_000

        def __getitem__(self, index: Any) -> Any:
            made[0] += 1
            return index

    monkeypatch.setattr(ParameterSpace, "each", counted)
    for evaluator in (
        ScoreEvaluator(takes, ParameterSpace({"a": range(100), "b": range(50)})),
        ScoreEvaluator(takes, ParameterSpace({"a": range(100), "b": range(50)}, constraints=["a >= 0"])),
        MapEvaluator(takes, Counted()),
    ):
        made[0] = 0
        ahead.clear()
        evaluator(0, 5_000, 1e9, Watch(threading.Event(), None))
        assert ahead == [1] * 5_000


@pytest.mark.parametrize(
    "space",
    [
        ParameterSpace({"a": range(100), "b": range(50)}).sample(4_000, seed=1),
        ParameterSpace.from_mapping(
            [
                {"name": "kind", "type": "categorical", "options": ["x", "y"]},
                {"name": "length", "parent": "kind", "value_map": {"x": list(range(900)), "y": list(range(300))}},
            ]
        ),
    ],
    ids=["sample", "conditional"],
)
def test_what_is_made_together_is_made_some_hundred_at_a_time(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    picked, pick = [], type(space).pick

    def counted(self: Any, indices: Any) -> Any:
        picked.append(len(indices))
        return pick(self, indices)

    monkeypatch.setattr(type(space), "pick", counted)
    expected = [space[n] for n in range(space.size)]
    picked.clear()
    several = space.each(0, space.size)
    assert next(several) == expected[0]
    assert picked == [TOGETHER]
    assert list(several) == expected[1:]
    assert sum(picked) == space.size
    assert max(picked) == TOGETHER
    assert list(space.each(700, 1_100)) == expected[700:1_100]


def test_of_few_that_are_allowed_some_hundred_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    picked, called, pick = [], [], ParameterSpace.pick

    def counted(self: ParameterSpace, indices: Any) -> Any:
        picked.append(len(indices))
        assert len(called) == sum(picked[:-1]), "the others have been called"
        return pick(self, indices)

    def takes(params: dict[str, int]) -> float:
        called.append(params)
        return float(params["a"])

    monkeypatch.setattr(ParameterSpace, "pick", counted)
    space = ParameterSpace({"a": range(100), "b": range(100)}, constraints=["a % 3 == 1"])
    block = ScoreEvaluator(takes, space)(0, space.size, 1e9, Watch(threading.Event(), None))
    assert called == [{"a": a, "b": b} for a in range(1, 100, 3) for b in range(100)]
    assert (block.evaluated, block.rejected) == (3_300, 6_700)
    assert max(picked) == TOGETHER


@pytest.mark.parametrize("seconds", [2**-30, 2**-20, 2**-10, 2**-3])
def test_constraints_are_looked_at_as_far_ahead_as_is_quick(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In vain, if the chunk is cut before."""
    clock, looks, mask = [0.0], [], ParameterSpace.mask

    def counted(self: ParameterSpace, start: int, stop: int) -> Any:
        looks.append((start, stop - start))
        clock[0] += seconds * (stop - start)
        return mask(self, start, stop)

    monkeypatch.setattr(ParameterSpace, "mask", counted)
    monkeypatch.setattr("admf_dask.runtime.score.perf_counter", lambda: clock[0])
    space = ParameterSpace({"a": range(200), "b": range(200)}, constraints=["a != 7"])
    stop = 50 * FIRST_LOOK if seconds < 1e-4 else 2 * FIRST_LOOK
    block = ScoreEvaluator(lambda params: params["a"], space)(0, stop, 1e9, Watch(threading.Event(), None))
    most = max(1, min(LARGEST_LOOK, int(LOOK_SECONDS / seconds)))
    sizes = [size for _, size in looks]
    assert sizes[0] == FIRST_LOOK
    assert set(sizes[1:-1]) == {most}
    assert [start for start, _ in looks] == [sum(sizes[:at]) for at in range(len(sizes))]
    assert (block.stop, block.evaluated + block.rejected) == (stop, stop)


@pytest.mark.parametrize("at", [0, 400, FIRST_LOOK - 1])
def test_what_comes_before_an_item_whose_constraint_raises_is_one_chunk(at: int) -> None:
    """Even where the run stops at it: it has been looked at, but its turn has not come."""

    def constraint(params: dict[str, int]) -> bool:
        if params["a"] == at:
            raise ValueError("no such thing")
        return True

    space = ParameterSpace({"a": range(2_000)}, constraints=[constraint])
    evaluator = ScoreEvaluator(lambda params: params["a"], space, policy=Policy(on_error="raise"))
    block = evaluator(0, space.size, 1e9, Watch(threading.Event(), None))
    assert [failed.index for failed in block.failures] == [at]
    assert at < block.stop <= FIRST_LOOK
    assert block.indices.tolist() == [place for place in range(block.stop) if place != at]


def test_items_of_a_millisecond_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def takes(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    items = [0.0006, 0.0011] * 50
    block = MapEvaluator(takes, items)(0, 100, 1e9, Watch(threading.Event(), None))
    assert block.seconds == pytest.approx(items)


@pytest.mark.parametrize("indices", [[], [4, 9], range(3)])
def test_of_nothing_no_items_are_made(indices: Sequence[int]) -> None:
    def make(low: int, high: int) -> list[str]:
        assert low < high <= len(indices)
        return [f"item {index}" for index in indices[low:high]]

    stretch = Stretch(indices, make)
    for place in range(len(indices) + 1):
        stretch.go_to(place)
        assert list(stretch.pairs) == [(index, f"item {index}") for index in indices[place:]]


def test_spans_that_follow_one_another_are_one_and_others_are_not() -> None:
    rows = Rows(seconds=[(0.5, 10)])
    for span in (range(3), range(3, 5), range(7, 9), [10, 12], range(13, 14)):
        rows.add(span)
    assert rows.spans == [range(5), range(7, 9), [10, 12], range(13, 14)]
    indices, seconds = rows.table()
    assert indices.tolist() == [0, 1, 2, 3, 4, 7, 8, 10, 12, 13]
    assert seconds.tolist() == [0.5] * 10


def test_a_group_of_the_quickest_items_has_an_end() -> None:
    watch = Claims()
    MapEvaluator(watch.counting(abs), range(5_000))(0, 5_000, 1e9, watch)
    assert sum(watch.sizes) == 5_000
    assert max(watch.sizes) <= GROUP_MOST


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 6, 1), (2, 1, 3), (7,), (1, 1), (4, 2)])
def test_combinations_one_by_one_are_those_of_the_grid(sizes: tuple[int, ...]) -> None:
    axes = {f"p{n}": [f"{n}{value}" for value in range(size)] for n, size in enumerate(sizes)}
    space = ParameterSpace(axes)
    expected = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    for start in range(space.size + 1):
        for stop in range(start, space.size + 1):
            found = list(space.each(start, stop))
            assert found == expected[start:stop]
            assert len({id(item) for item in found}) == len(found)
