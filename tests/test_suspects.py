"""Who is to blame for a dead worker: events in, verdicts out, no cluster."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask.runtime.suspects import Suspects


def judge(total: int, killers: set[int], *, threads: int, known: bool) -> tuple[dict[int, int], set[int]]:
    """Run items in chunks of 10 on one worker with some threads, by the machine's verdicts. Returns guilty, evaluated."""
    suspects, evaluated, guilty = Suspects(), set(), {}
    todo = [(low, min(total, low + 10)) for low in range(0, total, 10)]
    deaths = 0
    while todo or suspects.waiting:
        alone = not todo
        batch = [suspects.next()] if alone else [todo.pop() for _ in range(min(threads + 1, len(todo)))]
        running = [chunk for chunk in batch[: 1 if alone else threads] if chunk]
        died = [chunk for chunk in running if killers & set(range(*chunk))]
        if not died:
            for chunk in running:
                evaluated |= set(range(*chunk))
            todo += [chunk for chunk in batch[len(running) :] if chunk]
            continue
        deaths += 1
        assert deaths < 50 * len(killers) + 50, "the machine does not come to an end"
        executing = tuple(
            (spot, spot + 1) for chunk in running for spot in [min(killers & set(range(*chunk)), default=chunk[0])]
        )
        for chunk in batch:
            assert chunk is not None
            verdict = suspects.worker_died(chunk, executing if known else None, alone=alone)
            todo += verdict.again
            if verdict.guilty is not None:
                guilty[verdict.guilty] = suspects.deaths[verdict.guilty]
    return guilty, evaluated


@settings(max_examples=60)
@given(st.sets(st.integers(0, 79), max_size=6), st.integers(1, 4), st.booleans())
def test_exactly_the_killers_are_guilty_and_all_others_are_evaluated(
    killers: set[int], threads: int, known: bool
) -> None:
    guilty, evaluated = judge(80, killers, threads=threads, known=known)
    assert set(guilty) == killers
    assert evaluated == set(range(80)) - killers


def test_a_chunk_that_was_only_queued_runs_again_without_blame() -> None:
    suspects = Suspects()
    verdict = suspects.worker_died((10, 20), ((3, 4),), alone=False)
    assert verdict.again == ((10, 20),)
    assert not suspects.waiting
    assert not suspects.deaths


def test_an_item_whose_worker_was_killed_from_outside_gets_another_chance() -> None:
    suspects = Suspects()
    verdict = suspects.worker_died((10, 20), ((13, 14),), alone=False)
    assert verdict.again == ((10, 13), (14, 20))
    assert verdict.guilty is None
    assert suspects.next() == (13, 14)
    assert suspects.next() is None


def test_the_second_death_of_the_same_item_is_its_own_fault() -> None:
    suspects = Suspects()
    suspects.worker_died((10, 20), ((13, 14),), alone=False)
    assert suspects.worker_died((13, 14), ((13, 14),), alone=True).guilty == 13


@pytest.mark.parametrize("killer", range(8))
def test_without_a_black_box_halving_finds_the_item(killer: int) -> None:
    suspects = Suspects()
    suspects.worker_died((0, 8), None, alone=False)
    assert list(suspects.waiting) == [(0, 8)], "nothing is said against it yet: it may have been killed from outside"
    innocent: set[int] = set()
    for _ in range(20):
        span = suspects.next()
        assert span is not None
        if killer not in range(*span):
            innocent |= set(range(*span))
            continue
        if suspects.worker_died(span, None, alone=True).guilty == killer:
            break
    else:
        pytest.fail("not found")
    while span := suspects.next():
        innocent |= set(range(*span))
    assert innocent == set(range(8)) - {killer}


def test_an_overdue_item_is_guilty_where_nobody_else_was_at_work() -> None:
    suspects = Suspects()
    verdict = suspects.worker_overdue((10, 20), ((13, 14),), shared=False)
    assert (verdict.guilty, verdict.again) == (13, ((10, 13), (14, 20)))
    assert suspects.worker_overdue((20, 30), ((13, 14),), shared=False).again == ((20, 30),)
    halves = suspects.worker_overdue((0, 8), ((2, 6),), shared=False)
    assert (halves.guilty, halves.again) == (None, ((0, 2), (6, 8), (2, 4), (4, 6)))


def test_overdue_items_that_shared_an_interpreter_are_run_alone_first() -> None:
    suspects = Suspects()
    overdue = ((13, 14), (25, 26))
    assert suspects.worker_overdue((10, 20), overdue, shared=True).again == ((10, 13), (14, 20))
    assert suspects.worker_overdue((20, 30), overdue, shared=True).guilty is None
    assert list(suspects.waiting) == [(13, 14), (25, 26)]
    assert not suspects.deaths


def test_a_suspect_is_not_convicted_where_another_run_was_at_work() -> None:
    suspects = Suspects()
    suspects.worker_died((10, 20), ((13, 14),), alone=False)
    assert suspects.next() == (13, 14)
    # It waited behind an item of another run, and then ran beside one.
    assert suspects.worker_died((13, 14), (), alone=True, others=1).guilty is None
    assert suspects.next() == (13, 14)
    assert suspects.worker_died((13, 14), ((13, 14),), alone=True, others=1).guilty is None
    assert suspects.next() == (13, 14)
    assert suspects.worker_died((13, 14), ((13, 14),), alone=True).guilty == 13


def test_who_was_where_a_process_was_ended_for_another_run_is_what_he_was() -> None:
    suspects = Suspects()
    assert suspects.spared((10, 20), alone=False).again == ((10, 20),)
    assert suspects.spared((13, 14), alone=True).again == ()
    assert suspects.next() == (13, 14)
    assert not suspects.deaths
