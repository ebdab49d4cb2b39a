"""`Follow`: a journal as the stream of events that its run had, once or while it grows."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from admf_dask.errors import JournalError
from admf_dask.events import BlockFinished, BlockRecalled, Event, RunFinished, RunStarted
from admf_dask.journal import store
from admf_dask.journal.journal import Journal
from admf_dask.journal.status import state_now

_LAST = (
    "SELECT sitting.id, call, total, recalled, items_key, began, ended, state, pid, process_began, kind, name, score, "
    "maximize, run FROM sitting JOIN call ON call.id = call ORDER BY sitting.id DESC LIMIT 1"
)


class Follow:
    """The last run in a journal. `new` gives the events since the last look; reading does not disturb the run."""

    def __init__(self, journal: Journal) -> None:
        """Raises JournalError where there is no run yet."""
        self._journal = journal
        self._seen = -1
        self._ended = False
        with journal._reading() as connection:
            row = connection.execute(_LAST).fetchone()
            if row is None:
                raise JournalError(f"the journal in {journal.directory} has no run in it yet")
            self._sitting, call = row[:2]
            packed = connection.execute("SELECT items FROM sitting WHERE id = ?", (self._sitting,)).fetchone()[0]
            self.items: Sequence[Any] = pickle.loads(packed)
            # Positions of an earlier sitting mean the same only where its items are the same.
            self._earlier = [
                number for (number,) in connection.execute(
                    "SELECT id FROM sitting WHERE call = ? AND id < ? AND items_key = ? ORDER BY id",
                    (call, self._sitting, row[4]),
                )
            ]  # fmt: skip
        self._started = RunStarted(
            run=row[14], kind=row[10], name=row[11], total=row[2], slots=1, score=row[12], maximize=bool(row[13]),
            at=row[5], recalled=row[3],
        )  # fmt: skip
        self._last = self._started.at

    def new(self) -> Iterator[Event]:
        """Events since the last call; the first time from the start."""
        started = self._started
        if self._seen < 0:
            yield started
        with self._journal._reading() as connection:
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
