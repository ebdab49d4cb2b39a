"""The dashboard, attached to a scheduler that already runs: loading Bokeh takes half a second that no start should wait for."""

from __future__ import annotations

import logging
import threading
from typing import Any

from distributed.utils import format_dashboard_link

logger = logging.getLogger("admf_dask")


class Page:
    """Dask's pages, added to the scheduler of a local cluster from a thread of its own.

    The HTTP server and its port exist from the start, so the link is known at once; asking for it waits for the pages.
    """

    def __init__(self, cluster: Any) -> None:
        """Begin to load; returns at once."""
        self._cluster = cluster
        self._thread = threading.Thread(target=self._load, name="admf-dask-page", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            import distributed.dashboard.scheduler

            self._cluster.sync(self._attach, distributed.dashboard.scheduler.connect)
        except Exception:
            # The run does not need its page; what it was is for the log.
            logger.exception("the dashboard could not be loaded; the session goes on without it")

    async def _attach(self, connect: Any) -> None:
        scheduler = self._cluster.scheduler
        if scheduler.status.name == "running":
            connect(scheduler.http_application, scheduler.http_server, scheduler, prefix="/")

    @property
    def link(self) -> str:
        """The address of the status page; waits for the pages to be there (half a second after the start)."""
        self._thread.join()
        scheduler = self._cluster.scheduler
        return str(format_dashboard_link(scheduler.http_server.address, scheduler.http_server.port))

    def close(self) -> None:
        """Wait for the loading to end, so that nothing is attached to a closed scheduler."""
        self._thread.join()
