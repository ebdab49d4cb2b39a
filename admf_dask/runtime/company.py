"""What the runs of one session know of each other, so that none is blamed for what another does to a process they share.

- A process that was ended on purpose, for an item of one run that hung or was given up, is nobody else's death: the chunks of
  other runs that were there go again without blame.
- A suspect is put to the test alone. Within its run the driver sees to that; here it waits until no chunk of another run is
  under way where it could meet one, and holds those back meanwhile. Where a process has one thread a suspect is alone anyway.
  Nobody waits for long, as an item may take hours: who then dies beside others is not convicted, and tried again.

Used on the event loop of the session's client only, so there is no lock in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PATIENCE = 60.0
"""Seconds that a suspect waits for others to end, and holds them back, together."""


@dataclass(slots=True)
class Company:
    """Shared by the executors of a session."""

    crowded: bool
    """Whether items of two runs can be in one process at the same time."""
    ended: dict[int, str] = field(default_factory=dict)
    """Process id -> the run for which it was ended on purpose."""
    _inside: int = 0
    """Chunks under way, whatever became of the drivers that asked for them."""
    _closed: object = None
    """Who holds others back: a suspect that is, or waits to be, alone."""
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @asynccontextmanager
    async def place(self, *, alone: bool, given_up: Callable[[], bool]) -> AsyncIterator[None]:
        """A place to run a chunk: beside others, or with nothing beside it. Left early once `given_up()`, see `stir`."""
        if self.crowded:
            await self._until(lambda: self._closed is None, given_up)
        if not self.crowded or given_up():
            yield
            return
        me = object()
        if alone:
            self._closed = me
            impatience = asyncio.get_running_loop().call_later(PATIENCE, self._open, me)
            await self._until(lambda: not self._inside or self._closed is not me, given_up)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if alone:
                impatience.cancel()
                self._open(me)
            self.stir()

    def _open(self, holder: object) -> None:
        if self._closed is holder:
            self._closed = None
            self.stir()

    def stir(self) -> None:
        """Something has changed: who waits looks again."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def ended_for_another(self, pid: int, run: str) -> bool:
        """Whether a process was ended on purpose, and not for this run."""
        return self.ended.get(pid, run) != run

    async def _until(self, open_to_me: Callable[[], bool], given_up: Callable[[], bool]) -> None:
        while not (open_to_me() or given_up()):
            change = asyncio.get_running_loop().create_future()
            self._waiting.append(change)
            await change
