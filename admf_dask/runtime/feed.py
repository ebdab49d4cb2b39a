"""`RunFeed`: an observer that tells the scheduler of a run, a few times a second, for the page there."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import Protocol

from distributed import Client, Scheduler

from admf_dask.events import Event, RunFinished
from admf_dask.progress.digest import Update
from admf_dask.runtime.farewells import PAUSE, Farewells

INTERVAL, FIRST_INTERVAL = 0.4, 1.0
"""Seconds between two updates at the least, and between the first two: nothing is drawn of what is younger than that."""
PLUGIN = "admf-dask-runs"
"""Name of the page's plugin on the scheduler, which keeps the runs."""
HANDLER = "admf_dask_run"
"""What the page's plugin listens to on the scheduler."""


class Digested(Protocol):
    """What makes updates."""

    def take(self, event: Event) -> None:
        """Learn from an event."""

    def update(self) -> Update | None:
        """What is new; None before there is anything."""


class RunFeed:
    """Gathers events and sends what is new. The driver's thread only takes note; the rest is the client's event loop's.

    Nothing is sent before the page is there, and nothing to a scheduler without it; one that is gone ends the feed.
    """

    def __init__(self, client: Client, digest: Digested, ready: Future[bool], farewells: Farewells) -> None:
        """`ready` tells whether the scheduler has the page; the last update is among the `farewells`."""
        self._client, self._ready, self._farewells = client, ready, farewells
        self._digest = digest
        self._lock = threading.Lock()
        self._due = False
        self._not_before = 0.0
        self._interval = FIRST_INTERVAL
        self._ended = False

    def on_event(self, event: Event) -> None:
        """Costs microseconds."""
        if self._ended:
            # Nobody takes what would be gathered.
            return
        with self._lock:
            self._digest.take(event)
        self.wake(last=isinstance(event, RunFinished))

    def wake(self, *, last: bool) -> None:
        """There is something new."""
        with self._lock:
            waiting, self._due = self._due, True
        if self._ended or self._client.status != "running" or (waiting and not last):
            return
        loop = self._client.loop.asyncio_loop
        if last:
            self._farewells.add(self._send_in(PAUSE), loop)
        else:
            pause = max(PAUSE, self._not_before - time.monotonic())
            asyncio.run_coroutine_threadsafe(self._send_in(pause), loop)

    async def _send_in(self, pause: float) -> None:
        await asyncio.sleep(pause)
        await self._send()

    async def _send(self) -> None:
        if not await asyncio.wrap_future(self._ready):
            self._ended = True
        with self._lock:
            if not self._due:
                return
            self._due = False
            update = self._digest.update()
        if update is None or self._ended:
            return
        self._not_before, self._interval = time.monotonic() + self._interval, INTERVAL
        near = getattr(self._client.cluster, "scheduler", None)
        if isinstance(near, Scheduler) and near.loop is self._client.loop:
            # A scheduler on this very event loop is told without a wire.
            near.handlers[HANDLER](update=update, client=self._client.id)
            return
        try:
            await getattr(self._client.scheduler, HANDLER)(update=update.pack(), client=self._client.id)
        except (OSError, AttributeError, ValueError):
            # The scheduler is gone; who drives the run hears of it in his own way.
            self._ended = True
