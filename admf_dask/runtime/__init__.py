"""The runtime: sessions, and the one loop that carries items to workers and outcomes back.

A name is loaded when it is first asked for: a worker process, which starts with `preload` and then meets `job`, needs half of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from admf_dask.runtime.calls import takes
    from admf_dask.runtime.driver import Run, Title
    from admf_dask.runtime.evaluate import Keep, MapEvaluator
    from admf_dask.runtime.mapping import FailedItemsWarning, Outcomes, map_evaluator
    from admf_dask.runtime.places import session_for, settings_of
    from admf_dask.runtime.score import BatchEvaluator, ScoreEvaluator
    from admf_dask.runtime.session import Session
    from admf_dask.runtime.shared import SharedData, value_of

_HOMES = {
    "BatchEvaluator": "score",
    "FailedItemsWarning": "mapping",
    "Keep": "evaluate",
    "MapEvaluator": "evaluate",
    "Outcomes": "mapping",
    "Run": "driver",
    "ScoreEvaluator": "score",
    "Session": "session",
    "SharedData": "shared",
    "Title": "driver",
    "map_evaluator": "mapping",
    "session_for": "places",
    "settings_of": "places",
    "takes": "calls",
    "value_of": "shared",
}

__all__ = [
    "BatchEvaluator",
    "FailedItemsWarning",
    "Keep",
    "MapEvaluator",
    "Outcomes",
    "Run",
    "ScoreEvaluator",
    "Session",
    "SharedData",
    "Title",
    "map_evaluator",
    "session_for",
    "settings_of",
    "takes",
    "value_of",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
