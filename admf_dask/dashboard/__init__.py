"""The page of runs inside the Dask dashboard.

Three ways in: a `Session` opens it with its own cluster; on a scheduler that already runs, a session registers it through the
client; and a scheduler of your own has it from the start with `dask scheduler --preload admf_dask.dashboard`.
"""

from __future__ import annotations

from typing import Any

from admf_dask.dashboard.plugin import RunsPlugin

__all__ = ["RunsPlugin", "dask_setup"]


async def dask_setup(scheduler: Any) -> None:
    """Dask's preload: add the page to a scheduler, once."""
    if RunsPlugin.name not in scheduler.plugins:
        plugin = RunsPlugin()
        scheduler.add_plugin(plugin, name=RunsPlugin.name)
        await plugin.start(scheduler)
