"""`admf-dask resources`: the machine as seen, and what each mode would start on it."""

from __future__ import annotations

import argparse

from admf_dask.cli.output import say
from admf_dask.cli.settings import config_from
from admf_dask.config import MODES, ParallelConfig
from admf_dask.errors import AdmfError
from admf_dask.resources import ResourceManager
from admf_dask.text import format_bytes, plural


def run(parsed: argparse.Namespace) -> int:
    """Print it."""
    config = config_from(parsed, ParallelConfig())
    manager = ResourceManager(config.max_memory_percent, config.max_cpu_percent)
    machine = manager.machine
    say(
        f"machine   {plural(machine.cpu_count, 'CPU')}, {machine.cpu_percent:.0f} % busy; "
        f"memory {format_bytes(machine.memory_total)}, {format_bytes(machine.memory_available)} available"
    )
    say(f"rule      at most {config.max_memory_percent:g} % of memory and {config.max_cpu_percent:g} % of CPU")
    for mode in MODES:
        try:
            layout = manager.plan(mode, config.max_workers, config.threads_per_process if mode == "hybrid" else 0)
        except AdmfError as error:
            say(f"{mode:<9} {error}")
        else:
            note = f", {format_bytes(layout.memory_limit)} left for it (not enforced)" if mode == "thread" else ""
            say(f"{mode:<9} {layout}{note}")
    return 0
