"""Progress of a run, from its events."""

from __future__ import annotations

from admf_dask.progress.parallel import ParallelProgress, ProgressStatistics
from admf_dask.progress.render import LogProgress, NotebookProgress, TerminalProgress, observers_for
from admf_dask.progress.state import ProgressState

__all__ = [
    "LogProgress",
    "NotebookProgress",
    "ParallelProgress",
    "ProgressState",
    "ProgressStatistics",
    "TerminalProgress",
    "observers_for",
]
