"""Steps for price frames, and readers of them: what is done to the data of a symbol before research begins.

Every step is a function `step(frame, **options) -> frame`: it returns a new frame and leaves the given one alone, keeps
`frame.attrs`, and finds the columns open, high, low, close and volume whatever their case. `compose` makes one function over
symbols of several, for `ParallelDataProcessor.process_symbols`.
"""

from __future__ import annotations

from admf_dask.steps.actions import adjust
from admf_dask.steps.bars import resample
from admf_dask.steps.calendars import align
from admf_dask.steps.cleaning import CleaningReport, clean, inspect
from admf_dask.steps.features import returns, rolling
from admf_dask.steps.files import find_symbols, read_symbols
from admf_dask.steps.pipeline import compose
from admf_dask.steps.readers import FrameReader

__all__ = [
    "CleaningReport",
    "FrameReader",
    "adjust",
    "align",
    "clean",
    "compose",
    "find_symbols",
    "inspect",
    "read_symbols",
    "resample",
    "returns",
    "rolling",
]
