"""Who an item is: keys of content that are the same in every process, on every machine, in any order.

A key is 16 bytes of BLAKE2b over a canonical form, type by type. A mapping is the sum of the keys of its entries, lane by lane
modulo 2^64, so that the order of its names does not matter and a grid can add up whole columns at once. Everything that
must survive a restart asks here: seeds of items, the journal, stale records.

Raises TypeError for what has no content that could be written down (an open file, a lock).
"""

from __future__ import annotations

import functools
import hashlib
import struct
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Key = bytes
Keys = NDArray[np.uint64]
"""Keys of many items, shape (n, 2)."""

_LANES = struct.Struct("<QQ")
_MASK = 2**64 - 1


def content_key(value: Any) -> Key:
    """The key of any value made of plain data, arrays, frames, objects that can be pickled, and functions.

    Cost: about 2 microseconds for a scalar, 1 s for a gigabyte of arrays.
    """
    return _key(value, ())


def keys_of(items: Iterable[Any]) -> Keys:
    """The keys of some items, one by one."""
    found = b"".join(content_key(item) for item in items)
    return np.frombuffer(found, "<u8").astype(np.uint64).reshape(-1, 2)


def keys_of_columns(columns: Mapping[str, NDArray[Any]], size: int, absent: Any) -> Keys:
    """The keys of `size` mappings given as columns; entries that are `absent` do not exist.

    Equal to `keys_of` of the same mappings, at the cost of one key for each distinct value of a column.
    """
    total = np.zeros((size, 2), np.uint64)
    for name, column in columns.items():
        if column.dtype == object:
            total += _keys_of_objects(name, column, absent)
        else:
            distinct, codes = np.unique(column, return_inverse=True)
            total += np.array([_entry(name, value, ()) for value in distinct.tolist()], np.uint64).reshape(-1, 2)[codes]
    return total


def _keys_of_objects(name: str, column: NDArray[Any], absent: Any) -> Keys:
    places: dict[tuple[type, Any], int] = {}
    table: list[tuple[int, int]] = []
    codes = np.empty(len(column), np.int64)
    for row, value in enumerate(column.tolist()):
        same = value if _hashable(value) and value == value else id(value)
        code = places.setdefault((type(value), same), len(table))
        if code == len(table):
            table.append((0, 0) if value is absent else _entry(name, value, ()))
        codes[row] = code
    return np.array(table, np.uint64).reshape(-1, 2)[codes]


def _hashable(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool, bytes, type(None)))


def _key(value: Any, above: tuple[int, ...]) -> Key:
    if isinstance(value, np.generic):
        value = value.item() if value.dtype.kind in "biufUS" else value
    plain = _plain(value)
    if plain is not None:
        return _digest(*plain)
    if id(value) in above:
        return _digest("circle", str(len(above) - above.index(id(value))).encode())
    above = (*above, id(value))
    if isinstance(value, Mapping) and type(value).__reduce_ex__ in (dict.__reduce_ex__, object.__reduce_ex__):
        return _mapping(value, above)
    if type(value) in (list, tuple):
        return _digest(type(value).__name__, *(_key(part, above) for part in value))
    if type(value) in (set, frozenset):
        return _digest("set", *sorted(_key(part, above) for part in value))
    if isinstance(value, np.ndarray):
        return _array(value, above)
    return _special(value, above)


def _plain(value: Any) -> tuple[str, bytes] | None:
    """Type and canonical bytes of a scalar."""
    kind = type(value)
    if kind is float:
        return "float", struct.pack("<d", value if value == value else float("nan"))
    if kind in (int, bool, type(None), complex, type(...)):
        return kind.__name__, repr(value).encode()
    if kind is str:
        return "str", value.encode("utf-8", "surrogatepass")
    if kind in (bytes, bytearray):
        return "bytes", bytes(value)
    return None


