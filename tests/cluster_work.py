"""Functions that the cluster tests evaluate; a module of its own so that workers import it as they would a user's."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from admf_dask import batch_objective
from admf_dask.runtime.job import ANNOUNCE
from admf_dask.steps.parquet import read_frame


async def job_overtaken(name: str, job: bytes, dask_worker: Any) -> list[bool]:
    """Whether a worker has the job of a run when it was told of it; and when it was told after it was to forget it."""
    has, plugins = [], dask_worker.plugins
    await dask_worker.stream_handlers[ANNOUNCE](name=name, plugin=job)
    has.append(name in plugins)
    for _ in range(2):
        await dask_worker.handlers["plugin-remove"](name=name)
    await dask_worker.stream_handlers[ANNOUNCE](name=name, plugin=job)
    has.append(name in plugins)
    return has


def square(x: int) -> int:
    return x * x


def score(params: dict[str, Any]) -> float:
    return float(-((params["fast"] - 7) ** 2) - params["slow"] * 0.25)


def scores(params: dict[str, Any]) -> dict[str, float]:
    return {"sharpe": score(params), "trades": params["fast"] + 0.0}


@batch_objective
def batch_score(columns: dict[str, Any]) -> Any:
    return -((columns["fast"] - 7.0) ** 2) - columns["slow"] * 0.25


@batch_objective
def batch_that_hates_thirteen(columns: dict[str, Any]) -> Any:
    if (columns["fast"] == 13).any():
        raise ValueError("thirteen")
    return columns["fast"] * 1.0


def fails_at_three(x: int) -> int:
    if x == 3:
        raise ValueError("not enough bars")
    return x


def with_data(x: int, data: Any) -> float:
    return float(data[x])


class Unpicklable(Exception):
    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} {right}")
        self.lock = __import__("threading").Lock()


def misbehaves(kind: str) -> Any:
    if kind == "unpicklable error":
        raise Unpicklable("a", "b")
    if kind == "unpicklable result":
        return __import__("threading").Lock()
    if kind == "system exit":
        raise SystemExit(4)
    if kind == "keyboard interrupt":
        raise KeyboardInterrupt
    if kind == "recursion":
        return misbehaves(kind)
    if kind == "no str":
        raise NoStr
    return kind


class NoStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be printed")


def kills_its_process(how: str) -> str:
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def inner_threads(_: int) -> dict[str, Any]:
    import threadpoolctl

    np.dot(np.eye(2), np.eye(2))
    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    return {"pools": pools, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid()}


def wait_for_file(path: str) -> float:
    deadline = time.monotonic() + 60
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.005)
    return 1.0


def begin_and_wait(x: int, folder: str) -> float:
    Path(folder, f"begun-{x}").touch()
    return wait_for_file(f"{folder}/never")


def begin_and_hold_the_interpreter(x: int, folder: str) -> None:
    Path(folder, f"begun-{x}").touch()
    ctypes.PyDLL(None).sleep(600)


def mark_and_count(params: dict[str, Any]) -> float:
    return float(params["a"])


def nested_map(x: int) -> list[int]:
    from admf_dask import Session

    with Session(mode="process", workers=2) as session:
        return session.map(square, range(x), progress=False).values()


@batch_objective
def batch_that_hangs_at_13(columns: dict[str, Any]) -> Any:
    while (columns["x"] == 13).any():
        pass
    return columns["x"] * 1.0


@batch_objective
def batch_of_seeds(columns: dict[str, Any], seeds: Any) -> Any:
    return seeds.astype(float)


def fails_at_seven(params: dict[str, Any]) -> float:
    if params["a"] == 7:
        raise ValueError("not at 7")
    return float(params["a"])


def counts(_: int, progress: Any) -> bool:
    return progress.update(2)


def counts_all(given: tuple[Any, int]) -> int:
    progress, many = given
    for _ in range(many):
        progress.update()
    return progress.statistics().completed


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def kept_of(path: str) -> tuple[float, float]:
    """MiB of a frame, and of this process's memory that reading and working with it leaves behind."""
    import pandas as pd

    # What is loaded and copied by the first call is there afterwards.
    rows = read_frame(path).rolling(5).sum()[:10].copy()
    before = _own_memory()
    for _ in range(3):
        frame = read_frame(path)
        rows = pd.concat([frame.rolling(5).sum() for _ in range(4)])[:10].copy()
    size = frame.memory_usage().sum() / 2**20
    del frame, rows
    return size, _own_memory() - before


def _own_memory() -> float:
    return psutil.Process().memory_full_info().uss / 2**20
