"""How the evaluator of a run gets ready to travel: as bytes, its large parts as shared data."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle

from admf_dask.errors import TaskError
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.shared import SharedData, SharedStore, travelling, value_of
from admf_dask.runtime.shared.data import describe
from admf_dask.runtime.shared.parcel import Parcel, Pickler
from admf_dask.text import format_bytes

SHARE_FROM = 2**20
"""Bytes from which data is shared rather than sent to each worker."""
WARN_FROM = 10 * 2**20
"""Bytes from which a function or its items are called heavy: as many as Dask scolds for."""


_PACKAGE = str(Path(__file__).parent.parent) + os.sep


class HeavyCallWarning(UserWarning):
    """A function, or the items, carry data that `data=` is made for."""


def pack_evaluator(
    evaluator: MapEvaluator, store: SharedStore | None = None, run: str = ""
) -> tuple[bytes, tuple[SharedData, ...]]:
    """The evaluator as bytes, and the shared data that it needs where it arrives.

    With a store, data of a mebibyte or more is put there for the `run`, and so is a function that carries as much. Raises
    TaskError that names the part which cannot travel.
    """
    try:
        with travelling() as needed:
            packed = _packed(evaluator, store, run)
    except Exception as error:
        if isinstance(error, TaskError):
            raise
        raise _cannot_travel(evaluator, error) from error
    return packed, tuple(dict.fromkeys(needed))


def _packed(evaluator: MapEvaluator, store: SharedStore | None, run: str) -> bytes:
    if store is not None:
        evaluator = replace(evaluator, data=tuple(_shared_if_large(part, store, run) for part in evaluator.data))
        parcel = Parcel.of(evaluator)
        if parcel.size >= WARN_FROM and evaluator.function is not _elsewhere:
            _warn_of_weight(evaluator, parcel.size)
        if parcel.size >= SHARE_FROM:
            # Apart from the items, a function is recognised when it is used again.
            function = _shared_if_large(evaluator.function, store, run)
            if isinstance(function, SharedData):
                packed = _packed(replace(evaluator, function=_elsewhere), store, run)
                return pickle.dumps(_Apart(packed, function))
            return pickle.dumps(store.put(parcel, "function and items", run))
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(evaluator)
    return file.getvalue()


class _Apart:
    """An evaluator whose function is shared; unpickled, it is the evaluator."""

    def __init__(self, packed: bytes, function: SharedData) -> None:
        self._packed, self._function = packed, function

    def __reduce__(self) -> tuple[Any, ...]:
        return _whole, (self._packed, self._function)


def _whole(packed: bytes, function: SharedData) -> MapEvaluator:
    evaluator: MapEvaluator = value_of(pickle.loads(packed))
    return replace(evaluator, function=function.value)


def _elsewhere(*_: Any) -> None:
    raise AssertionError("stands for a function that is shared")


def _shared_if_large(part: Any, store: SharedStore, run: str) -> Any:
    if isinstance(part, SharedData):
        return part
    parcel = Parcel.of(part)
    return part if parcel.size < SHARE_FROM else store.put(parcel, describe(part), run)


def _cannot_travel(evaluator: MapEvaluator, error: Exception) -> TaskError:
    for what, part in (("function", evaluator.function), ("items", evaluator.items), ("data", evaluator.data)):
        try:
            cloudpickle.dumps(part, protocol=5)
        except Exception as cause:  # noqa: BLE001 - the part that fails is the one to name
            wrong = TaskError(
                f"the {what} must survive pickling to reach the workers, but {part!r:.80} does not: "
                f"{type(cause).__name__}: {cause}. Open what cannot travel (files, locks, connections) inside "
                'the function, or use mode="thread"'
            )
            wrong.__cause__ = cause
            return wrong
    return TaskError(f"the call cannot be sent to the workers: {type(error).__name__}: {error}")


def _warn_of_weight(evaluator: MapEvaluator, size: int) -> None:
    function = evaluator.function
    if type(function).__module__.partition(".")[0] == "admf_dask":
        # Such as `backtest_objective`: it is made to carry its prices.
        return
    inner = _innermost(function)
    name = str(getattr(inner, "__name__", type(inner).__name__))
    carried = [(_size(value), label, value) for label, value in _carried(function)]
    carried = [found for found in carried if found[0] >= size // 4]
    if carried:
        weight, label, value = max(carried, key=lambda found: found[0])
        own = label.rpartition(".")[2]
        words = (
            f"`{name}` carries {describe(value)} ({format_bytes(weight)}) as `{label}`; give it as data={own} and write "
            f"`def {name}(item, {own})`"
        )
    else:
        words = (
            f"the function `{name}` and its items weigh {format_bytes(size)}; give what is large as data= (a mapping, say) and "
            "let the items be its names"
        )
    message = f"{words}: then it is recognised when it is used again"
    warnings.warn(message, HeavyCallWarning, stacklevel=_level_of_the_caller())


def _level_of_the_caller() -> int:
    """The stack level of the line that called this package, counted from who asks."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _carried(function: Callable[..., Any], seen: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """What a function takes along when it is pickled, by name, also through the functions that it calls."""
    if isinstance(function, functools.partial):
        inner = _innermost(function)
        names = inner.__code__.co_varnames if isinstance(inner, types.FunctionType) else ()
        for place, value in enumerate(function.args):
            yield (names[place] if place < len(names) else "data"), value
        yield from function.keywords.items()
        yield from _carried(function.func, seen)
    elif isinstance(function, types.MethodType):
        yield from _attributes(function.__self__)
    elif isinstance(function, types.FunctionType):
        for label, value in _held(function):
            yield label, value
            if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)) and value not in seen:
                yield from _carried(value, (*seen, function))
    else:
        yield from _attributes(function)


def _held(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Defaults, what is closed over and what is global."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    for label, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that is bound later
            yield label, cell.cell_contents
    for label in code.co_names:
        if label in function.__globals__:
            yield label, function.__globals__[label]


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    for label, value in getattr(thing, "__dict__", {}).items():
        yield f"self.{label}", value


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _size(value: Any) -> int:
    if isinstance(value, (types.ModuleType, types.FunctionType, type)):
        return 0
    try:
        return Parcel.of(value).size
    except Exception:  # noqa: BLE001 - what cannot be pickled does not travel, so it has no weight
        return 0
