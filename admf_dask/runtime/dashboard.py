"""The dashboard with our page, added to a scheduler that already runs: no start should wait half a second for Bokeh."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from concurrent.futures import Future
from typing import Any

import dask
from distributed.utils import format_dashboard_link

from admf_dask.runtime.links import PAGE, page_link, tunnel

DOOR = "admf_dask.dashboard"
"""Opened by name, as `dask scheduler --preload` does: the page stands above the runtime."""
_STOCK_LINK = "{scheme}://{host}:{port}/status"
_SERVER = "distributed.scheduler.dashboard.bokeh-application"
_STOCK_PACE = {"keep_alive_milliseconds": 500, "check_unused_sessions_milliseconds": 500}
_PACE = {"keep_alive_milliseconds": 5_000, "check_unused_sessions_milliseconds": 2_000}
"""How often the server of the pages greets its readers, and looks for those who left; also where nobody reads."""
logger = logging.getLogger("admf_dask")


class Page:
    """Dask's pages and ours, added to the scheduler of a local cluster from a thread of its own.

    The HTTP server and its port exist from the start, so the link is known at once; asking for it waits for the pages.
    """

    def __init__(self, cluster: Any) -> None:
        """Begin to load; returns at once."""
        self._cluster = cluster
        self._path = "status"
        self.ready: Future[bool] = Future()
        """Whether our page is there, once that is known."""
        self._thread = threading.Thread(target=self._load, name="admf-dask-page", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            import distributed.dashboard.scheduler

            door = importlib.import_module(DOOR)
            self._cluster.sync(self._attach, distributed.dashboard.scheduler.connect, door.dask_setup)
        except Exception:
            # The run does not need its page; what it was is for the log.
            logger.exception("the dashboard could not be loaded; the session goes on without it")
        finally:
            self.ready.set_result(self._path == PAGE)

    async def _attach(self, connect: Any, preload: Any) -> None:
        scheduler = self._cluster.scheduler
        if scheduler.status.name == "running":
            stock = dask.config.get(_SERVER)
            # What the user has set stays.
            ours = {name: _PACE[name] for name, pace in _STOCK_PACE.items() if stock.get(name) == pace}
            with dask.config.set({_SERVER: {**stock, **ours}}):
                connect(scheduler.http_application, scheduler.http_server, scheduler, prefix="/")
                await preload(scheduler)
            self._path = PAGE

    @property
    def link(self) -> str:
        """The address of our page; waits for the pages to be there (half a second after the start)."""
        self._thread.join()
        template = dask.config.get("distributed.dashboard.link")
        if template != _STOCK_LINK:
            # Who set it up knows the way through his proxy.
            return str(format_dashboard_link(*self.address)).replace("/status", f"/{self._path}")
        return page_link(os.environ, *self.address, self._path)

    @property
    def tunnel(self) -> str | None:
        """What to type on one's own machine first, if this one was reached by ssh."""
        return tunnel(os.environ, *self.address)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the HTTP server."""
        server = self._cluster.scheduler.http_server
        return str(server.address), int(server.port)

    def close(self) -> None:
        """Wait for the loading to end, so that nothing is attached to a closed scheduler."""
        self._thread.join()


async def add_page(client: Any) -> bool:
    """Register the page with a scheduler that already runs. Where it lacks this package it stays as it is: False."""
    plugin = importlib.import_module(DOOR).RunsPlugin()
    try:
        await client.register_plugin(plugin, name=plugin.name)
    except Exception as error:  # noqa: BLE001 - whatever that scheduler lacks, runs go on without the page
        logger.info("the scheduler has no page of runs: %s: %s", type(error).__name__, error)
        return False
    return True
