"""Many symbols through a function: read on the workers, written by them, and never done twice."""

from __future__ import annotations

from admf_dask.symbols.processor import ParallelDataProcessor
from admf_dask.symbols.results import SymbolResults
from admf_dask.symbols.task import Written

__all__ = ["ParallelDataProcessor", "SymbolResults", "Written"]
