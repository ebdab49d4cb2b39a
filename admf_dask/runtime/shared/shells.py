"""A frame of one's own over arrays that nobody can write: what is done to it does not reach who looks next.

A frame is a small object (columns, index, names, attributes) over large arrays. Pickle takes the one apart and hands out the
others, so a new one over the same memory costs 20 to 30 microseconds, whatever its rows. To see that the last one is still as
it was costs half of one, so a new one is made only after an item that added a column, sorted in place or named the index. A
shallow copy would not do: from pandas 3 on, writing into one copies all of its memory in silence. So it does where anybody still
holds a column of an earlier item's (Dask's profiler does at times), so then a new one is made as well.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLAT = (str, int, float, bool, type(None))


def locked(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory, not to be written through what is returned.

    Where pandas does not work with read-only objects, an array of objects that could be written is copied instead.
    """
    if array.dtype.hasobject and not objects_may_be_locked():
        return array.copy() if array.flags.writeable else array
    view = array.view()
    view.flags.writeable = False
    return view


def objects_may_be_locked() -> bool:
    """Whether pandas, where it is loaded, takes columns of objects that are read-only: `merge` and `shift` of 2 do not."""
    pandas = sys.modules.get("pandas")
    return pandas is None or int(pandas.__version__.partition(".")[0]) >= 3


class Shell:
    """Gives a DataFrame or a Series as it was, again and again. It belongs to one thread."""

    def __init__(self, value: Any) -> None:
        """Take `value` apart. Raises what pickling raises, for columns of a kind that cannot be pickled."""
        self._axes = [_Axis(axis) for axis in value.axes]
        self._given: list[Any] = []
        try:
            self._plan = _Plan(value, value.axes)
        except Exception:  # noqa: BLE001 - attributes may be anything; what cannot be copied is given as it is
            self._given = list(value.attrs.values())
            self._plan = _Plan(value, [*value.axes, *self._given])
        flat = all(isinstance(one, _FLAT) for one in value.attrs.values())
        self._attributes = dict(value.attrs) if flat else None
        """None where an item could change what is inside them unseen: then each gets a new frame."""
        self._make()

    def take(self) -> Any:
        """The frame: the one that was given before, if it is still as it was."""
        if not self._is_as_it_was():
            for axis in self._axes:
                # An index remembers how to find its labels, so it is kept if it can be.
                axis.mend()
            self._make()
        return self._value

    def _make(self) -> None:
        self._value = self._plan.make([*(axis.index for axis in self._axes), *self._given])
        self._is_as_it_was = _watch(self._value, self._attributes, self._axes)


def _watch(value: Any, attributes: dict[Any, Any] | None, axes: Sequence[_Axis]) -> Callable[[], bool]:
    """A look whether a frame is as it is now: comparisons of what is the very same object, in 0.3 microseconds."""
    held: dict[str, Any] = value.__dict__
    manager: Any = held.get("_mgr")
    blocks, flags = getattr(manager, "blocks", None), value.flags
    duplicates = flags.allows_duplicate_labels
    was = {**held, "_attrs": attributes}
    # Before pandas 3 a column that was looked at is kept, with what was done to it.
    keeps_columns = "_item_cache" in held
    if keeps_columns:
        was["_item_cache"] = {}
    shares = [block.refs.has_reference for block in blocks or () if hasattr(block, "refs")]
    index, columns = axes[0].index, axes[-1].index
    index_holds, columns_hold = axes[0].is_as_it_was, axes[-1].is_as_it_was if len(axes) > 1 else _yes

    def is_as_it_was() -> bool:
        if keeps_columns:
            held["_item_cache"].clear()
        try:
            now = manager.axes
            return bool(
                held == was
                and manager.blocks is blocks
                # Of a frame the columns are first; a series has the index only.
                and now[0] is columns
                and now[-1] is index
                and index_holds()
                and columns_hold()
                and flags._allows_duplicate_labels is duplicates
                and not any(share() for share in shares)
            )
        except AttributeError:
            # A pandas that is built in another way: then each look gets a new one.
            return False

    return is_as_it_was


def _yes() -> bool:
    return True


class _Axis:
    """An index, and what can be changed of it in place: its name or names, and its frequency."""

    def __init__(self, index: Any) -> None:
        self._plan = _Plan(index)
        self._make()

    def _make(self) -> None:
        self.index = index = self._plan.make()
        name, freq = index._name, getattr(index, "freq", None)
        names = getattr(index, "_names", None)
        if isinstance(names, list):
            was = list(names)
            self.is_as_it_was: Callable[[], bool] = lambda: index._name is name and index._names == was
        elif hasattr(index, "freq"):
            self.is_as_it_was = lambda: index._name is name and ((now := index.freq) is freq or now == freq)
        else:
            self.is_as_it_was = lambda: index._name is name

    def mend(self) -> None:
        if not self.is_as_it_was():
            self._make()


class _Plan:
    """How to make a value again over the same arrays."""

    __slots__ = ("_arrays", "_body")

    def __init__(self, value: Any, given: Sequence[Any] = ()) -> None:
        """What is `given` is not made again, but handed to `make`."""
        file = io.BytesIO()
        pickler = _Pickler(file, given)
        pickler.dump(value)
        self._body, self._arrays = file.getvalue(), pickler.arrays

    def make(self, given: Sequence[Any] = ()) -> Any:
        unpickler = pickle.Unpickler(io.BytesIO(self._body))
        parts = (given, self._arrays)
        unpickler.persistent_load = lambda place: parts[place[0]][place[1]]  # type: ignore[method-assign]
        return unpickler.load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, given: Sequence[Any]) -> None:
        super().__init__(file, protocol=5)
        self._given = {id(one): place for place, one in enumerate(given)}
        self.arrays: list[Any] = []

    def persistent_id(self, value: Any) -> tuple[int, int] | None:
        if (place := self._given.get(id(value))) is not None:
            return 0, place
        if isinstance(value, np.ndarray):
            self.arrays.append(locked(value))
        elif type(value).__module__.partition(".")[0] == "pyarrow":
            # Nobody can write what belongs to Arrow.
            self.arrays.append(value)
        else:
            return None
        return 1, len(self.arrays) - 1
