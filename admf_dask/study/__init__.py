"""Studies: what to optimise, from a file or built in."""

from __future__ import annotations

from admf_dask.study.files import admf_backtests, load_study
from admf_dask.study.model import Study, builtin_study

__all__ = ["Study", "admf_backtests", "builtin_study", "load_study"]
