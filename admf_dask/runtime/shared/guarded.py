"""What an item is given of data that all items are given: read-only, without a copy, and as it was before any item.

    Guard.take() -> the DataFrame, Series, array, or the dict, list or tuple of them, for one item

A guard belongs to one thread, which takes once for each item. What it gives out is the same objects again unless an item has
changed them, so a take costs about as much as a call of an empty function. Everything else (a data handler, a number) is
given as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from itertools import repeat
from typing import Any, Protocol

import numpy as np

from admf_dask.runtime.shared.shells import Shell, locked

_ARRAYS = (np.ndarray, np.memmap, np.recarray)


class Guard(Protocol):
    """Gives the same data again and again."""

    def take(self) -> Any:
        """The data for one item."""


def guard_of(value: Any) -> Guard | None:
    """A guard for what can be guarded, else None.

    An object whose class names one of its fields in `guarded_field` is guarded there.
    """
    if type(value) in _ARRAYS:
        return _Array(value)
    if type(value) is dict:
        return _Mapping(value) if any(map(_can_be_guarded, value.values())) else None
    if type(value) in (list, tuple):
        return _Sequence(value) if any(map(_can_be_guarded, value)) else None
    if hasattr(type(value), "guarded_field"):
        return _Holder.of(value)
    return _shell(value) if _is_table(value) else None


def taking(value: Any) -> Callable[[], Any]:
    """What to call for each item to get its data."""
    guard = guard_of(value)
    return repeat(value).__next__ if guard is None else guard.take


def _shell(value: Any) -> Guard | None:
    try:
        return Shell(value)
    except Exception:  # noqa: BLE001 - a column of a class that cannot be pickled; in threads it need not be
        return None


def _is_table(value: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series))


def _can_be_guarded(value: Any) -> bool:
    if type(value) is dict:
        return any(map(_can_be_guarded, value.values()))
    return type(value) in _ARRAYS or _is_table(value)


class _Array:
    def __init__(self, array: Any) -> None:
        self._array = locked(array)

    def take(self) -> Any:
        # A view, because even of an array that cannot be written the shape can be changed.
        return self._array.view()


class _Sequence:
    def __init__(self, value: Any) -> None:
        self._kind, self._takes = type(value), [taking(one) for one in value]

    def take(self) -> Any:
        return self._kind([take() for take in self._takes])


class _Holder:
    def __init__(self, value: Any, field: str, guard: Guard) -> None:
        self._value, self._field, self._guard = value, field, guard
        self._inside: Any = None

    @classmethod
    def of(cls, value: Any) -> Guard | None:
        field = type(value).guarded_field
        guard = guard_of(getattr(value, field))
        return None if guard is None else cls(value, field, guard)

    def take(self) -> Any:
        inside = self._guard.take()
        if inside is not self._inside:
            self._inside, self._value = inside, replace(self._value, **{self._field: inside})
        return self._value


class _Mapping:
    def __init__(self, value: dict[Any, Any]) -> None:
        self._plain, self._takes = value, dict[Any, Callable[[], Any]]()
        self._given = Tables(value, self._takes)

    def take(self) -> Any:
        if not self._given.begin():
            self._given = Tables(self._plain, self._takes)
        return self._given


class Tables(dict[Any, Any]):
    """A dict for one item, whose tables are made ready when they are asked for: there may be thousands, and it asks for one.

    Belongs to one thread.
    """

    __slots__ = ("_changed", "_ready", "_takes")

    def __init__(self, plain: dict[Any, Any], takes: dict[Any, Callable[[], Any]]) -> None:
        """`takes` remembers what to call for each name that was asked for."""
        dict.__init__(self, plain)
        self._takes, self._changed = takes, False
        self._ready: dict[Any, Any] = {}

    def begin(self) -> bool:
        """A new item begins. False if the last one put something in or took something out."""
        if self._ready:
            self._ready.clear()
        return not self._changed

    def __getitem__(self, name: Any) -> Any:
        """The table of a name, the same one throughout an item."""
        ready = self._ready
        if name in ready:
            return ready[name]
        plain = dict.__getitem__(self, name)
        take = self._takes.get(name)
        if take is None:
            take = self._takes[name] = taking(plain)
        ready[name] = value = take()
        return value

    def __setitem__(self, name: Any, value: Any) -> None:
        """Put in, for this item."""
        self._changed = True
        dict.__setitem__(self, name, value)
        self._ready[name] = value

    def __delitem__(self, name: Any) -> None:
        """Take out, for this item."""
        self._changed = True
        dict.__delitem__(self, name)
        self._ready.pop(name, None)

    def __iter__(self) -> Iterator[Any]:
        """Names. Stands here so that `dict(tables)` and `**tables` ask for each table instead of copying what is below."""
        return dict.__iter__(self)

    # Those of a dict would pass over what stands above.
    get, items, values = Mapping.get, Mapping.items, Mapping.values  # type: ignore[assignment]
    pop, popitem, clear = MutableMapping.pop, MutableMapping.popitem, MutableMapping.clear
    setdefault, update = MutableMapping.setdefault, MutableMapping.update

    def copy(self) -> dict[Any, Any]:
        """A plain dict."""
        return dict(self)

    def __or__(self, other: Any) -> Any:
        """As of a dict."""
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        """As of a dict."""
        return other | self.copy()

    def __ior__(self, other: Any) -> Any:
        """As of a dict."""
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A plain dict travels."""
        return dict, (self.copy(),)
