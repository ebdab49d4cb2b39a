"""What the runs of one session know of each other, so that none is blamed for what another does to a process they share.

- A process that was ended on purpose, for an item of one run that hung or was given up, is nobody else's death: the chunks of
  other runs that were there go again without blame.
- A suspect is put to the test alone. Within its run the driver sees to that; here it waits until no chunk of another run is
  under way where it could meet one, and holds those back meanwhile. Where a process has one thread a suspect is alone anyway.

Used on the event loop of the session's client only, so there is no lock in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Company:
    """Shared by the executors of a session."""

    crowded: bool
    """Whether items of two runs can be in one process at the same time."""
    ended: dict[int, str] = field(default_factory=dict)
    """Process id -> the run for which it was ended on purpose."""
    _inside: int = 0
    """Chunks under way, whatever became of the drivers that asked for them."""
    _closed: bool = False
    """Whether a suspect is, or waits to be, alone."""
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @asynccontextmanager
    async def place(self, *, alone: bool, given_up: Callable[[], bool]) -> AsyncIterator[None]:
        """A place to run a chunk: beside others, or with nothing beside it. Left early once `given_up()`, see `stir`."""
        if not self.crowded:
            yield
            return
        await self._until(lambda: not self._closed, given_up)
        if alone:
            self._closed = True
            try:
                await self._until(lambda: not self._inside, given_up)
                yield
            finally:
                self._closed = False
                self.stir()
            return
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
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
