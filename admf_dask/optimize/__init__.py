"""Optimisation: a parameter space, an objective, and what came out."""

from __future__ import annotations

from admf_dask.optimize.optimizer import ParallelOptimizer
from admf_dask.optimize.result import OptimizationResult
from admf_dask.optimize.space import ParameterSpace

__all__ = ["OptimizationResult", "ParallelOptimizer", "ParameterSpace"]
