"""`Follow`: a journal as the stream of events that its run had, once or while it grows."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from admf_dask.events import BlockFinished, BlockRecalled, Event, RunFinished, RunStarted
from admf_dask.journal import store
from admf_dask.journal.journal import Journal
from admf_dask.journal.status import state_now


class Follow:
    """The last run in a journal. `new` gives the events since the last look; reading does not disturb the run."""

    def __init__(self, journal: Journal) -> None:
        """Raises JournalError where there is no run yet."""
        self._journal = journal
        self._seen = -1
        self._ended = False
        with journal.reading() as connection:
            last = store.last_sitting(connection, journal.directory)
            self._sitting = last.number
            self.items: Sequence[Any] = pickle.loads(last.items)
            # Positions of an earlier sitting mean the same only where its items are the same.
            self._earlier = [
                number for (number,) in connection.execute(
                    "SELECT id FROM sitting WHERE call = ? AND id < ? AND items_key = ? ORDER BY id",
                    (last.call, last.number, last.items_key),
                )
            ]  # fmt: skip
        self._started = RunStarted(
            run=last.run, kind=last.kind, name=last.name, total=last.total, slots=1, score=last.score,
            maximize=bool(last.maximize), at=last.began, recalled=last.recalled,
        )  # fmt: skip
        self._last = self._started.at

    def new(self) -> Iterator[Event]:
        """Events since the last call; the first time from the start."""
        started = self._started
        if self._seen < 0:
            yield started
        with self._journal.reading() as connection:
            if self._seen < 0:
                for number in self._earlier:
                    for stored in store.read_blocks(connection, number):
                        yield BlockRecalled(started.run, stored.block, started.at)
            self._seen = max(0, self._seen)
            for stored in store.read_blocks(connection, self._sitting, after=self._seen):
                size = int((stored.ranges[:, 1] - stored.ranges[:, 0]).sum())
                yield BlockFinished(started.run, replace(stored.block, start=0, stop=size), stored.at)
                self._seen, self._last = stored.number, stored.at
            state, ended, pid, process_began = connection.execute(
                "SELECT state, ended, pid, process_began FROM sitting WHERE id = ?", (self._sitting,)
            ).fetchone()
        state = state_now(state, pid, process_began)
        if state != "running" and not self._ended:
            self._ended = True
            # A driver that was killed wrote down no end: its last block is what is known of it.
            yield RunFinished(started.run, state, ended or self._last)
