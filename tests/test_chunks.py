"""Chunk sizing decides from numbers alone: simulated workers with a virtual clock, no cluster."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admf_dask.runtime.chunks import FLOOR_SECONDS, ChunkSizer, Pending

OVERHEAD = 0.005


def simulate(durations: list[float], slots: int) -> tuple[float, int]:
    """Seconds until all items are done, and the number of chunks, by the rules of driver and worker."""
    pending, sizer = Pending.of(len(durations)), ChunkSizer(slots)
    clock, chunks = 0.0, 0
    free = [0.0] * slots
    heapq.heapify(free)
    finishing: list[tuple[float, tuple[int, int], int, float]] = []
    while pending.count or finishing:
        while pending.count and len(finishing) < 2 * slots + 1:
            start, stop = pending.take(sizer.size(pending.count))
            budget, spent, reached = sizer.budget, 0.0, start
            while reached < stop and spent <= budget:
                spent += durations[reached]
                reached += 1
            begin = max(heapq.heappop(free), clock)
            heapq.heappush(free, begin + spent + OVERHEAD)
            heapq.heappush(finishing, (begin + spent + OVERHEAD, (start, stop), reached, spent))
            chunks += 1
        clock, (start, stop), reached, spent = heapq.heappop(finishing)
        sizer.record(reached - start, spent)
        pending.put_back(reached, stop)
    return clock, chunks


@pytest.mark.parametrize(("items", "seconds", "slots"), [(1_000_000, 1e-5, 2), (10_000, 0.02, 2), (400_000, 1e-3, 64)])
def test_even_items_reach_95_percent_of_ideal(items: int, seconds: float, slots: int) -> None:
    clock, chunks = simulate([seconds] * items, slots)
    assert items * seconds / slots / clock > 0.95
    assert chunks < 1.2 * items * seconds / 0.2 + 20 * slots


def test_a_short_run_is_cut_fine_enough_to_end_together() -> None:
    clock, _ = simulate([1e-5] * 100_000, 2)
    assert 0.5 / clock > 0.87


@pytest.mark.parametrize("where", ["last", "first", "shuffled"])
def test_items_fifty_times_longer_do_not_hold_up_the_end(where: str) -> None:
    durations = [0.002] * 1_900 + [0.1] * 100
    if where == "first":
        durations.reverse()
    if where == "shuffled":
        random.Random(7).shuffle(durations)
    clock, _ = simulate(durations, 4)
    assert clock < 1.12 * sum(durations) / 4


def test_many_slots_get_longer_chunks_so_that_one_driver_can_follow() -> None:
    sizer = ChunkSizer(1_000)
    sizer.record(1_000, 1.0)
    assert sizer.size(10**9) * 0.001 == pytest.approx(10.0)


def test_many_slots_are_not_cut_finer_than_the_driver_can_follow_at_the_start_nor_at_the_end() -> None:
    sizer = ChunkSizer(1_000)
    assert sizer.budget == pytest.approx(3.0)
    sizer.record(1_000, 1.0)
    assert sizer.size(1_000_000) * 0.001 == pytest.approx(3.0)
    _, chunks = simulate([0.02] * 500_000, 250)
    assert chunks < 1.35 * 500_000 * 0.02 / ChunkSizer(250).target  # 1.49 with the floor of few slots


def test_near_the_end_chunks_shrink_to_the_floor_and_not_below() -> None:
    sizer = ChunkSizer(4)
    sizer.record(10_000, 1.0)
    assert sizer.size(10**6) == 4_000
    assert sizer.size(6_000) == 1_200
    assert sizer.size(1_000) == round(FLOOR_SECONDS / 1e-4)
    assert sizer.size(10) == 10


def test_items_longer_than_a_chunk_go_one_by_one() -> None:
    sizer = ChunkSizer(2)
    sizer.record(1, 30.0)
    assert sizer.size(100) == 1


def test_items_that_take_no_measurable_time_still_come_to_an_end() -> None:
    sizer = ChunkSizer(2)
    sizer.record(100, 0.0)
    assert 1 <= sizer.size(10**9) <= 10**9
    sizer.record(0, 1.0)
    assert sizer.seconds_per_item == 0.0


@given(st.integers(0, 500), st.lists(st.integers(1, 60), min_size=1), st.randoms())
def test_every_item_is_handed_out_and_finished_once_whatever_is_put_back(
    total: int, sizes: list[int], chance: random.Random
) -> None:
    pending, done = Pending.of(total), []
    turn = 0
    while pending.count:
        start, stop = pending.take(sizes[turn % len(sizes)])
        reached = chance.randint(start + 1, stop)
        done += range(start, reached)
        pending.put_back(reached, stop)
        turn += 1
    assert sorted(done) == list(range(total))
    with pytest.raises(IndexError):
        pending.take(1)
