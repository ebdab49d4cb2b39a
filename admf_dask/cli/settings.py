"""The options that all commands share, as a `ParallelConfig`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from admf_dask.config import ParallelConfig


def config_from(parsed: argparse.Namespace, base: ParallelConfig) -> ParallelConfig:
    """`base` with what was given on the command line. Raises ConfigError for a value outside its rule."""
    given: dict[str, Any] = {
        "mode": parsed.mode,
        "max_workers": parsed.workers,
        "threads_per_process": parsed.threads_per_process,
        "scheduler": parsed.scheduler,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if parsed.dashboard is not None:
        given["dashboard"] = None if parsed.dashboard == "none" else parsed.dashboard
    return replace(base, **given)
