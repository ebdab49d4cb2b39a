"""Weights, admission and supply decide from numbers alone: simulated workers with a virtual clock, no cluster."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask import Layout
from admf_dask.admission import BARE_PROCESS, Admission
from admf_dask.events import BlockFinished, BlockRecalled, RunStarted
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.progress.state import ProgressState
from admf_dask.runtime.chunks import PARTS
from admf_dask.runtime.supply import LONG_SECONDS, Supply
from admf_dask.spread import WORTH, enough, is_urgent, makespan
from admf_dask.weights import Weights

GIB = 2**30
OVERHEAD = 0.005


def weights(work: list[int], memory: list[int] | None = None) -> Weights:
    return Weights(np.array(work, np.int64), np.array(memory or [0] * len(work), np.int64))


class Machine:
    """Slots in processes that take what the supply hands out; which process takes a chunk is the worst choice there is."""

    def __init__(self, supply: Supply, seconds: list[float], slots: int) -> None:
        self.supply, self.seconds, self.slots = supply, seconds, slots
        self.clock = 0.0
        self.flying: list[tuple[float, tuple[int, int], int, float]] = []
        self.free = [0.0] * slots
        self.done: list[int] = []
        self.chunks: list[tuple[int, int]] = []
        self.seen: list[list[tuple[int, int]]] = []
        """What was in flight together, each time that something began."""
        self.spans: list[tuple[float, float, tuple[int, int]]] = []
        """From when to when each chunk ran."""

    def run(self) -> float:
        while True:
            while len(self.flying) < 2 * self.slots and (chunk := self.supply.next(len(self.flying))) is not None:
                self._begin(chunk)
            if not self.flying:
                assert not self.supply.pending.count, "nothing is under way and nothing begins: stuck"
                return self.clock
            self._end()

    def _begin(self, chunk: tuple[int, int]) -> None:
        start, stop = chunk
        spent, reached = 0.0, start
        while reached < stop and spent <= self.supply.sizer.budget:
            spent += self.seconds[reached]
            reached += 1
        begins = max(heapq.heappop(self.free), self.clock)
        at = begins + spent + OVERHEAD
        self.spans.append((begins, at, chunk))
        heapq.heappush(self.free, at)
        heapq.heappush(self.flying, (at, chunk, reached, spent))
        self.chunks.append(chunk)
        self.seen.append([flying[1] for flying in self.flying])

    def _end(self) -> None:
        self.clock, chunk, reached, spent = heapq.heappop(self.flying)
        self.supply.end(chunk)
        self.supply.reached(chunk, reached, spent)
        self.done += range(chunk[0], reached)


def peak(machine: Machine, memory: list[int]) -> int:
    """The most that ran at the same time, each chunk with the heaviest of its items."""
    changes = [
        change
        for begins, ends, (start, stop) in machine.spans
        for change in ((begins, max(memory[start:stop])), (ends, -max(memory[start:stop])))
    ]
    return int(np.cumsum([by for _, by in sorted(changes)]).max())


def skewed(count: int = 500) -> list[int]:
    """Sizes of files, a hundredfold apart, the largest first."""
    sizes = np.random.default_rng(3).lognormal(0, 1.1, count)
    return sorted((np.clip(sizes, 0.1, 10) * 100_000).astype(int).tolist(), reverse=True)


# Weights


def test_weights_add_up_and_reach() -> None:
    w = weights([50, 30, 10, 5, 5], [9, 1, 4, 2, 2])
    assert [w.work_of(0, 5), w.work_of(1, 3), w.memory_of(1, 5), w.memory_of(2, 2)] == [100, 40, 4, 0]
    assert [w.reach(0, 5, 1), w.reach(0, 5, 79), w.reach(0, 5, 80), w.reach(2, 4, 1_000)] == [1, 1, 2, 4]
    part = w.at(np.array([4, 1]))
    assert (part.work_of(0, 2), part.memory_of(0, 2)) == (35, 2)
    for wrong in ([0, 1], [3]):
        with pytest.raises(ValueError, match="at least 1"):
            weights(wrong, [1, 1])


# Admission


def test_only_threads_that_share_a_limited_process_need_admission() -> None:
    assert Admission.of(Layout("process", 4, 1, GIB)) is None
    assert Admission.of(Layout("hybrid", 2, 2, 0)) is None
    hybrid, thread = Admission.of(Layout("hybrid", 2, 3, GIB)), Admission.of(Layout("thread", 1, 2, GIB))
    assert hybrid is not None
    assert thread is not None
    assert (hybrid.threads, thread.threads) == (3, 2)
    assert hybrid.room == pytest.approx(thread.room - BARE_PROCESS) == pytest.approx(0.85 * GIB - BARE_PROCESS, abs=2)


def test_two_that_do_not_fit_together_do_not_meet() -> None:
    admission = Admission(threads=2, room=100)
    assert admission.allowance == float("inf"), "the first is let in whatever it takes"
    admission.begin(70)
    assert admission.allowance == 30
    admission.begin(20)
    assert admission.allowance == 30, "with two threads a third never runs beside those two"
    admission.end(70)
    assert admission.allowance == 80
    assert admission.waits_for_lighter(90)
    assert not admission.waits_for_lighter(20)
    admission.end(20)
    admission.begin(150)
    assert admission.allowance < 0, "what does not fit at all runs with nothing else under way"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 130), min_size=1, max_size=40),
    st.integers(2, 4),
    st.integers(1, 3),
    st.booleans(),
)
def test_whatever_meets_fits_and_everything_is_done_once(
    memory: list[int], threads: int, processes: int, largest_first: bool
) -> None:
    memory = sorted(memory, reverse=True) if largest_first else memory
    supply = Supply.of(len(memory), threads * processes, weights(memory, memory), Admission(threads=threads, room=100))
    machine = Machine(supply, [size / 100 for size in memory], threads * processes)
    machine.run()
    assert sorted(machine.done) == list(range(len(memory)))
    for together in machine.seen:
        heaviest = sorted((max(memory[start:stop]) for start, stop in together), reverse=True)[:threads]
        assert len(together) == 1 or sum(heaviest) <= 100, "they could have met in one process"
    assert supply.admission is not None
    assert supply.admission.under_way == []


def test_small_ones_go_beside_a_giant_and_the_next_giant_is_not_overtaken_for_ever() -> None:
    memory = [60, 55, 50, *[15] * 200]
    supply = Supply.of(len(memory), 2, weights([m * 1000 for m in memory], memory), Admission(threads=2, room=65))
    machine = Machine(supply, [m / 60 for m in memory], 2)
    machine.run()
    giants = [next(n for n, (start, stop) in enumerate(machine.chunks) if start <= g < stop) for g in range(3)]
    assert giants == sorted(giants)
    assert giants[2] < 40, "the third giant waited for the small ones to be over"


# Memory of all processes together


def bars(count: int = 500, largest: int = 500_000) -> tuple[list[int], list[int], list[float]]:
    """(work, bytes, seconds) of symbols whose bars differ a hundredfold in number, the largest first."""
    rows = np.random.default_rng(11).lognormal(0, 1.3, count) * largest / 50
    rows = np.sort(np.clip(rows, largest / 100, largest).astype(int))[::-1]
    return (rows * 40 + 262_144).tolist(), (rows * 500).tolist(), (0.013 + 2e-6 * rows).tolist()


def at_once(
    work: list[int], memory: list[int], seconds: list[float], slots: int, *, spread: bool, can_cut: bool = False
) -> tuple[float, int]:
    """(seconds, peak of memory) of a run; without `spread` the largest come first, whatever they take."""
    supply = Supply.of(len(work), slots, weights(work, memory if spread else None), can_cut=can_cut)
    machine = Machine(supply, seconds, slots)
    clock = machine.run()
    assert sorted(machine.done) == list(range(len(work)))
    return clock, peak(machine, memory)


@pytest.mark.parametrize("can_cut", [False, True])
@pytest.mark.parametrize(("slots", "part"), [(2, 0.7), (4, 0.45), (8, 0.65)])
def test_giants_run_one_after_the_other_and_the_end_comes_no_later(slots: int, part: float, can_cut: bool) -> None:
    work, memory, seconds = bars()
    plain, most = at_once(work, memory, seconds, slots, spread=False, can_cut=can_cut)
    assert most > 0.7 * sum(memory[:slots]), "without it giants meet"
    clock, found = at_once(work, memory, seconds, slots, spread=True, can_cut=can_cut)
    assert found < part * most
    assert clock < 1.05 * plain
    assert sum(seconds) / slots / clock > (0.93 if slots == 8 else 0.96)


def test_giants_that_are_most_of_the_work_are_done_together() -> None:
    sizes = [100_000] * 40 + [1_000] * 100
    memory = [size * 5_000 for size in sizes]
    assert enough(weights(sizes, memory), 2) >= 1.9 * memory[0]  # type: ignore[operator]
    sizes = [100_000] * 40 + [1_000] * 6_000
    assert enough(weights(sizes, [size * 5_000 for size in sizes]), 2) < 1.2 * memory[0]  # type: ignore[operator]


def test_what_takes_longer_than_it_seemed_holds_up_nothing() -> None:
    work, memory, seconds = bars()
    chance = np.random.default_rng(5)
    wrong = [second * factor for second, factor in zip(seconds, chance.lognormal(0, 0.7, len(seconds)), strict=True)]
    plain, _ = at_once(work, memory, wrong, 4, spread=False)
    clock, _ = at_once(work, memory, wrong, 4, spread=True)
    assert clock < 1.05 * plain


def test_small_matters_change_nothing() -> None:
    work, memory, _ = bars(largest=30_000)
    assert sum(memory[:2]) - memory[0] < WORTH
    assert enough(weights(work, memory), 2) is None
    assert enough(weights(*bars()[:2]), 1) is None
    assert Supply.of(3, 2, weights([3, 2, 1])).admission is None


def test_items_that_are_alike_go_in_long_chunks_where_those_can_be_cut() -> None:
    found = [Supply.of(3, 2, of, can_cut=can_cut) for of in (None, weights([3, 2, 1])) for can_cut in (False, True)]
    assert [supply.sizer.parts for supply in found] == [1, PARTS, 1, 1]


def test_many_items_are_counted_in_bundles() -> None:
    work, memory, _ = bars(50_000)
    few = enough(weights(work[::25], memory[::25]), 8)
    assert memory[0] < enough(weights(work, memory), 8) < 1.1 * few  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 3_000))
def test_the_clock_of_the_trial_counts_each_item_once(sizes: list[int], slots: int, room: int) -> None:
    work = np.array(sorted(sizes, reverse=True))
    loads = [0] * slots
    for size in work.tolist():
        loads[loads.index(min(loads))] += size
    assert makespan(work, work, slots, sum(sizes)) == max(loads), "with room for all it is largest first"
    assert -(-sum(sizes) // slots) <= makespan(work, work, slots, room) <= sum(sizes)
    assert is_urgent(5, 10, 2)
    assert not is_urgent(4, 10, 2)


# Chunks by weight


def test_a_giant_goes_alone_and_small_ones_together() -> None:
    sizes = [4_000_000, 3_000_000, *[20_000] * 100]
    supply = Supply.of(len(sizes), 2, weights(sizes))
    first = supply.next(0)
    assert first == (0, 1)
    supply.reached(first, 1, 4.0)
    assert supply.next(1) == (1, 2)
    chunk = supply.next(0)
    assert chunk is not None
    assert 5 <= chunk[1] - chunk[0] <= 20, "a fifth of a second of small ones"


def test_what_takes_long_waits_for_a_free_slot_instead_of_in_line_behind_another() -> None:
    sizes = [1_000_000] * 4 + [10_000] * 100
    supply = Supply.of(len(sizes), 2, weights(sizes))
    assert supply.next(0) is not None
    assert supply.next(1) is not None
    assert supply.next(2) is None, "nobody knows yet how long they take"
    supply.reached((0, 1), 1, 2 * LONG_SECONDS)
    assert supply.next(2) is None
    assert supply.next(1) is not None


@pytest.mark.parametrize("can_cut", [False, True])
@pytest.mark.parametrize("slots", [2, 4, 8])
def test_skewed_sizes_reach_95_percent_of_ideal(slots: int, can_cut: bool) -> None:
    sizes = skewed()
    seconds = [0.01 + 0.9e-6 * size for size in sizes]
    supply = Supply.of(len(sizes), slots, weights([size + 32_768 for size in sizes]), can_cut=can_cut)
    clock = Machine(supply, seconds, slots).run()
    assert sum(seconds) / slots / clock > 0.95


def test_what_is_thrown_back_is_handed_out_again_wherever_it_was() -> None:
    supply = Supply.of(10, 2, weights([10] * 10, [1] * 10), Admission(threads=2, room=10))
    supply.sizer.record(10, 0.01)
    first = supply.next(0)
    assert first is not None
    supply.end(first)
    supply.pending.put_back(*first)
    assert supply.pending.count == 10
    assert supply.pending.take_at(5, 2) == (5, 7)
    assert list(supply.pending.ranges) == [(0, 5), (7, 10)] or supply.pending.count == 8
    with pytest.raises(IndexError, match="6 is not pending"):
        supply.pending.take_at(6, 1)


# The time left


def test_the_time_left_weighs_what_is_left_by_size() -> None:
    sizes = [80, 10, 5, 5]
    state = ProgressState()
    state.take(RunStarted("f" * 32, "process", "x", 4, 1, None, True, 100.0, weights=weights(sizes)))
    assert state.seconds_left is None
    state.take(BlockFinished("f" * 32, block(0), 108.0))
    assert state.seconds_left == pytest.approx(2.0), "a quarter of the symbols, four fifths of the work"
    assert "1/4 (25 %)" in state.words()
    assert "2.0 s left" in state.words()
    state.take(BlockFinished("f" * 32, block(1, failed=True), 109.0))
    assert state.seconds_left == pytest.approx(1.0)


def test_what_the_journal_had_is_neither_left_nor_a_measure_of_speed() -> None:
    state = ProgressState()
    state.take(
        RunStarted("f" * 32, "process", "x", 4, 1, None, True, 100.0, recalled=1, weights=weights([80, 10, 5, 5]))
    )
    state.take(BlockRecalled("f" * 32, block(0), 100.0))
    state.take(BlockFinished("f" * 32, block(1), 101.0))
    assert state.seconds_left == pytest.approx(1.0)


def block(index: int, *, failed: bool = False) -> Block:
    failure = FailedItem(index, 0.0, Failure("error", "ValueError", "no", ""))
    return Block(
        start=index, stop=index + 1, indices=np.array([] if failed else [index], np.int64), columns=None, payload=None,
        seconds=np.empty(0, np.float32), failures=(failure,) if failed else (), evaluated=1, rejected=0, busy=1.0, worker="",
        failed=int(failed),
    )  # fmt: skip
