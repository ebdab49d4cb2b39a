"""Functions over shared data, importable by workers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np


def total(i: int, frame: Any) -> float:
    return float(frame.iloc[:, i].sum())


def where(i: int, frame: Any) -> tuple[int, bool, int]:
    """Process, whether the first column can be written, and the frame's own bytes that are private."""
    values = frame.iloc[:, 0].to_numpy(copy=False)
    return os.getpid(), bool(values.flags.writeable), id(frame)


def write(i: int, frame: Any) -> None:
    frame.iloc[0, 0] = 1.0


def handle_total(i: int, handle: Any) -> float:
    return float(np.sum(handle.value))


def of_symbol(symbol: str, tables: Any) -> float:
    return float(tables[symbol]["close"].sum())


def read_all(i: int, array: Any) -> float:
    return float(array.sum())


def score(params: dict[str, int], frame: Any) -> float:
    return float(frame["a"].iloc[: params["n"]].sum())
