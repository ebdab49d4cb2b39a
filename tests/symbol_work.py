"""What the symbol tests evaluate; a module of its own so that drivers in other processes import it too."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np
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


def slow_row(symbol: str) -> pd.DataFrame:
    time.sleep(0.004)
    return prices(1)


def ends_its_worker_once(symbol: str, frame: pd.DataFrame, *, folder: str) -> pd.DataFrame:
    """S010 kills its process, by a signal that nobody can handle, the first time."""
    path = os.path.join(folder, "killed")
    if symbol == "S010" and not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return features(symbol, frame)


def meets(symbol: str, frame: pd.DataFrame, *, folder: str) -> int:
    """How many giants are at work in this process while this one is; a giant's name begins with G."""
    if not symbol.startswith("G"):
        return 0
    mine = os.path.join(folder, f"{os.getpid()}-{symbol}")
    open(mine, "w").close()
    time.sleep(0.1)
    here = len([name for name in os.listdir(folder) if name.startswith(f"{os.getpid()}-")])
    os.unlink(mine)
    return here


def large(symbol: str) -> pd.DataFrame:
    """8 MB that do not compress."""
    return pd.DataFrame({"value": np.random.default_rng(len(symbol)).random(1_000_000)})


def last_mean(pair: tuple[str, pd.DataFrame]) -> tuple[str, float]:
    return pair[0], float(pair[1]["mean"].iloc[-1] + pair[1]["close"].iloc[0])


def second(pair: tuple[str, float]) -> float:
    return pair[1]


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


def ramp(symbol: str, rows: dict[str, int]) -> pd.DataFrame:
    """A frame of so many rows."""
    return pd.DataFrame({"close": range(rows[symbol]), "volume": range(rows[symbol])})


def surroundings(symbol: str) -> pd.DataFrame:
    """What a worker is in: facts of the process, as text."""
    import multiprocessing.forkserver
    import warnings

    import psutil

    from admf_dask.runtime import forkserver

    time.sleep(0.02)
    parent = psutil.Process(os.getppid())
    locks = (forkserver._starting, multiprocessing.forkserver._forkserver._lock)
    facts = {
        "pid": os.getpid(),
        "server": parent.pid,
        "server starts with": " ".join(parent.cmdline()),
        "threads of the server": parent.num_threads(),
        "hash": hash("AAPL"),
        "drawn": np.random.random(),
        "warnings": warnings.showwarning.__module__,
        "term": signal.getsignal(signal.SIGTERM),
        "free locks": sum(lock.acquire(timeout=5) for lock in locks),
        "files": [name for name in map(_target, os.listdir("/proc/self/fd")) if ".journal" in name or ".lease" in name],
        "malloc": parent.environ().get("MALLOC_TRIM_THRESHOLD_"),
        "arrow": _arrow(),
    }
    for lock in locks:
        lock.release()
    return pd.DataFrame({name: [str(value)] for name, value in facts.items()})


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _arrow() -> str:
    import pyarrow as pa

    return pa.default_memory_pool().backend_name
