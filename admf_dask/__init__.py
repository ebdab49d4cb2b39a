"""Parameter grids, strategy configs and symbol lists on a Dask cluster that fits the machine.

Everything public is here; a name is loaded when it is first asked for, so importing the package costs milliseconds and
changes nothing in the process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS: dict[str, tuple[str, ...]] = {
    "backtests": ("run_parallel_backtests",),
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
    "symbols": ("ParallelDataProcessor",),
    "space": ("Choice", "FloatRange", "IntRange", "LogRange"),
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
    from admf_dask import datasets, engine, steps
    from admf_dask.backtests import run_parallel_backtests
    from admf_dask.config import ParallelConfig
    from admf_dask.engine import backtest_objective
    from admf_dask.errors import (
        AdmfError,
        BooksDisagree,
        ClusterLost,
        ConfigError,
        DataError,
        EngineError,
        JournalCorrupt,
        JournalError,
        JournalMismatch,
        NotSupported,
        ResourceError,
        SchedulerUnreachable,
        SessionClosed,
        SessionError,
        SpaceError,
        TaskError,
        TaskFailed,
        TaskTimeout,
        UnknownStrategy,
        WorkerDied,
    )
    from admf_dask.journal import Journal
    from admf_dask.local import TaskQueue, ThreadPool, ThreadSafeDict, run_isolated_process
    from admf_dask.objectives import batch_objective
    from admf_dask.optimize import OptimizationResult, ParallelOptimizer, ParameterSpace
    from admf_dask.outcomes import Outcome
    from admf_dask.progress import ParallelProgress
    from admf_dask.resources import Layout, Machine, ResourceManager
    from admf_dask.runtime import Outcomes, Session, SharedData
    from admf_dask.space import Choice, FloatRange, IntRange, LogRange
    from admf_dask.symbols import ParallelDataProcessor
