"""What the symbol tests evaluate; a module of its own so that drivers in other processes import it too."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pandas as pd

from admf_dask import ParallelDataProcessor


def features(symbol: str, frame: pd.DataFrame, *, window: int = 3) -> pd.DataFrame:
    folder = os.environ.get("ADMF_DASK_TEST_MARKS")
    if folder:
        with open(os.path.join(folder, symbol), "ab") as file:
            file.write(b"x")
    if symbol == "BAD":
        raise ValueError("no volume")
    return frame.assign(mean=frame["close"].rolling(window).mean())


def slow_features(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
    time.sleep(0.01)
    return features(symbol, frame)


def length(symbol: str) -> int:
    return len(symbol)


def double(symbol: str, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(close=frame["close"] * 2)


def total(symbol: str, frame: pd.DataFrame) -> float:
    return float(frame["close"].sum())


def prices(count: int) -> pd.DataFrame:
    return pd.DataFrame({"close": [float(n) for n in range(count)]})


def drive(data: str, out: str) -> None:
    ParallelDataProcessor(workers=2).process_symbols(None, slow_features, data=data, out=out, progress=False)


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    drive(*arguments)
