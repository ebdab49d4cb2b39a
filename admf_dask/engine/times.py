"""The index of bars as it travels: a worker that only runs kernels needs no pandas, which takes 60 MB and a third of a second."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Times:
    """An index that is made again, after a journey, where somebody asks for it.

    Times of a `DatetimeIndex` travel as int64, of which many processes can share one copy; another index as its pickle.
    """

    __slots__ = ("_index", "_packed")

    def __init__(self, index: Any) -> None:
        """Of an index of pandas."""
        self._index: Any = index
        self._packed: Any = None

    @property
    def index(self) -> Any:
        """The index itself, with name, time zone and frequency. Costs microseconds after a journey, and pandas' import."""
        if self._index is None:
            self._index = _unpacked(self._packed)
        return self._index

    def same_as(self, other: Times) -> bool:
        """Whether both are one index, to the name and the frequency."""
        mine, theirs = self.index, other.index
        alike = type(mine) is type(theirs) and mine.dtype == theirs.dtype and mine.name == theirs.name
        return alike and getattr(mine, "freq", None) == getattr(theirs, "freq", None) and bool(mine.equals(theirs))

    def axis(self, places: slice) -> tuple[NDArray[np.float64], bool]:
        """What to draw some bars over: milliseconds since the epoch on the clock of its zone and True, or positions and False."""
        packed = self._packed if self._index is None else _packed(self._index)
        if not isinstance(packed, dict):
            bars = np.arange(len(self.index), dtype=np.float64)
            return bars[places], False
        if packed["zone"] is None:
            moments = packed["moments"][places].view(f"M8[{packed['unit']}]")
        else:
            moments = self.index[places].tz_localize(None).to_numpy()
        return moments.astype("M8[ms]").astype(np.float64), True

    def identity_parts(self) -> tuple[Any, ...]:
        """The index."""
        return (self.index,)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Without anything of pandas; from protocol 5 on, without a copy of the times."""
        packed = self._packed if self._index is None else _packed(self._index)
        if not isinstance(packed, dict):
            packed = pickle.PickleBuffer(packed) if protocol >= 5 else bytes(packed)
        return _arrived, (packed,)


def _arrived(packed: Any) -> Times:
    times = Times(None)
    times._packed = packed
    return times


def _packed(index: Any) -> Any:
    if type(index).__name__ != "DatetimeIndex":
        return pickle.dumps(index, protocol=5)
    return {
        "moments": index.asi8, "unit": index.unit, "zone": index.tz, "name": index.name, "frequency": index.freqstr,
    }  # fmt: skip


def _unpacked(packed: Any) -> Any:
    if not isinstance(packed, dict):
        return pickle.loads(packed)
    import pandas as pd

    index = pd.DatetimeIndex(packed["moments"].view(f"M8[{packed['unit']}]"), name=packed["name"])
    if packed["zone"] is not None:
        index = index.tz_localize("UTC").tz_convert(packed["zone"])
    return index if packed["frequency"] is None else pd.DatetimeIndex(index, freq=packed["frequency"])
