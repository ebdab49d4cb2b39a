"""One rule of what is better, checked against sorting in plain Python."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admf_dask.ranking import best, better, first, rank

scores = st.lists(st.sampled_from([-math.inf, -1.5, 0.0, -0.0, 1.0, 2.5, math.inf, math.nan]), max_size=60)


def reference(values: list[float], maximize: bool) -> list[int]:
    def key(position: int) -> tuple[bool, float, int]:
        value = values[position]
        missing = math.isnan(value)
        return missing, 0.0 if missing else (-value if maximize else value), position

    return sorted(range(len(values)), key=key)


@given(scores, st.booleans())
def test_rank_is_best_first_ties_in_grid_order_nan_last(values: list[float], maximize: bool) -> None:
    assert rank(np.array(values), np.arange(len(values)), maximize=maximize).tolist() == reference(values, maximize)


@given(scores, st.integers(1, 20), st.booleans())
def test_best_is_the_head_of_rank(values: list[float], count: int, maximize: bool) -> None:
    found = best(np.array(values), np.arange(len(values)), count, maximize=maximize).tolist()
    assert found == reference(values, maximize)[:count]


@given(scores, st.booleans(), st.randoms())
def test_first_is_the_first_of_rank(values: list[float], maximize: bool, chance: random.Random) -> None:
    indices = np.array(chance.sample(range(100), len(values)), np.int64)
    if values:
        expected = rank(np.array(values), indices, maximize=maximize)[0]
        assert first(np.array(values), indices, maximize=maximize) == expected
    else:
        with pytest.raises(ValueError, match="zero-size"):
            first(np.array(values), indices, maximize=maximize)


def test_ties_follow_the_grid_index_and_not_the_position() -> None:
    assert rank(np.array([1.0, 1.0, 1.0]), np.array([30, 10, 20]), maximize=True).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("score", "than", "maximize", "expected"),
    [
        (2.0, 1.0, True, True),
        (2.0, 1.0, False, False),
        (1.0, 1.0, True, False),
        (math.nan, 1.0, True, False),
        (1.0, math.nan, False, True),
    ],
)
def test_better(score: float, than: float, maximize: bool, expected: bool) -> None:
    assert better(score, than, maximize=maximize) is expected
