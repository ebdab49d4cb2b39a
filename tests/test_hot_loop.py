"""The loop around each item: none is lost, none done twice, wherever an exception comes from outside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from admf_dask import ParameterSpace
from admf_dask.policy import Policy
from admf_dask.runtime.alarm import SoftStop, stop_softly
from admf_dask.runtime.calls import BEGAN
from admf_dask.runtime.evaluate import GROUP_MOST, GROUP_SECONDS, MapEvaluator, Rows
from admf_dask.runtime.job import Watch
from admf_dask.runtime.score import ScoreEvaluator

SPACE = ParameterSpace({"a": range(5), "b": range(7), "c": range(2)})


def number(params: dict[str, Any]) -> float:
    return params["a"] * 14.0 + params["b"] * 2 + params["c"]


def evaluate(space: ParameterSpace, policy: Policy | None = None) -> Any:
    return ScoreEvaluator(number, space, policy=policy or Policy())(0, space.size, 1e9, Watch(threading.Event(), None))


@pytest.mark.parametrize("at", [0, 1, 5, 68, 69])
def test_a_soft_stop_that_lands_between_two_items_costs_none(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    each, left = ParameterSpace.each, [1]

    def struck(self: ParameterSpace, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for place, item in enumerate(each(self, start, stop), start):
            yield item
            if place == at and left.pop():
                left.append(0)
                raise SoftStop

    monkeypatch.setattr(ParameterSpace, "each", struck)
    block = evaluate(SPACE)
    assert left == [0]
    assert block.indices.tolist() == list(range(70))
    assert block.columns["score"].tolist() == [float(n) for n in range(70)]
    assert (block.failures, block.stop) == ((), 70)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OverflowError("of a space")])
def test_any_other_exception_between_two_items_is_not_an_items(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = ParameterSpace.each

    def broken(self: ParameterSpace, start: int, stop: int) -> Iterator[dict[str, Any]]:
        yield from [*each(self, start, stop)][:1]
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


def test_wherever_soft_stops_land_each_item_has_one_outcome() -> None:
    space = ParameterSpace({"a": range(300), "b": range(7), "c": range(2)})
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
    assert sorted([*block.indices.tolist(), *failed]) == list(range(space.size))
    assert np.array_equal(block.columns["score"], block.indices.astype(float))
    assert len(block.seconds) == len(block.indices)


@pytest.mark.parametrize("timeout", [None, 1.0, 0.1])
def test_quick_items_are_timed_in_groups(timeout: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes, together = [0.0], [], MapEvaluator._group

    def takes(seconds: float) -> None:
        clock[0] += seconds

    def counted(self: MapEvaluator, call: Any, stretch: Any, low: int, high: int, *rest: Any) -> None:
        sizes.append(high - low)
        together(self, call, stretch, low, high, *rest)

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    monkeypatch.setattr(MapEvaluator, "_group", counted)
    items = [3e-5] * 2_000 + [1.0] + [3e-5] * 300
    MapEvaluator(takes, items, policy=Policy(timeout=timeout))(0, len(items), 1e9, Watch(threading.Event(), None))
    # What is stopped is said to have begun with its group: two hundredths of a timeout at the most.
    most = int((GROUP_SECONDS if timeout is None else min(GROUP_SECONDS, timeout / 50)) / 3e-5)
    doubling = [2**n for n in range(10) if 2**n < most]
    growing, rest = sizes[: len(doubling)], sizes[len(doubling) :]
    assert growing == doubling
    slow = next(at for at in range(len(rest)) if sum(growing) + sum(rest[: at + 1]) > 2_000)
    assert set(rest[:slow]) <= {most, most + 1}, "neither grown beyond nor begun again"
    assert rest[slow + 1] == 1


def test_combinations_of_a_chunk_are_made_by_the_group_and_not_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked, each = [0.0], [], ParameterSpace.each

    def takes(params: dict[str, int]) -> float:
        clock[0] += 3e-5
        return 1.0

    def counted(self: ParameterSpace, start: int, stop: int) -> Any:
        asked.append(stop - start)
        return each(self, start, stop)

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    monkeypatch.setattr(ParameterSpace, "each", counted)
    space = ParameterSpace({"a": range(100), "b": range(50)})
    block = ScoreEvaluator(takes, space)(0, space.size, 1e9, Watch(threading.Event(), None))
    assert len(block.indices) == space.size
    most, growing = int(GROUP_SECONDS / 3e-5), [2**n for n in range(8)]
    assert asked[: len(growing)] == growing
    # Nothing but the end of the chunk makes a group smaller.
    assert set(asked[len(growing) : -1]) <= {most, most + 1}


def test_items_of_a_millisecond_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def takes(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("admf_dask.runtime.evaluate.perf_counter", lambda: clock[0])
    items = [0.0006, 0.0011] * 50
    block = MapEvaluator(takes, items)(0, 100, 1e9, Watch(threading.Event(), None))
    assert block.seconds == pytest.approx(items)


def test_spans_that_follow_one_another_are_one_and_others_are_not() -> None:
    rows = Rows(seconds=[(0.5, 10)])
    for span in (range(3), range(3, 5), range(7, 9), [10, 12], range(13, 14)):
        rows.add(span)
    assert rows.spans == [range(5), range(7, 9), [10, 12], range(13, 14)]
    indices, seconds = rows.table()
    assert indices.tolist() == [0, 1, 2, 3, 4, 7, 8, 10, 12, 13]
    assert seconds.tolist() == [0.5] * 10


def test_a_group_of_the_quickest_items_has_an_end() -> None:
    seen: list[int] = []

    class Counted(Watch):
        def claim(self, until: int) -> int:
            seen.append(until)
            return super().claim(until)

    MapEvaluator(abs, range(5_000))(0, 5_000, 1e9, Counted(threading.Event(), None))
    assert max(np.diff(seen)) <= GROUP_MOST


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
