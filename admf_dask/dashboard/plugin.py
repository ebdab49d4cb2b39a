"""`RunsPlugin`: the scheduler's side. Takes updates, keeps the runs, and puts the page among Dask's own.

The one module that leans on what is not public in Dask: `http_application`, the memoised `template_variables`, and the handler of
`/individual-plots.json`. Their shape has held since 2020; where it does not, the scheduler goes on without the page.
"""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from typing import Any

from distributed import SchedulerPlugin

from admf_dask.page.view import RunView
from admf_dask.progress.digest import Update
from admf_dask.runtime.feed import HANDLER, PLUGIN

MOST_RUNS, WHOLE_RUNS = 30, 4
"""Finished runs that are kept, the latest; and how many of them with all rows, 16 MB for a million."""
logger = logging.getLogger("admf_dask")


class RunsPlugin(SchedulerPlugin):  # type: ignore[misc]
    """Keeps what the page shows. Everything happens on the scheduler's event loop."""

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        """No runs."""
        self.runs: OrderedDict[str, RunView] = OrderedDict()
        self.version = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """A plugin sent to a scheduler arrives empty."""
        return RunsPlugin, ()

    async def start(self, scheduler: Any) -> None:
        """Listen for updates; add the page, unless the scheduler has no dashboard."""
        scheduler.handlers[HANDLER] = self.receive
        application = getattr(scheduler, "http_application", None)
        if application is None or not _serves_pages(scheduler):
            return
        try:
            from admf_dask.dashboard.attach import attach

            attach(scheduler)
        except Exception:
            # Runs go on without the page; why is for the log.
            logger.exception("the page of runs could not be added to the dashboard")

    def receive(self, update: bytes | Update, client: str = "", **_: Any) -> None:
        """An update of a run; packed, unless it comes from this process."""
        told: Update = pickle.loads(update) if isinstance(update, bytes) else update
        self.version += 1
        view = self.runs.get(told.run)
        if view is None:
            self.runs[told.run] = RunView.of(told, client)
            self._forget_old()
        else:
            view.take(told)

    def remove_client(self, scheduler: Any, client: str) -> None:
        """A driver is gone; what it ran is not going on."""
        for view in self.runs.values():
            if view.client == client:
                view.lost = True
                self.version += 1

    def _forget_old(self) -> None:
        ended = [run for run, view in self.runs.items() if view.state != "running"]
        for run in ended[: max(0, len(self.runs) - MOST_RUNS)]:
            del self.runs[run]
        for run in ended[:-WHOLE_RUNS]:
            if run in self.runs:
                self.runs[run].shrink()


def _serves_pages(scheduler: Any) -> bool:
    """Whether Dask's own pages are there."""
    return any(
        type(app).__name__ == "DaskBokehTornado" for app in getattr(scheduler.http_application, "applications", ())
    )
