"""The runtime: sessions, and the one loop that carries items to workers and outcomes back."""

from __future__ import annotations

from admf_dask.runtime.calls import takes
from admf_dask.runtime.driver import Run, Title
from admf_dask.runtime.evaluate import Keep, MapEvaluator
from admf_dask.runtime.mapping import FailedItemsWarning, Outcomes
from admf_dask.runtime.score import BatchEvaluator, ScoreEvaluator
from admf_dask.runtime.session import Session

__all__ = [
    "BatchEvaluator",
    "FailedItemsWarning",
    "Keep",
    "MapEvaluator",
    "Outcomes",
    "Run",
    "ScoreEvaluator",
    "Session",
    "Title",
    "takes",
]
