"""Parameter spaces: lazy grids, samples of them, and lists of combinations."""

from __future__ import annotations

from admf_dask.space.axes import Choice, FloatRange, IntRange, LogRange
from admf_dask.space.combinations import Combinations
from admf_dask.space.conditional import Conditional
from admf_dask.space.grid import ParameterGrid
from admf_dask.space.items import ABSENT, Combinable
from admf_dask.space.sampling import ParameterSample

__all__ = [
    "ABSENT",
    "Choice",
    "Combinable",
    "Combinations",
    "Conditional",
    "FloatRange",
    "IntRange",
    "LogRange",
    "ParameterGrid",
    "ParameterSample",
]
