"""Spaces against itertools and plain Python: the laws of a lazy grid."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admf_dask import Choice, FloatRange, IntRange, LogRange, ParameterSpace, SpaceError
from admf_dask.space import Combinations, Conditional, sampling
from admf_dask.space.constraints import parse

values = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(-2, 2, allow_nan=False), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True),
    st.just([True, False]),
    st.builds(range, st.integers(0, 3), st.integers(4, 7)),
)
axes = st.dictionaries(st.sampled_from(["fast", "slow", "mode", "stop"]), values, min_size=1, max_size=4)


def product(given_axes: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(given_axes, point, strict=True)) for point in itertools.product(*given_axes.values())]


@given(axes)
def test_the_grid_is_the_product_with_the_last_axis_fastest(given_axes: dict[str, Any]) -> None:
    space, expected = ParameterSpace(given_axes), product(given_axes)
    assert list(space) == expected
    assert len(space) == space.size == len(expected)
    assert [space[i] for i in range(len(space))] == expected
    assert space[-1] == expected[-1]
    assert space[1:3] == expected[1:3]
    assert space.get_combinations() == expected
    assert [space.index_of(params) for params in expected] == list(range(len(expected)))
    kinds = [{name: type(value) for name, value in params.items()} for params in expected]
    assert [{name: type(value) for name, value in params.items()} for params in space] == kinds


@given(axes, st.data())
def test_columns_and_rows_agree_with_single_points(given_axes: dict[str, Any], data: st.DataObject) -> None:
    space = ParameterSpace(given_axes)
    start = data.draw(st.integers(0, len(space)))
    stop = data.draw(st.integers(start, len(space)))
    assert space.rows(start, stop) == [space[i] for i in range(start, stop)]
    columns = space.columns(start, stop)
    assert [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] == space.rows(
        start, stop
    )


def exact(rows: list[dict[str, Any]]) -> list[list[tuple[str, type, Any]]]:
    """Names in their order, and values that are equal and of one type (`1 == True == 1.0`)."""
    return [[(name, type(value), value) for name, value in row.items()] for row in rows]


kinds = st.one_of(
    values,
    st.builds(IntRange, st.integers(-3, 0), st.integers(1, 3), st.integers(1, 2)),
    st.builds(FloatRange, st.just(0.1), st.just(0.5), st.sampled_from([0.1, 0.2])),
    st.just(np.array([1.5, -0.0])),
    st.just(np.array([True, False])),
    st.just([2**70, 1, 1.5, None, "a", (1, 2), [3]]),
    st.sampled_from([[None], [7], ["x"], [False]]),
)


@given(st.lists(kinds, min_size=1, max_size=6), st.data())
def test_rows_of_any_part_are_exactly_what_the_axes_hold(given_values: list[Any], data: st.DataObject) -> None:
    # Not in the order of the alphabet, and with axes of one value anywhere: the borders of axes lie anywhere in a part.
    space = ParameterSpace(dict(zip("zaybxc", given_values, strict=False)))
    expected = product({name: space.axis_values(name) for name in space.names})
    start = data.draw(st.integers(0, len(space)))
    stop = data.draw(st.integers(start, min(len(space), start + 40)))
    assert exact(space.rows(start, stop)) == exact(expected[start:stop])
    assert exact(space.pick(np.arange(start, stop))) == exact(expected[start:stop])
    chosen = data.draw(st.lists(st.integers(0, len(space) - 1), max_size=9))
    assert exact(space.pick(np.array(chosen, np.int64))) == exact([expected[index] for index in chosen])


def test_rows_are_dicts_of_their_own() -> None:
    space = ParameterSpace({"a": [1, 2], "one": [0], "b": range(3)})
    rows = space.rows(0, 6)
    for place, row in enumerate(rows):
        row["a"], row["more"] = "changed", place
    assert [row["more"] for row in rows] == list(range(6))
    assert space.rows(0, 6) == product({"a": [1, 2], "one": [0], "b": range(3)})
    long = ParameterSpace({"a": [1, 2], "b": range(10**15)})
    assert long.rows(10**15 - 1, 10**15 + 1) == [{"a": 1, "b": 10**15 - 1}, {"a": 2, "b": 0}]


@given(axes)
def test_a_space_survives_pickling_and_equals_itself(given_axes: dict[str, Any]) -> None:
    space = ParameterSpace(given_axes, constraints=["1 < 2"])
    assert pickle.loads(pickle.dumps(space)) == space
    assert space != ParameterSpace(given_axes)


def test_a_huge_grid_costs_nothing() -> None:
    space = ParameterSpace({name: range(10**6) for name in "abcde"})
    assert space.size == 10**30
    at = 123_456_789_012_345_678_901_234_567_890
    assert space[at] == dict(zip("abcde", (123456, 789012, 345678, 901234, 567890), strict=True))
    assert space.index_of(space[at]) == at
    assert space[-1] == dict.fromkeys("abcde", 999_999)
    assert len(pickle.dumps(space)) < 2_000
    assert space.rows(10**30 - 2, 10**30)[1] == dict.fromkeys("abcde", 999_999)
    with pytest.raises(SpaceError, match="would not be wise"):
        space.get_combinations()
    sample = space.sample(1000, seed=1)
    assert len({tuple(params.values()) for params in sample}) == 1000


numbers = st.sampled_from(["fast", "slow", "stop", "1", "2.5", "-3", "0"])
expressions = st.recursive(
    st.builds("{} {} {}".format, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
    | st.builds("{} < {} <= {}".format, numbers, numbers, numbers)
    | st.builds("{} * 2 + {} > {} - 1".format, numbers, numbers, numbers)
    | st.builds("max({}, {}) > abs({})".format, numbers, numbers, numbers)
    | st.builds("{} in ({}, 2, 7)".format, numbers, numbers)
    | st.builds("{} not in (1, {})".format, numbers, numbers),
    lambda inner: (
        st.builds("({}) and ({})".format, inner, inner)
        | st.builds("({}) or ({})".format, inner, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=5,
)
NUMERIC = ParameterSpace({"fast": range(-3, 4), "slow": [0, 1, 2, 7], "stop": [0.5, 2.5, -1.0]})


@settings(max_examples=150)
@given(expressions)
def test_expressions_mean_for_columns_what_they_mean_for_one_combination(text: str) -> None:
    allowed, broken = NUMERIC.with_constraints(text).mask(0, len(NUMERIC))
    assert not broken
    assert allowed is not None
    # The reference may use Python's own evaluation: the text comes from the strategy above.
    code = compile(text, "constraint", "eval")
    helpers = {"__builtins__": {}, "max": max, "abs": abs}
    assert allowed.tolist() == [bool(eval(code, helpers, dict(params))) for params in NUMERIC]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os')", "not allowed"),
        ("fast.real > 1", "'fast.real', which is not allowed"),
        ("fast[0] > 1", "not allowed"),
        ("(lambda: 1)() > 0", "not allowed"),
        ("(fast < 2) + 1 > 1", "'fast < 2', which is not allowed"),
        ("fast <", "is not an expression"),
        ("open('x')", "not allowed"),
        ("fats < 3", "did you mean 'fast'"),
        ("fast @ 2 > 1", "not allowed"),
    ],
)
def test_what_is_not_on_the_list_is_refused(text: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        NUMERIC.with_constraints(text)


def test_strings_and_division_by_zero_follow_the_stated_rules() -> None:
    space = ParameterSpace({"mode": ["trend", "revert"], "n": [0, 2]})
    assert space.with_constraints("mode in ('trend', 'other')").get_combinations() == space[:2]
    assert space.with_constraints("mode != 'trend' and n / n == 1").get_combinations() == [{"mode": "revert", "n": 2}]
    assert space.with_constraints("n != 0 and 4 / n > 1").get_combinations() == [space[1], space[3]]


def test_a_function_that_raises_is_told_apart_from_a_rejection() -> None:
    space = ParameterSpace({"a": range(4)}, constraints=[lambda p: 2 / p["a"] > 1])
    allowed, broken = space.mask(0, 4)
    assert allowed is not None
    assert allowed[1:].tolist() == [True, False, False]
    assert [(index, type(error.__cause__)) for index, error in broken] == [(0, ZeroDivisionError)]
    assert "'<lambda>' raised ZeroDivisionError" in str(broken[0][1])
    assert space.describe_rejection(2) == "the constraint '<lambda>'"
    guarded = ParameterSpace({"a": range(4)}, constraints=["a > 0", lambda p: 2 / p["a"] > 1])
    assert guarded.mask(0, 4)[1] == [], "what one constraint has rejected the next is not asked about"


def test_what_cannot_be_compared_is_told_combination_by_combination() -> None:
    space = ParameterSpace({"a": [1, "b", 3]}, constraints=["a < 3"])
    allowed, broken = space.mask(0, 3)
    assert allowed is not None
    assert (allowed[0], allowed[2]) == (True, False)
    assert [(index, str(error)[:48]) for index, error in broken] == [
        (1, "the constraint 'a < 3' cannot be told here: '<' ")
    ]
    with pytest.raises(SpaceError, match="write and, or, not in place of &"):
        ParameterSpace({"a": [1]}, constraints=["(a > 0) & (a < 2)"])


def test_expressions_pickle_as_their_text() -> None:
    assert pickle.loads(pickle.dumps(parse("a < b"))) == parse("a < b")


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (FloatRange(0.1, 0.7, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (FloatRange(0.1, 0.75, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (FloatRange(-1, 1, num=5), [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (FloatRange(1e-7, 3e-7, step=1e-7), [1e-7, 2e-7, 3e-7]),
        (IntRange(5, 12, 3), [5, 8, 11]),
        (LogRange(1, 1000, 4), [1.0, 10.0, 100.0, 1000.0]),
        (LogRange(1, 10, 5, integer=True), [1, 2, 3, 6, 10]),
        (Choice(["x", None, 3]), ["x", None, 3]),
        (np.array([1, 2]), [1, 2]),
        ([True, 1, 0, False], [True, 1, 0, False]),
    ],
)
def test_axes_hold_what_they_say(axis: Any, expected: list[Any]) -> None:
    found = [params["a"] for params in ParameterSpace({"a": axis})]
    assert found == pytest.approx(expected) if isinstance(axis, LogRange) else found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("given_axes", "words"),
    [
        ({"fast": IntRange(50, 5)}, r"`low <= high` must hold for axis 'fast', but low=50, high=5\."),
        ({"a": IntRange(1, 5, 0)}, "`step > 0` must hold"),
        ({"a": IntRange(True, 5)}, "must be a whole number, but is True"),
        ({"a": FloatRange(0, math.inf, step=1)}, "must be a finite number"),
        ({"a": FloatRange(0, 1)}, "takes either step or num"),
        ({"a": LogRange(0, 1, 3)}, "`low > 0` must hold"),
        ({"a": [1, 2, 1]}, "1 stands there twice"),
        ({"a": []}, "must have at least one value"),
        ({"a": "abc"}, r"for a fixed value write \['abc'\]"),
        ({"a": 5}, r"write \[5\]"),
        ({"a": [1.0, math.nan]}, "must not hold NaN"),
        ({True: [1]}, "an unquoted on, off, yes or no"),
        ({3: [1]}, "must be named by a string"),
        ({"a": FloatRange(0, 1, step=1e-9)}, "more than 10,000,000"),
    ],
)
def test_axes_that_break_a_rule_are_refused_rule_first(given_axes: dict[Any, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        ParameterSpace(given_axes)


@pytest.mark.parametrize("index", [6, -7])
def test_an_index_beyond_the_grid_is_an_error(index: int) -> None:
    with pytest.raises(IndexError, match="6 combinations"):
        _ = ParameterSpace({"a": range(6)})[index]


# -- conditional parameters ---------------------------------------------------------------------------------------------


def test_conditional_parameters_are_expanded_fully() -> None:
    space = ParameterSpace(
        {
            "ma": ["sma", "ema", "none"],
            "alpha": Conditional("ma", {"ema": FloatRange(0.1, 0.3, step=0.1), "sma": [0.0]}),
            "length": range(2),
        }
    )
    expected = [
        {"ma": ma, **({"alpha": alpha} if alpha is not None else {}), "length": length}
        for ma, alphas in (("sma", [0.0]), ("ema", [0.1, 0.2, 0.3]), ("none", [None]))
        for alpha in alphas
        for length in range(2)
    ]
    assert list(space) == expected
    assert [space.index_of(params) for params in expected] == list(range(10))
    assert space.axis_values("alpha") == [0.0, 0.1, 0.2, 0.3]
    # A constraint on a parameter that is absent does not apply.
    assert space.with_constraints("alpha > 0.15").get_combinations() == [
        e for e in expected if e.get("alpha", 1) > 0.15
    ]
    assert pickle.loads(pickle.dumps(space))[9] == expected[9]


def test_nested_conditionals_and_defaults() -> None:
    space = ParameterSpace(
        {"a": [1, 2], "b": Conditional("a", {2: ["x", "y"]}, default="none"), "c": Conditional("b", {"y": [7, 8]})}
    )
    assert list(space) == [
        {"a": 1, "b": "none"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y", "c": 7},
        {"a": 2, "b": "y", "c": 8},
    ]


@pytest.mark.parametrize(
    ("given_axes", "words"),
    [
        ({"a": [1], "b": Conditional("aa", {1: [1]})}, "'aa', which is no parameter; did you mean 'a'"),
        ({"a": Conditional("b", {}), "b": Conditional("a", {})}, "in a circle: a -> b -> a"),
        ({"a": [1], "b": Conditional("a", {3: [1]})}, "names 3, which is no value of its parent"),
    ],
)
def test_conditionals_that_make_no_sense_are_refused(given_axes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        ParameterSpace(given_axes)


# -- sampling -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 5))
def test_a_sample_is_distinct_inside_allowed_and_the_same_for_its_seed(count: int, seed: int) -> None:
    space = ParameterSpace({"a": range(20), "b": range(20)}, constraints=["a < b"])
    sample = space.sample(count, seed=seed)
    found = [tuple(params.values()) for params in sample]
    assert len(set(found)) == count == len(sample)
    assert all(a < b for a, b in found)
    assert found == [tuple(params.values()) for params in space.sample(count, seed=seed)]
    assert sample.rows(0, count) == list(sample)
    assert [space[position] for position in sample.positions] == list(sample)


def test_a_sample_by_trial_is_distinct_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "ENUMERABLE", 0)
    sample = ParameterSpace({"a": range(20), "b": range(20)}, constraints=["a < b"]).sample(150, seed=1)
    assert len({tuple(params.values()) for params in sample}) == 150


def test_a_sample_of_everything_is_everything() -> None:
    space = ParameterSpace({"a": range(10), "b": range(10)}, constraints=["a < b"])
    assert sorted(space.sample(45, seed=0).positions) == [i for i, p in enumerate(space) if p["a"] < p["b"]]
    with pytest.raises(SpaceError, match="only 45 combinations satisfy the constraints"):
        space.sample(46, seed=0)


def test_a_thin_space_too_large_to_enumerate_comes_to_an_end() -> None:
    space = ParameterSpace({"a": range(10**5), "b": range(10**5)}, constraints=["a * 100000 + b == 7"])
    with pytest.raises(SpaceError, match="random combinations satisfy the constraints"):
        space.sample(1, seed=0)
    wide = ParameterSpace({"a": range(10**5), "b": range(10**5)}, constraints=["a < b"])
    assert all(params["a"] < params["b"] for params in wide.sample(500, seed=0))


def test_samples_differ_between_seeds() -> None:
    space = ParameterSpace({"a": range(10**9)})
    assert list(space.sample(5, seed=1)) != list(space.sample(5, seed=2))


def test_a_list_of_combinations_is_a_space() -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2}, {"a": 3, "b": "y"}]
    space = Combinations(rows)
    assert list(space) == rows
    assert space.with_constraints("a > 1").get_combinations() == rows[1:]
    assert space.columns(0, 3)["a"].dtype == np.int64
    with pytest.raises(SpaceError, match="named by a string, but one is named 5"):
        Combinations([{5: 1}])  # type: ignore[dict-item]
    with pytest.raises(SpaceError, match="number 1 is 5"):
        Combinations([{"a": 1}, 5])  # type: ignore[list-item]


def test_values_of_any_kind_stay_what_they_are() -> None:
    listed: Any = [{"w": [1, 2], "stop": math.nan}, {"w": [3], "stop": 1.5}, {"w": [1, 2], "stop": math.nan}]
    space = Combinations(listed)
    assert space[0]["w"] == [1, 2]
    assert math.isnan(space[0]["stop"])
    assert space.axis_values("w") == [[1, 2], [3]]
    assert len(space.axis_values("stop")) == 2
    arrays = Combinations([{"a": np.arange(3)}, {"a": np.arange(2), "b": np.int64(1)}])
    assert space.columns(0, 3)["stop"].dtype == np.float64
    assert arrays[1]["a"].tolist() == [0, 1]
    assert type(arrays[1]["b"]) is int
    large = ParameterSpace({"a": ["p", "q"], "b": Conditional("a", {"p": [2**70], "q": [True, 1]})})
    assert [params["b"] for params in large] == [2**70, True, 1]
    assert large.axis_values("b") == [2**70, True, 1]