def _digest(kind: str, *parts: bytes) -> Key:
    state = hashlib.blake2b(kind.encode(), digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _mapping(value: Mapping[Any, Any], above: tuple[int, ...]) -> Key:
    first = second = 0
    for name, content in value.items():
        a, b = _entry(name, content, above)
        first, second = first + a, second + b
    return _LANES.pack(first & _MASK, second & _MASK)


@functools.lru_cache(100_000)
def _cached_entry(kinds: tuple[type, type], name: Any, content: Any) -> tuple[int, int]:
    a, b = _LANES.unpack(_digest("entry", _key(name, ()), _key(content, ())))
    return int(a), int(b)


def _entry(name: Any, content: Any, above: tuple[int, ...]) -> tuple[int, int]:
    if _hashable(name) and _hashable(content) and content == content and type(content) is not float:
        return _cached_entry((type(name), type(content)), name, content)
    a, b = _LANES.unpack(_digest("entry", _key(name, above), _key(content, above)))
    return int(a), int(b)


def _array(value: NDArray[Any], above: tuple[int, ...]) -> Key:
    shape = repr((value.dtype.str, value.shape)).encode()
    if value.dtype.hasobject:
        return _digest("objects", shape, *(_key(part, above) for part in value.ravel().tolist()))
    state = hashlib.blake2b(b"array", digest_size=16)
    state.update(shape)
    state.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return state.digest()


def _special(value: Any, above: tuple[int, ...]) -> Key:
    if isinstance(value, types.FunctionType):
        return _function(value, above)
    if isinstance(value, (types.BuiltinFunctionType, type)):
        return _digest("name", f"{value.__module__}.{value.__qualname__}".encode())
    if isinstance(value, types.CodeType):
        return code_key(value)
    if isinstance(value, types.ModuleType):
        return _digest("module", value.__name__.encode())
    if hasattr(type(value), "identity_parts"):
        return _digest("parts", type(value).__qualname__.encode(), _key(value.identity_parts(), above))
    room = type(value).__module__.partition(".")[0]
    if room == "pandas" and hasattr(value, "to_frame") | hasattr(value, "columns"):
        return _frame(value, above)
    return _reduced(value, above)


def _function(function: types.FunctionType, above: tuple[int, ...]) -> Key:
    """Code, defaults and what it closes over; not what it calls, which `admf_dask.functions` follows."""
    closed = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    held = (function.__defaults__, function.__kwdefaults__, closed)
    return _digest("function", function.__qualname__.encode(), code_key(function.__code__), _key(held, above))


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not _is_filled
    except ValueError:
        return False


def code_key(code: types.CodeType) -> Key:
    """Byte code with its constants and names; not where it stands in a file."""
    constants = [_key(constant, ()) for constant in code.co_consts]
    names = repr((code.co_names, code.co_varnames, code.co_freevars)).encode()
    return _digest("code", code.co_code, names, *constants)


def _frame(value: Any, above: tuple[int, ...]) -> Key:
    """DataFrame, Series or Index, column by column."""
    if hasattr(value, "columns"):
        parts = [_key(list(value.columns), above), _index(value.index, above)]
        parts += [_column(value.iloc[:, place].array, above) for place in range(value.shape[1])]
        return _digest("DataFrame", *parts)
    if hasattr(value, "index"):
        return _digest("Series", _key(value.name, above), _index(value.index, above), _column(value.array, above))
    return _digest("Index", _index(value, above))


def _index(value: Any, above: tuple[int, ...]) -> Key:
    if getattr(value, "nlevels", 1) > 1:
        levels = [_column(value.get_level_values(level).array, above) for level in range(value.nlevels)]
        return _digest("MultiIndex", _key(list(value.names), above), *levels)
    return _digest("index", _key(value.name, above), _column(value.array, above))


def _column(values: Any, above: tuple[int, ...]) -> Key:
    kind = str(values.dtype).encode()
    if kind == b"category":
        return _digest("category", _column(values.categories.array, above), _array(np.asarray(values.codes), above))
    if hasattr(values, "asi8"):
        return _digest("column", kind, _array(np.asarray(values.asi8), above))
    if hasattr(values, "__arrow_array__"):
        import pandas as pd

        missing = np.asarray(pd.isna(values))
        cells = [None if gone else cell for cell, gone in zip(values, missing.tolist(), strict=True)]
        return _digest("column", kind, *(_key(cell, above) for cell in cells))
    return _digest("column", kind, _array(np.asarray(values), above))


def _reduced(value: Any, above: tuple[int, ...]) -> Key:
    """Any other object, by what pickle would write of it."""
    try:
        reduced = value.__reduce_ex__(4)
    except Exception as error:
        raise TypeError(
            f"{value!r:.80} ({type(value).__name__}) has no content that could be told apart from another's: {error}"
        ) from error
    if isinstance(reduced, str):
        return _digest("global", type(value).__module__.encode(), reduced.encode())
    parts = [part if part is None or isinstance(part, (tuple, dict)) else list(part) for part in reduced[1:5]]
    maker = reduced[0]
    name = f"{getattr(maker, '__module__', '')}.{getattr(maker, '__qualname__', type(maker).__name__)}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return _digest("object", kind.encode(), name.encode(), *(_key(_stateful(part), above) for part in parts))


def _stateful(part: Any) -> Any:
    """The class in `copyreg.__newobj__(cls, ...)` is known by its name alone; its code is not content."""
    if isinstance(part, tuple):
        return tuple(f"{p.__module__}.{p.__qualname__}" if isinstance(p, type) else p for p in part)
    return part
