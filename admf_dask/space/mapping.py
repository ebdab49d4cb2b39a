"""Axes from plain data: name -> values, and the lists of ADMF-style files in their four dialects.

    {fast: [5, 10], slow: {low: 20, high: 200, step: 20}}             name -> values
    parameters: [{name: fast, type: integer, min: 5, max: 50}, ...]   also `parameter_space:`, `optimization.parameters`
    optimization: {parameter_space: {<strategy>: {<name>: {type: categorical, options: [...]}}}}

Types: integer (min, max, step, log_scale, num_points), float (min, max, step or num_points = 10; with log_scale a step counts
decades), categorical (categories or options), boolean, conditional (parent, value_map).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from admf_dask.errors import SpaceError
from admf_dask.space.axes import Choice, FloatRange, IntRange, LogRange
from admf_dask.space.conditional import Conditional
from admf_dask.text import did_you_mean, join_words

_KEYS = {
    "integer": ("min", "max", "step", "num_points", "log_scale"),
    "float": ("min", "max", "step", "num_points", "log_scale"),
    "categorical": ("categories", "options"),
    "boolean": (),
    "conditional": ("parent", "value_map", "default"),
}
_ALIASES = {"int": "integer", "choice": "categorical", "bool": "boolean", "real": "float"}
_IGNORED = ("name", "type", "description", "default")
_RANGE_KEYS = ("low", "high", "step", "num")


def read_axes(mapping: Any, *, strategy: str | None = None, source: str = "") -> dict[str, Any]:
    """The axes in `mapping`, for `ParameterGrid`.

    `strategy` chooses where a file holds spaces of several. Raises SpaceError naming source, entry and key.
    """
    found = _find(mapping, strategy, source)
    if isinstance(found, Mapping):
        return {_named(name, source): _plain(name, spec, source) for name, spec in found.items()}
    axes: dict[str, Any] = {}
    for place, entry in enumerate(found, start=1):
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise SpaceError(
                f"entry {place} of the parameter list{_in(source)} must be a mapping with a `name`, but is {entry!r:.80}"
            )
        name = _named(entry["name"], source)
        if name in axes:
            raise SpaceError(f"parameter {name!r}{_in(source)} is listed twice (entry {place}); keep one of them")
        axes[name] = _typed(name, entry, source)
    return axes


def _find(mapping: Any, strategy: str | None, source: str) -> Any:
    """The list of entries, or the mapping of names, wherever the dialect keeps it."""
    if isinstance(mapping, list):
        return mapping
    if not isinstance(mapping, Mapping):
        raise SpaceError(
            f"a parameter space{_in(source)} must be a mapping or a list of entries, but is {mapping!r:.80}"
        )
    for key in ("parameter_space", "parameters"):
        if isinstance(mapping.get(key), (list, Mapping)):
            return _find_nested(mapping[key], strategy, source)
    if isinstance(mapping.get("optimization"), Mapping):
        return _find(mapping["optimization"], strategy, source)
    return mapping


def _find_nested(block: Any, strategy: str | None, source: str) -> Any:
    if isinstance(block, list):
        return block
    by_strategy = {name: inner for name, inner in block.items() if isinstance(inner, Mapping) and not _is_spec(inner)}
    if not by_strategy or len(by_strategy) < len(block):
        return block
    if strategy is None and len(by_strategy) == 1:
        return next(iter(by_strategy.values()))
    if strategy not in by_strategy:
        hint = (
            did_you_mean(strategy, by_strategy)
            if strategy
            else f"; choose one with strategy=: {', '.join(by_strategy)}"
        )
        raise SpaceError(
            f"the parameter space{_in(source)} is given for {join_words(by_strategy)}, not for {strategy!r}{hint}"
        )
    return by_strategy[strategy]


def _is_spec(inner: Mapping[str, Any]) -> bool:
    return bool({"type", "min", "max", "low", "high", "options", "categories", "values"} & set(inner))


def _plain(name: Any, spec: Any, source: str) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    if "type" in spec or set(spec) & {"options", "categories", "min", "max", "parent"}:
        return _typed(str(name), spec, source)
    for key in spec:
        if key not in _RANGE_KEYS:
            raise SpaceError(f"`{name}.{key}`{_in(source)} is not an option of a range{did_you_mean(key, _RANGE_KEYS)}")
    if not {"low", "high"} <= set(spec):
        raise SpaceError(
            f"the range of {name!r}{_in(source)} needs both low and high, but has {', '.join(map(str, spec))}"
        )
    numbers = [spec[key] for key in ("low", "high", "step") if key in spec]
    whole = all(isinstance(number, int) for number in numbers) and "num" not in spec
    return IntRange(**spec) if whole else FloatRange(**spec)


def _typed(name: str, entry: Mapping[str, Any], source: str) -> Any:
    given = entry.get("type") or _guess(entry)
    kind = _ALIASES.get(given, given) if isinstance(given, str) else given
    if kind not in _KEYS:
        raise SpaceError(
            f"the type of parameter {name!r}{_in(source)} is {given!r}, which is none{did_you_mean(given, _KEYS)}"
        )
    for key in entry:
        if key not in _KEYS[kind] and key not in _IGNORED:
            raise SpaceError(
                f"`{name}.{key}`{_in(source)} is not an option of type {kind}{did_you_mean(key, (*_KEYS[kind], *_IGNORED))}"
            )
    if kind in ("integer", "float"):
        return _number(name, kind, entry, source)
    if kind == "boolean":
        return Choice([False, True])
    if kind == "conditional":
        return _conditional(name, entry, source)
    options = entry.get("options", entry.get("categories"))
    if not isinstance(options, list):
        raise SpaceError(
            f"parameter {name!r}{_in(source)} needs `options:` (or `categories:`), a list of values, but has {options!r}"
        )
    return Choice(options)


def _guess(entry: Mapping[str, Any]) -> str | None:
    if "options" in entry or "categories" in entry:
        return "categorical"
    if "min" in entry:
        numbers = [entry[key] for key in ("min", "max", "step") if key in entry]
        return "integer" if all(isinstance(number, int) for number in numbers) else "float"
    return "conditional" if "parent" in entry else None


def _number(name: str, kind: str, entry: Mapping[str, Any], source: str) -> Any:
    if not {"min", "max"} <= set(entry):
        raise SpaceError(f"parameter {name!r}{_in(source)} of type {kind} needs both min and max")
    low, high = entry["min"], entry["max"]
    step, num = entry.get("step"), entry.get("num_points")
    if step is not None and num is not None:
        raise SpaceError(f"parameter {name!r}{_in(source)} takes either step or num_points, but has both")
    if entry.get("log_scale"):
        return _logarithmic(name, kind, low, high, step, num)
    if kind == "integer" and num is None:
        return IntRange(low, high, 1 if step is None else step)
    if kind == "integer":
        return Choice(list(dict.fromkeys(round(value) for value in FloatRange(low, high, num=num).values(name))))
    return FloatRange(low, high, step=step, num=(10 if num is None else num) if step is None else None)


def _logarithmic(name: str, kind: str, low: Any, high: Any, step: Any, num: Any) -> Any:
    integer = kind == "integer"
    if step is None:
        return LogRange(low, high, 10 if num is None else num, integer=integer)
    # The step counts decades: 0.001 to 1 by 1 is 0.001, 0.01, 0.1, 1.
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or not 0 < low <= high:
        raise SpaceError(
            f"`0 < min <= max` must hold for the logarithmic parameter {name!r}, but min={low!r}, max={high!r}."
        )
    exponents = FloatRange(0.0, round(math.log10(high / low), 12), step=step).values(name)
    values = [float(f"{low * 10**exponent:.12g}") for exponent in exponents]
    return Choice(list(dict.fromkeys(round(value) for value in values)) if integer else values)


def _conditional(name: str, entry: Mapping[str, Any], source: str) -> Conditional:
    if not isinstance(entry.get("value_map"), Mapping) or "parent" not in entry:
        raise SpaceError(
            f"the conditional parameter {name!r}{_in(source)} needs `parent:` and `value_map:` (parent's value -> values)"
        )
    values = {key: _plain(name, inner, source) for key, inner in entry["value_map"].items()}
    default = {"default": entry["default"]} if "default" in entry else {}
    return Conditional(entry["parent"], values, **default)


def _named(name: Any, source: str) -> str:
    if isinstance(name, bool):
        raise SpaceError(
            f"a parameter{_in(source)} is named {name}, which YAML makes of an unquoted on, off, yes or no; put quotes around it"
        )
    if not isinstance(name, str):
        raise SpaceError(f"a parameter{_in(source)} must be named by a string, but one is named {name!r}")
    return name


def _in(source: str) -> str:
    return f" in {source}" if source else ""
