"""Ranges are sets of positions, and a part of a space is that space at those positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from admf_dask import ParameterSpace
from admf_dask.space.part import PartOfSequence, Ranges, part_of

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


def members(ranges: Ranges) -> list[int]:
    return [position for start, stop in ranges.pairs().tolist() for position in range(start, stop)]


@given(pairs, pairs)
def test_ranges_behave_as_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    one, other = Ranges.of(left), Ranges.of(right)
    as_set = {x for start, stop in left for x in range(start, stop)}
    assert members(one) == sorted(as_set)
    assert one.size == len(as_set)
    assert set(members(one.union(other))) == as_set | {x for start, stop in right for x in range(start, stop)}
    assert members(one.missing(64)) == sorted(set(range(64)) - as_set)
    assert members(Ranges.of_positions(np.array(sorted(as_set), np.int64)[::-1])) == sorted(as_set)


@given(pairs, st.integers(0, 70), st.integers(0, 70))
def test_places_stand_for_positions(given_pairs: list[tuple[int, int]], low: int, high: int) -> None:
    ranges = Ranges.of(given_pairs)
    all_of_them = members(ranges)
    assert ranges.positions(np.arange(ranges.size)).tolist() == all_of_them
    start, stop = sorted((min(low, ranges.size), min(high, ranges.size)))
    assert members(ranges.spans(start, stop)) == all_of_them[start:stop]


def test_a_billion_positions_cost_nothing() -> None:
    ranges = Ranges.of([(5, 10**9)]).missing(2 * 10**9)
    assert ranges.size == 10**9 + 5
    assert ranges.positions(np.array([4, 5])).tolist() == [4, 10**9]


def test_a_part_of_a_space_is_the_space_at_its_positions() -> None:
    space = ParameterSpace({"fast": [1, 2, 3], "slow": [2, 3]}, constraints=["fast < slow"])
    part = part_of(space, Ranges.of([(1, 2), (4, 6)]))
    assert list(part) == [space[1], space[4], space[5]]
    assert part.get_combinations() == [space[1]]
    assert part.with_constraints("slow > 3").get_combinations() == []


def test_a_part_of_a_list_holds_only_its_items() -> None:
    part = part_of(["a", "b", "c", "d"], Ranges.of([(0, 1), (2, 4)]))
    assert isinstance(part, PartOfSequence)
    assert list(part) == ["a", "c", "d"]
