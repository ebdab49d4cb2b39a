"""The runtime: sessions, and the one loop that carries items to workers and outcomes back.

A name is loaded when it is first asked for: a worker process, which starts with `preload` and then meets `job`, needs half of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # With `as`: without, a type checker takes a name for one that is not to be imported from here.
    from admf_dask.runtime.calls import takes as takes
    from admf_dask.runtime.driver import Run as Run
    from admf_dask.runtime.driver import Title as Title
    from admf_dask.runtime.evaluate import Keep as Keep
    from admf_dask.runtime.evaluate import MapEvaluator as MapEvaluator
    from admf_dask.runtime.mapping import FailedItemsWarning as FailedItemsWarning
    from admf_dask.runtime.mapping import Outcomes as Outcomes
    from admf_dask.runtime.mapping import map_evaluator as map_evaluator
    from admf_dask.runtime.places import session_for as session_for
    from admf_dask.runtime.places import settings_of as settings_of
    from admf_dask.runtime.score import BatchEvaluator as BatchEvaluator
    from admf_dask.runtime.score import ScoreEvaluator as ScoreEvaluator
    from admf_dask.runtime.session import Session as Session
    from admf_dask.runtime.shared import SharedData as SharedData
    from admf_dask.runtime.shared import value_of as value_of

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

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
