"""Parameter grids, strategy configs and symbol lists on a Dask cluster that fits the machine.

Everything public is here; a name is loaded when it is first asked for, so importing the package costs milliseconds and
changes nothing in the process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS: dict[str, tuple[str, ...]] = {
    "backtests": ("BacktestResults", "run_parallel_backtests"),
    "config": ("ParallelConfig",),
    "engine": ("backtest_objective",),
    "errors": (
        "AdmfError",
        "BooksDisagree",
        "ClusterLost",
        "ConfigError",
        "DataError",
        "EngineError",
        "JournalCorrupt",
        "JournalError",
        "JournalMismatch",
        "NotSupported",
        "ResourceError",
        "SchedulerUnreachable",
        "SessionClosed",
        "SessionError",
        "SpaceError",
        "TaskError",
        "TaskFailed",
        "TaskTimeout",
        "UnknownStrategy",
        "WorkerDied",
    ),
    "journal": ("Journal",),
    "local": ("TaskQueue", "ThreadPool", "ThreadSafeDict", "run_isolated_process"),
    "objectives": ("batch_objective",),
    "optimize": ("OptimizationResult", "ParallelOptimizer", "ParameterSpace"),
    "outcomes": ("Outcome",),
    "progress": ("ParallelProgress",),
    "resources": ("Layout", "Machine", "ResourceManager"),
    "runtime": ("Outcomes", "Session", "SharedData"),
    "symbols": ("ParallelDataProcessor", "SymbolResults"),
    "space": ("Choice", "Conditional", "FloatRange", "IntRange", "LogRange"),
}
_DOORS = ("datasets", "engine", "steps")
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted((*_HOME, *_DOORS, "__version__"))


def __getattr__(name: str) -> Any:
    """Load a public name on first use, and make its home the one that users know."""
    if name in _DOORS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        from admf_dask.text import closest

        near = closest(name, __all__)
        hint = f"; did you mean {near!r}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if hasattr(value, "__qualname__") and value.__module__.startswith(f"{__name__}."):
        value.__module__ = __name__
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, loaded or not."""
    return list(__all__)


if TYPE_CHECKING:
    # With `as`: without, a type checker takes a name for one that is not to be imported from here.
    from admf_dask import datasets as datasets
    from admf_dask import engine as engine
    from admf_dask import steps as steps
    from admf_dask.backtests import BacktestResults as BacktestResults
    from admf_dask.backtests import run_parallel_backtests as run_parallel_backtests
    from admf_dask.config import ParallelConfig as ParallelConfig
    from admf_dask.engine import backtest_objective as backtest_objective
    from admf_dask.errors import AdmfError as AdmfError
    from admf_dask.errors import BooksDisagree as BooksDisagree
    from admf_dask.errors import ClusterLost as ClusterLost
    from admf_dask.errors import ConfigError as ConfigError
    from admf_dask.errors import DataError as DataError
    from admf_dask.errors import EngineError as EngineError
    from admf_dask.errors import JournalCorrupt as JournalCorrupt
    from admf_dask.errors import JournalError as JournalError
    from admf_dask.errors import JournalMismatch as JournalMismatch
    from admf_dask.errors import NotSupported as NotSupported
    from admf_dask.errors import ResourceError as ResourceError
    from admf_dask.errors import SchedulerUnreachable as SchedulerUnreachable
    from admf_dask.errors import SessionClosed as SessionClosed
    from admf_dask.errors import SessionError as SessionError
    from admf_dask.errors import SpaceError as SpaceError
    from admf_dask.errors import TaskError as TaskError
    from admf_dask.errors import TaskFailed as TaskFailed
    from admf_dask.errors import TaskTimeout as TaskTimeout
    from admf_dask.errors import UnknownStrategy as UnknownStrategy
    from admf_dask.errors import WorkerDied as WorkerDied
    from admf_dask.journal import Journal as Journal
    from admf_dask.local import TaskQueue as TaskQueue
    from admf_dask.local import ThreadPool as ThreadPool
    from admf_dask.local import ThreadSafeDict as ThreadSafeDict
    from admf_dask.local import run_isolated_process as run_isolated_process
    from admf_dask.objectives import batch_objective as batch_objective
    from admf_dask.optimize import OptimizationResult as OptimizationResult
    from admf_dask.optimize import ParallelOptimizer as ParallelOptimizer
    from admf_dask.optimize import ParameterSpace as ParameterSpace
    from admf_dask.outcomes import Outcome as Outcome
    from admf_dask.progress import ParallelProgress as ParallelProgress
    from admf_dask.resources import Layout as Layout
    from admf_dask.resources import Machine as Machine
    from admf_dask.resources import ResourceManager as ResourceManager
    from admf_dask.runtime import Outcomes as Outcomes
    from admf_dask.runtime import Session as Session
    from admf_dask.runtime import SharedData as SharedData
    from admf_dask.space import Choice as Choice
    from admf_dask.space import Conditional as Conditional
    from admf_dask.space import FloatRange as FloatRange
    from admf_dask.space import IntRange as IntRange
    from admf_dask.space import LogRange as LogRange
    from admf_dask.symbols import ParallelDataProcessor as ParallelDataProcessor
    from admf_dask.symbols import SymbolResults as SymbolResults
