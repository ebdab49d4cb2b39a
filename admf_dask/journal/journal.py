"""`Journal`: a folder that remembers what was evaluated, so that a run goes on where it ended, however it ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from admf_dask import ranking
from admf_dask.errors import JournalError, JournalMismatch
from admf_dask.journal import store
from admf_dask.journal.call import Call
from admf_dask.journal.lock import Lock
from admf_dask.journal.match import LARGEST, Matcher, recalled_as_it_was
from admf_dask.journal.status import RunStatus, state_now, this_process
from admf_dask.outcomes import Block
from admf_dask.space.part import Ranges
from admf_dask.text import format_count, join_words

if TYPE_CHECKING:
    import pandas as pd

_CHOICES = ("refuse", "anew", "keep")


class Journal:
    """The durable record of runs in a folder, for `journal=`.

    Each finished chunk is on disk (SQLite, write-ahead log, synchronous) before it is shown. The same call with the same
    folder goes on where the last one ended, also after kill -9; a call with other items, in any order, evaluates those that
    are new. One run at a time writes; any number of readers may look on.

    Parameters
    ----------
    directory
        Made where it is missing. Not on a network file system: the write-ahead log needs memory that readers share.
    changed
        What to do when the function, its data, the seed or a setting that decides results is another than recorded:
        `"refuse"` raises JournalMismatch, which says what changed; `"anew"` drops the old records; `"keep"` keeps both.
    retry_failed
        Evaluate items again that are recorded as failed.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, changed: str = "refuse", retry_failed: bool = False
    ) -> None:
        """Nothing is opened before a run, or a question."""
        if changed not in _CHOICES:
            raise JournalError(f"changed must be {join_words(_CHOICES, 'or')}, but is {changed!r}")
        self.directory = Path(directory)
        self.changed, self.retry_failed = changed, retry_failed

    def __repr__(self) -> str:
        """The folder."""
        return f"Journal({str(self.directory)!r})"

    # -- writing ---------------------------------------------------------------------------------------------------

    def begin(self, call: Call, run: str) -> Record:
        """Open for writing. Raises JournalMismatch, or JournalError when another run writes or the folder cannot be used."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.directory)
        except OSError as error:
            raise JournalError(
                f"the journal's folder {self.directory} cannot be used: {error.strerror or error}; give another folder"
            ) from error
        try:
            connection = store.connect(self.directory, write=True)
            try:
                with store.translated(self.directory):
                    return Record(self, call, run, connection, lock)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            lock.release()
            raise

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each item with a value: what it was, its scores (or `value`), seconds, attempts. Also while a run goes on.

        Of the call that was written to last. Values of a map are unpickled, which runs code: read journals that you trust.
        """
        from admf_dask.journal.tables import rows_frame

        return self._table(rows_frame, lambda block: len(block.indices) > 0)

    @property
    def failures(self) -> pd.DataFrame:
        """One row for each failed item: what it was, kind, error_type, message, traceback, seconds, attempts."""
        from admf_dask.journal.tables import failures_frame

        return self._table(failures_frame, lambda block: bool(block.failures))

    def _table(
        self, made_of: Callable[[Block, Sequence[Any]], pd.DataFrame], wanted: Callable[[Block], bool]
    ) -> pd.DataFrame:
        import pandas as pd

        pieces: list[pd.DataFrame] = []
        with self.reading() as connection:
            for sitting, packed in self._sittings(connection):
                items = pickle.loads(packed)
                blocks = (stored.block for stored in store.read_blocks(connection, sitting))
                pieces += [made_of(block, items) for block in blocks if wanted(block)]
        return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame()

    def status(self) -> RunStatus:
        """The last run that wrote here. Costs a look at each recorded score."""
        with self.reading() as connection:
            run = store.last_sitting(connection, self.directory)
            done = evaluated = rejected = failed = 0
            last = run.began
            for stored in store.read_blocks(connection, run.number):
                done += int((stored.ranges[:, 1] - stored.ranges[:, 0]).sum())
                evaluated += stored.block.evaluated
                last = stored.at
            # Sittings over the same items share them out, so what failed and was turned away adds up.
            for sitting in self._same_items(connection, run.number):
                for stored in store.read_blocks(connection, sitting):
                    rejected += stored.block.rejected
                    failed += stored.block.failed
            best_score, best_item, score = self._best(connection, run.call, run.score, bool(run.maximize))
        return RunStatus(
            run.kind, run.name, state_now(run.state, run.pid, run.process_began), run.total, run.recalled, done, evaluated,
            rejected, failed, run.began, run.ended or last, run.pid, score, best_score, best_item,
        )  # fmt: skip

    @staticmethod
    def _same_items(connection: sqlite3.Connection, number: int) -> list[int]:
        """The sittings of the same call over the same items, up to this one."""
        found = connection.execute(
            "SELECT other.id FROM sitting AS this JOIN sitting AS other ON other.call = this.call "
            "AND other.items_key = this.items_key WHERE this.id = ? AND other.id <= this.id",
            (number,),
        )
        return [row[0] for row in found]

    def _best(
        self, connection: sqlite3.Connection, call: int, score: str | None, maximize: bool
    ) -> tuple[float | None, object, str | None]:
        best: float | None = None
        item: object = None
        for sitting, items in self._sittings(connection, call):
            for stored in store.read_blocks(connection, sitting):
                columns = stored.block.columns or {}
                name = score or (next(iter(columns)) if len(columns) == 1 else None)
                column = columns.get(name) if name else None
                if column is None or not len(column) or np.isnan(column).all():
                    continue
                at = int(np.nanargmax(column) if maximize else np.nanargmin(column))
                if best is None or ranking.better(float(column[at]), best, maximize=maximize):
                    best, score = float(column[at]), name
                    item = pickle.loads(items)[int(stored.block.indices[at])]
        return best, item, score

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A reader's connection, with SQLite's errors translated. Raises JournalError where there is no journal."""
        connection = store.connect(self.directory, write=False)
        with contextlib.closing(connection), store.translated(self.directory):
            yield connection

    @staticmethod
    def _sittings(connection: sqlite3.Connection, call: int | None = None) -> list[tuple[int, bytes]]:
        """Sittings of a call, the last one by default, with their items."""
        if call is None:
            found = connection.execute("SELECT call FROM sitting ORDER BY id DESC LIMIT 1").fetchone()
            call = found[0] if found else -1
        return connection.execute("SELECT id, items FROM sitting WHERE call = ? ORDER BY id", (call,)).fetchall()


class Record:
    """An open journal: what it recalls for a call, and where its blocks go. Used by the thread that drives the run."""

    def __init__(self, journal: Journal, call: Call, run: str, connection: sqlite3.Connection, lock: Lock) -> None:
        """Find the call among those recorded, and what is left of it to do. Use `Journal.begin`."""
        self._journal, self._connection, self._lock = journal, connection, lock
        number = self._call_number(call)
        self.recalled, settled = self._recall(call, number)
        self.left = settled.missing(call.total)
        pid, process_began = this_process()
        self._sitting = connection.execute(
            "INSERT INTO sitting VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, NULL, 'running', ?, ?)",
            (
                number, run, call.total, call.total - self.left.size, call.items_key, call.packed_items(), time.time(),
                pid, process_began,
            ),
        ).lastrowid  # fmt: skip

    def write(self, blocks: Sequence[tuple[Block, Ranges]]) -> None:
        """Blocks, with the positions that each settles, durable when this returns. About 3 to 6 ms, however many blocks."""
        with store.translated(self._journal.directory):
            assert self._sitting is not None
            store.write_blocks(self._connection, self._sitting, [(block, ranges.pairs()) for block, ranges in blocks])

    def close(self, state: str) -> None:
        """Say how the run ended, and let others write. Where the disk is full, how it ended stays unsaid."""
        try:
            self._connection.execute(
                "UPDATE sitting SET state = ?, ended = ? WHERE id = ?", (state, time.time(), self._sitting)
            )
        except sqlite3.Error as error:
            raise JournalError(f"the journal in {self._journal.directory} could not be closed: {error}") from error
        finally:
            self._connection.close()
            self._lock.release()

    def _call_number(self, call: Call) -> int:
        rows = self._connection.execute("SELECT id, kind, parts FROM call ORDER BY id DESC").fetchall()
        for number, kind, parts in rows:
            if kind == call.kind and not call.differs_from(parts):
                return int(number)
        if rows and self._journal.changed != "keep":
            self._refuse_or_drop(call, rows[0])
        row = (call.kind, call.name, call.parts_text, call.score, call.maximize, time.time())
        number = self._connection.execute("INSERT INTO call VALUES (NULL, ?, ?, ?, ?, ?, ?)", row).lastrowid
        assert number is not None
        return int(number)

    def _refuse_or_drop(self, call: Call, latest: tuple[int, str, str]) -> None:
        _, kind, parts = latest
        if self._journal.changed == "anew":
            for table in ("failure", "block", "sitting", "call"):
                self._connection.execute(f"DELETE FROM {table}")
            return
        folder = str(self._journal.directory)
        what = (
            call.differs_from(parts)
            if kind == call.kind
            else [f"it was a run of kind {kind!r}, and this is {call.kind!r}"]
        )
        shown = "; ".join(what[:6]) + (f"; and {len(what) - 6} more" if len(what) > 6 else "")
        raise JournalMismatch(
            f"what the journal in {folder} holds was computed by another call, and would be stale. Changed since: {shown}. "
            f"Write journal=Journal({folder!r}, changed='anew') to drop the old records, changed='keep' to keep both, or give "
            "another folder"
        )

    def _recall(self, call: Call, number: int) -> tuple[list[Block], Ranges]:
        blocks: list[Block] = []
        settled = Ranges.of(())
        sittings = self._connection.execute(
            "SELECT id, items_key FROM sitting WHERE call = ? ORDER BY id", (number,)
        ).fetchall()
        for sitting, key in sittings:
            if self._journal.retry_failed:
                store.forget_failures(self._connection, sitting)
            if key == call.items_key:
                found, done = recalled_as_it_was(store.read_blocks(self._connection, sitting))
                blocks, settled = blocks + found, settled.union(done)
        others = [sitting for sitting, key in sittings if key != call.items_key]
        if others and settled.size < call.total:
            more, settled = self._recall_others(call, others, settled)
            blocks += more
        return blocks, settled

    def _recall_others(self, call: Call, sittings: list[int], settled: Ranges) -> tuple[list[Block], Ranges]:
        if call.total > LARGEST:
            raise JournalMismatch(
                f"the journal in {self._journal.directory} was written over other items, and {format_count(call.total)} items "
                f"are too many to compare one by one (the most is {format_count(LARGEST)}); give this space a folder of its own"
            )
        matcher = Matcher(call)
        blocks: list[Block] = []
        for sitting in sittings:
            (packed,) = self._connection.execute("SELECT items FROM sitting WHERE id = ?", (sitting,)).fetchone()
            stored = store.read_blocks(self._connection, sitting)
            found, settled = matcher.recall(stored, pickle.loads(packed), settled)
            blocks += found
        return blocks, settled


def as_journal(journal: Journal | str | os.PathLike[str] | None) -> Journal | None:
    """What `journal=` means: None, a folder, or a `Journal`. Raises TypeError for anything else."""
    if journal is None or isinstance(journal, Journal):
        return journal
    if isinstance(journal, (str, os.PathLike)):
        return Journal(journal)
    raise TypeError(f"journal must be a folder or a Journal, but is {journal!r:.80}")
