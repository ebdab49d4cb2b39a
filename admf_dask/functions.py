"""What a function is made of, so that a record can be told from what another version of it would compute.

A function's parts are its syntax (comments, layout and docstring left out), what it closes over, its defaults, the plain
values it reads from its module, and the functions and classes of its own package that it calls, each with their parts.
What other packages do is their version's business. An object that is called as a function may have a method `identity_parts`,
which names what its results depend on.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any

from admf_dask.identity import code_key, content_key

Parts = dict[str, str]
"""What a part is called in messages -> its content as hexadecimal digits."""

_PLAIN = (int, float, str, bytes, bool, type(None), tuple, list, dict, set, frozenset)


def function_parts(function: Any) -> Parts:
    """The parts of `function` by name, such as `{"the source of sharpe": "9f...", "sharpe's window": "03..."}`."""
    parts: Parts = {}
    _walk(function, parts, set())
    return parts


def changed_parts(before: Parts, now: Parts) -> list[str]:
    """The names of the parts that differ, in words."""
    return [
        name if name in before and name in now else f"{name} ({'added' if name in now else 'removed'})"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    ]


def misfit(function: Any, /, *given: Any, **options: Any) -> str | None:
    """Why a call would not fit the signature of `function`, in Python's words; None where it fits, or nobody can tell.

    Of the function that is called: what `functools.wraps` copies from another may be of other parameters.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        return str(error)
    return None


def _walk(thing: Any, parts: Parts, seen: set[int]) -> None:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        _walk(thing.func, parts, seen)
        parts[f"the arguments bound to {_name(thing.func)}"] = _hex((thing.args, thing.keywords))
    elif isinstance(thing, types.MethodType):
        _walk(thing.__func__, parts, seen)
        parts[f"the object of {_name(thing)}"] = _hex(thing.__self__)
    elif isinstance(thing, types.FunctionType):
        _walk_function(thing, parts, seen)
    elif isinstance(thing, type):
        _walk_class(thing, parts, seen)
    elif isinstance(inner := getattr(thing, "py_func", None), types.FunctionType):
        _walk(inner, parts, seen)
    elif callable(tell := getattr(thing, "identity_parts", None)):
        _walk_class(type(thing), parts, seen)
        for label, value in tell().items():
            _walk_value(value, label, parts, seen)
    elif isinstance(thing, (types.BuiltinFunctionType, types.ModuleType)):
        parts[f"the function {_name(thing)}"] = _name(thing)
    else:
        _walk_class(type(thing), parts, seen)
        parts[f"the state of the {type(thing).__name__}"] = _hex(thing)


def _walk_function(function: types.FunctionType, parts: Parts, seen: set[int]) -> None:
    name = _name(function)
    name = _apart(name, parts, source := _source(function))
    parts[f"the source of {name}"] = source
    if function.__defaults__ or function.__kwdefaults__:
        parts[f"the defaults of {name}"] = _hex((function.__defaults__, function.__kwdefaults__))
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        _walk_value(value, f"{variable!r}, which {name} closes over", parts, seen)
    for variable in _global_names(function.__code__):
        if variable in function.__globals__:
            value = function.__globals__[variable]
            if _is_ours(value, function) or isinstance(value, _PLAIN) or _is_table(value):
                _walk_value(value, f"{variable!r}, which {name} reads", parts, seen)


def _apart(name: str, parts: Parts, source: str) -> str:
    """The name, numbered where another function has it: one of two lambdas must not hide behind the other."""
    apart, number = name, 1
    while parts.get(f"the source of {apart}", source) != source:
        number += 1
        apart = f"{name} ({number})"
    return apart


def _walk_value(value: Any, label: str, parts: Parts, seen: set[int]) -> None:
    followed = isinstance(value, (types.FunctionType, types.MethodType, functools.partial, type))
    if followed or hasattr(value, "py_func") or hasattr(value, "identity_parts"):
        _walk(value, parts, seen)
    elif not isinstance(value, types.ModuleType):
        parts[label] = _hex(value)


def _walk_class(cls: type, parts: Parts, seen: set[int]) -> None:
    if f"the class {_name(cls)}" in parts:
        return
    parts[f"the class {_name(cls)}"] = f"{cls.__module__}.{cls.__qualname__}"
    room = cls.__module__.partition(".")[0]
    if room == "admf_dask":
        parts["the version of admf_dask"] = str(getattr(sys.modules[room], "__version__", ""))
    if room in ("admf_dask", "builtins", "numpy", "pandas"):
        return
    for value in vars(cls).values():
        if isinstance(value, types.FunctionType):
            _walk(value, parts, seen)


def _source(function: types.FunctionType) -> str:
    """A digest of the syntax; of the byte code where there is no text or the text holds more than the function (lambdas)."""
    if function.__name__ != "<lambda>":
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError, SyntaxError, ValueError):
            tree = None
        if (
            tree is not None
            and len(tree.body) == 1
            and isinstance(tree.body[0], (ast.FunctionDef, ast.AsyncFunctionDef))
        ):
            body = tree.body[0].body
            if ast.get_docstring(tree.body[0], clean=False) is not None:
                body[:] = body[1:] or [ast.Pass()]
            return hashlib.blake2b(ast.dump(tree).encode(), digest_size=16).hexdigest()
    return code_key(function.__code__).hex()


def _global_names(code: types.CodeType) -> list[str]:
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_global_names(constant)))
    return list(names)


def _is_ours(value: Any, function: Callable[..., Any]) -> bool:
    """Whether a function or class comes from the package, or script, of `function`."""
    room = getattr(value, "__module__", None)
    return isinstance(room, str) and room.partition(".")[0] == str(function.__module__).partition(".")[0]


def _is_table(value: Any) -> bool:
    return type(value).__name__ in ("ndarray", "DataFrame", "Series", "Index", "DatetimeIndex")


def _hex(value: Any) -> str:
    return content_key(value).hex()


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or type(thing).__name__)
