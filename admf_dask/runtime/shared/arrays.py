"""Arrays that NumPy would pickle whole, in a form whose memory can be put aside; and none that can be written afterwards.

NumPy hands out the memory of an array only where other programs would understand its dtype and where it has no gaps. Times,
records and slices are neither, and a table of prices has one of each: they travel as plain bytes, or without the gaps.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_PLAIN = (np.ndarray, np.memmap)
_MISSING = frozenset({"NoneType", "NAType"})
_WORTH = 2
"""Texts that occur this often on average are kept once each."""


def reduce_array(value: Array) -> Any:
    """As `__reduce_ex__`, for an array that is not empty. NotImplemented where NumPy's own way is the best."""
    dtype = value.dtype
    if dtype.hasobject:
        return _reduce_objects(value)
    if type(value) not in (*_PLAIN, np.recarray):
        return NotImplemented
    has_gaps = not (value.flags.c_contiguous or value.flags.f_contiguous)
    whole = np.ascontiguousarray(value) if has_gaps else np.asarray(value)
    if dtype.kind in "mM" or dtype.names is not None:
        return _typed, (whole.view(np.ndarray).view(f"V{dtype.itemsize}"), dtype, type(value) is np.recarray)
    return NotImplemented if whole is value else whole.__reduce_ex__(5)


def _typed(raw: Array, dtype: np.dtype[Any], records: bool) -> Array:
    array = raw.view(dtype)
    return array.view(np.recarray) if records else array


def _reduce_objects(value: Array) -> Any:
    """Objects are made anew by each process. Texts that repeat, as symbols do, are one object each and a code a row."""
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    if type(value) is np.ndarray and value.dtype == object and value.size > 1:
        coded = _coded(value.ravel("F" if fortran else "C").tolist())
        if coded is not None:
            return _texts, (*coded, value.shape, fortran)
    return (*value.__reduce__()[:3], None, None, _restore_locked)


def _coded(values: list[Any]) -> tuple[list[Any], NDArray[np.int32]] | None:
    """Distinct values, and the place of each among them; None where that gains nothing or equal values may differ."""
    kinds = set(map(type, values))
    if not all(kind in (str, float) or kind.__name__ in _MISSING for kind in kinds):
        return None
    if float in kinds and any(type(one) is float and one == one for one in values):
        # Numbers can be equal and not the same, as 0.0 and -0.0; only NaN stands for nothing.
        return None
    places: dict[Any, int] = {}
    codes = [places.setdefault(one, len(places)) for one in values]
    return None if len(places) * _WORTH > len(values) else (list(places), np.array(codes, np.int32))


def _texts(distinct: list[Any], codes: NDArray[np.int32], shape: tuple[int, ...], fortran: bool) -> Array:
    table = np.empty(len(distinct), object)
    table[:] = distinct
    return _locked(table[codes].reshape(shape, order="F" if fortran else "C"))


def _restore_locked(array: Array, state: Any) -> None:
    array.__setstate__(state)
    _locked(array)


def _locked(array: Array) -> Array:
    """Not to be written, as what is shared, so that no item finds what another wrote.

    Before pandas 3 objects stay as they are: its `merge`, `shift` and `pivot` refuse columns of objects that are read-only.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or int(pandas.__version__.partition(".")[0]) >= 3:
        array.flags.writeable = False
    return array
