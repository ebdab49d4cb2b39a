"""What is still being wound down when a run has returned; a session waits for it before it closes."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

PAUSE = 0.01
"""Seconds that what can wait leaves the event loop alone when a run begins, as workers wait for it, and when it ends, as the
driver's own thread then needs the interpreter for the result.
"""


class Farewells:
    """Coroutines on the event loop of a client, remembered until they are done. Thread-safe."""

    def __init__(self) -> None:
        """None."""
        self._futures: set[Future[Any]] = set()

    def add(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        """Begin one; returns at once."""
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

    def wait(self, seconds: float) -> None:
        """For all that are under way."""
        concurrent.futures.wait(list(self._futures), seconds)
