"""The runtime: sessions, and the one loop that carries items to workers and outcomes back."""

from __future__ import annotations

from admf_dask.runtime.calls import takes
from admf_dask.runtime.driver import Run, Title
from admf_dask.runtime.evaluate import Keep, MapEvaluator
from admf_dask.runtime.mapping import FailedItemsWarning, Outcomes
from admf_dask.runtime.replay import Audit, Replay, audit, replay
from admf_dask.runtime.score import BatchEvaluator, ScoreEvaluator
from admf_dask.runtime.session import Session
from admf_dask.runtime.shared import SharedData, value_of

__all__ = [
    "Audit",
    "BatchEvaluator",
    "FailedItemsWarning",
    "Keep",
    "MapEvaluator",
    "Outcomes",
    "Replay",
    "Run",
    "ScoreEvaluator",
    "Session",
    "SharedData",
    "Title",
    "audit",
    "replay",
    "takes",
    "value_of",
]
