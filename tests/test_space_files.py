"""Axes from plain data and YAML, in every dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from admf_dask import ConfigError, ParameterSpace, SpaceError


def values(mapping: Any, name: str, **options: Any) -> list[Any]:
    return ParameterSpace.from_mapping(mapping, **options).axis_values(name)


def test_names_to_values() -> None:
    mapping = {
        "fast": [5, 10],
        "slow": {"low": 20, "high": 60, "step": 20},
        "stop": {"low": 0.1, "high": 0.3, "step": 0.1},
    }
    space = ParameterSpace.from_mapping(mapping)
    assert space.axis_values("slow") == [20, 40, 60]
    assert space.axis_values("stop") == [0.1, 0.2, 0.3]
    assert space.names == ("fast", "slow", "stop")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"type": "integer", "min": 5, "max": 20, "step": 5}, [5, 10, 15, 20]),
        ({"type": "integer", "min": 5, "max": 8}, [5, 6, 7, 8]),
        ({"type": "integer", "min": 5, "max": 12, "step": 5}, [5, 10]),
        ({"type": "float", "min": 0.1, "max": 0.7, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ({"type": "float", "min": 0, "max": 9}, [float(i) for i in range(10)]),
        ({"type": "float", "min": 0, "max": 1, "num_points": 3}, [0.0, 0.5, 1.0]),
        ({"type": "float", "min": 0.001, "max": 1, "log_scale": True, "step": 1}, [0.001, 0.01, 0.1, 1.0]),
        ({"type": "float", "min": 1, "max": 100, "log_scale": True, "num_points": 3}, [1.0, 10.0, 100.0]),
        ({"type": "integer", "min": 1, "max": 1000, "log_scale": True, "step": 1}, [1, 10, 100, 1000]),
        ({"type": "categorical", "categories": ["a", 1]}, ["a", 1]),
        ({"type": "categorical", "options": ["a", "b"]}, ["a", "b"]),
        ({"type": "boolean"}, [False, True]),
    ],
)
@pytest.mark.parametrize("key", ["parameters", "parameter_space", None])
def test_typed_entries(entry: dict[str, Any], expected: list[Any], key: str | None) -> None:
    entries = [{"name": "p", **entry}]
    assert (
        values({key: entries} if key else entries, "p") == pytest.approx(expected)
        if entry["type"] == "float"
        else expected
    )


def test_the_nested_dialects() -> None:
    assert values({"optimization": {"parameters": [{"name": "p", "type": "boolean"}]}}, "p") == [False, True]
    nested = {
        "optimization": {
            "parameter_space": {
                "ma": {"fast": {"type": "categorical", "options": [1, 2]}},
                "rsi": {"n": {"min": 1, "max": 3}},
            }
        }
    }
    assert values(nested, "fast", strategy="ma") == [1, 2]
    assert values(nested, "n", strategy="rsi") == [1, 2, 3]
    with pytest.raises(SpaceError, match="given for ma and rsi"):
        values(nested, "fast")
    with pytest.raises(SpaceError, match="did you mean 'rsi'"):
        values(nested, "fast", strategy="rsy")


def test_conditional_entries_are_expanded() -> None:
    entries = [
        {"name": "mode", "type": "categorical", "options": ["trend", "flat"]},
        {"name": "length", "type": "conditional", "parent": "mode", "value_map": {"trend": [10, 20], "flat": [5]}},
    ]
    assert list(ParameterSpace.from_mapping(entries)) == [
        {"mode": "trend", "length": 10},
        {"mode": "trend", "length": 20},
        {"mode": "flat", "length": 5},
    ]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ([{"type": "integer"}], "entry 1 of the parameter list must be a mapping with a `name`"),
        ([{"name": "a", "type": "integr", "min": 1, "max": 2}], "'integr', which is none; did you mean 'integer'"),
        (
            [{"name": "a", "type": "integer", "min": 1, "mxa": 2}],
            "`a.mxa` is not an option of type integer; did you mean 'max'",
        ),
        ([{"name": "a", "type": "integer", "min": 1}], "needs both min and max"),
        ([{"name": "a", "type": "boolean"}, {"name": "a", "type": "boolean"}], "listed twice"),
        ([{"name": True, "type": "boolean"}], "an unquoted on, off, yes or no"),
        ([{"name": "a", "type": "categorical"}], "needs `options:`"),
        ([{"name": "a", "type": "conditional"}], "needs `parent:` and `value_map:`"),
        ({"a": {"low": 1}}, "needs both low and high"),
        ({"a": {"low": 1, "hgih": 2}}, "did you mean 'high'"),
        (5, "must be a mapping or a list"),
    ],
)
def test_wrong_entries_are_named(mapping: Any, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        ParameterSpace.from_mapping(mapping)


def test_files_are_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters:\n  - {name: on, type: boolean}\n")
    with pytest.raises(SpaceError, match=r"space\.yaml is named True"):
        ParameterSpace.from_yaml(path)
    path.write_text("a: [1, 2]\na: [3]\n")
    with pytest.raises(ConfigError, match=r"space\.yaml, line 2: the key 'a' is written twice"):
        ParameterSpace.from_yaml(path)
    path.write_text("a: [1, 2\n")
    with pytest.raises(ConfigError, match=r"space\.yaml, line 2"):
        ParameterSpace.from_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        ParameterSpace.from_yaml(tmp_path / "none.yaml")
    path.write_text("fast: [1, 2]\nslow: {low: 3, high: 5}\n")
    assert len(ParameterSpace.from_yaml(path)) == 6
