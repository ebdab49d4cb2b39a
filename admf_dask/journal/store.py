"""The SQLite file: write-ahead log, one writer, one transaction for what finished together, durable before it is shown.

Tables: `call` (what the results depend on), `sitting` (one driver's work on a call, with the items as they were then),
`block` (what a chunk became: an Arrow table of rows, or pickled values), `failure` (one row each, readable with SQL alone).
"""

from __future__ import annotations

import pickle
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import JournalCorrupt, JournalError
from admf_dask.outcomes import Block, Curve, FailedItem, Failure
from admf_dask.space.part import Ranges

VERSION = 1
FILE = "journal.sqlite"
_CURVES, _NO_CURVES = b"curves", pickle.dumps(())
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS call (
    id INTEGER PRIMARY KEY, kind TEXT, name TEXT, parts TEXT, score TEXT, maximize INTEGER, created REAL);
CREATE TABLE IF NOT EXISTS sitting (
    id INTEGER PRIMARY KEY, call INTEGER REFERENCES call, run TEXT, total INTEGER, recalled INTEGER, items_key TEXT, items BLOB,
    began REAL, ended REAL, state TEXT, pid INTEGER, process_began REAL);
CREATE TABLE IF NOT EXISTS block (
    id INTEGER PRIMARY KEY, sitting INTEGER REFERENCES sitting, at REAL, ranges BLOB, evaluated INTEGER, rejected INTEGER,
    rejected_example INTEGER, failed INTEGER, busy REAL, worker TEXT, rows BLOB, payload BLOB);
CREATE TABLE IF NOT EXISTS failure (
    block INTEGER REFERENCES block, position INTEGER, kind TEXT, error_type TEXT, message TEXT, traceback TEXT, pickled BLOB,
    seconds REAL, attempts INTEGER);
CREATE INDEX IF NOT EXISTS failure_block ON failure (block);
PRAGMA user_version = {VERSION};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as it was written, with the ranges of positions that it settled."""

    block: Block
    ranges: NDArray[np.int64]
    """Shape (n, 2)."""
    at: float
    number: int


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Errors of SQLite as errors of the journal, naming the folder."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise JournalError(f"the journal in {folder} cannot be used: {error}") from error
    except (sqlite3.DataError, OverflowError) as error:
        raise JournalError(
            f"the journal in {folder} takes blocks of up to a gigabyte, and not this one ({error}); return less of each item, or "
            "write it to a file and return the path"
        ) from error
    except sqlite3.DatabaseError as error:
        raise JournalCorrupt(
            f"the journal in {folder} cannot be read ({error}); move the folder away, or restore {FILE} from a copy"
        ) from error


def connect(folder: Path, *, write: bool) -> sqlite3.Connection:
    """Open the file; a writer makes it where it is missing. A reader may open it while a run writes."""
    path = folder / FILE
    if write:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    else:
        if not path.exists():
            raise JournalError(f"there is no journal in {folder}; a run with journal={str(folder)!r} makes one")
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
    try:
        _prepare(connection, folder, write)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, folder: Path, write: bool) -> None:
    with translated(folder):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise JournalError(
                f"the journal in {folder} was written by a newer admf_dask (format {version}, this one reads {VERSION})"
            )
        if write:
            # Blocks are hundreds of kilobytes, the stock pages 4 KiB. Counts for a new file.
            connection.execute("PRAGMA page_size = 16384")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if version == 0:
                connection.executescript(_SCHEMA)
        elif version == 0:
            raise JournalError(f"the journal in {folder} is empty: the run that made it ended before it began")


def write_blocks(
    connection: sqlite3.Connection, sitting: int, blocks: Sequence[tuple[Block, NDArray[np.int64]]]
) -> None:
    """Blocks and the ranges they settle, in one durable transaction: all or none."""
    now = time.time()
    connection.execute("BEGIN IMMEDIATE")
    try:
        for block, ranges in blocks:
            cursor = connection.execute(
                "INSERT INTO block VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    sitting, now, ranges.astype("<i8").tobytes(), block.evaluated, block.rejected, block.rejected_example,
                    block.failed, block.busy, block.worker, pack_rows(block), block.payload,
                ),
            )  # fmt: skip
            connection.executemany(
                "INSERT INTO failure VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        cursor.lastrowid, item.index, item.failure.kind, item.failure.error_type, item.failure.message,
                        item.failure.traceback, item.failure.pickled, item.seconds, item.attempts,
                    )
                    for item in block.failures
                ],
            )  # fmt: skip
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@dataclass(frozen=True, slots=True)
class Sitting:
    """One driver's work on a call, as it is recorded; seconds since the epoch."""

    number: int
    call: int
    run: str
    total: int
    recalled: int
    items_key: str
    items: bytes
    began: float
    ended: float | None
    state: str
    pid: int
    process_began: float
    kind: str
    name: str
    score: str | None
    maximize: int


def last_sitting(connection: sqlite3.Connection, folder: Path) -> Sitting:
    """The last one that began. Raises JournalError where there is none."""
    row = connection.execute(
        "SELECT sitting.*, kind, name, score, maximize FROM sitting JOIN call ON call.id = call ORDER BY sitting.id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise JournalError(f"the journal in {folder} has no run in it yet")
    return Sitting(*row)


def forget_failures(connection: sqlite3.Connection, sitting: int) -> None:
    """Make the failed items of a sitting ones that were never evaluated."""
    connection.execute("BEGIN IMMEDIATE")
    for block, packed in connection.execute(
        "SELECT id, ranges FROM block WHERE sitting = ? AND failed > 0", (sitting,)
    ).fetchall():
        failed = connection.execute("SELECT position FROM failure WHERE block = ?", (block,)).fetchall()
        positions = np.array([row[0] for row in failed], np.int64)
        settled = Ranges.of(np.frombuffer(packed, "<i8").reshape(-1, 2).tolist())
        # What is in neither the complement nor the failures.
        end = int(settled.stops[-1])
        left = settled.missing(end).union(Ranges.of_positions(positions)).missing(end)
        connection.execute(
            "UPDATE block SET ranges = ?, evaluated = evaluated - ?, failed = failed - ? WHERE id = ?",
            (left.pairs().astype("<i8").tobytes(), len(positions), len(positions), block),
        )
        connection.execute("DELETE FROM failure WHERE block = ?", (block,))
    connection.execute("COMMIT")


def read_blocks(connection: sqlite3.Connection, sitting: int, *, after: int = 0) -> Iterator[StoredBlock]:
    """The blocks of a sitting, in the order they were written; those with a number above `after`."""
    failures: dict[int, list[FailedItem]] = {}
    for row in connection.execute(
        "SELECT failure.* FROM failure JOIN block ON block.id = failure.block WHERE sitting = ? AND block.id > ?",
        (sitting, after),
    ):
        failures.setdefault(row[0], []).append(FailedItem(row[1], row[7], Failure(*row[2:7]), row[8]))
    for row in connection.execute("SELECT * FROM block WHERE sitting = ? AND id > ? ORDER BY id", (sitting, after)):
        ranges = np.frombuffer(row[3], "<i8").astype(np.int64).reshape(-1, 2)
        yield StoredBlock(_unpack(row, tuple(failures.get(row[0], ()))), ranges, row[2], row[0])


def _unpack(row: tuple[object, ...], failures: tuple[FailedItem, ...]) -> Block:
    _, _, _, _, evaluated, rejected, rejected_example, failed, busy, worker, rows, payload = row
    indices, seconds, columns, attempts, curves = unpack_rows(rows)  # type: ignore[arg-type]
    return Block(
        start=0, stop=0, indices=indices, columns=columns if columns or payload is None else None, payload=payload,  # type: ignore[arg-type]
        seconds=seconds, failures=failures, evaluated=evaluated, rejected=rejected, busy=busy, worker=worker,  # type: ignore[arg-type]
        failed=failed, rejected_example=rejected_example, attempts=attempts, curves=curves,  # type: ignore[arg-type]
    )  # fmt: skip


def pack_rows(block: Block) -> memoryview:
    """Positions, seconds, attempts and scores as one Arrow IPC stream; scores are called `score:NAME`, curves are metadata."""
    import pyarrow as pa

    columns = {"position": block.indices, "seconds": block.seconds}
    if block.attempts:
        columns["attempts"] = attempts = np.ones(len(block.indices), np.int32)
        for index, count in block.attempts.items():
            attempts[block.indices == index] = count
    columns |= {f"score:{name}": column for name, column in (block.columns or {}).items()}
    batch = pa.RecordBatch.from_arrays([pa.array(column) for column in columns.values()], list(columns))
    if block.curves:
        batch = batch.replace_schema_metadata({_CURVES: pickle.dumps(block.curves, protocol=5)})
    # Into a buffer of its size: a growing one, and bytes of it, would be two more copies of megabytes.
    counted = pa.MockOutputStream()
    _write_stream(counted, batch)
    packed = pa.allocate_buffer(counted.size())
    with pa.FixedSizeBufferWriter(packed) as sink:
        _write_stream(sink, batch)
    return memoryview(packed)


def _write_stream(sink: Any, batch: Any) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def unpack_rows(
    packed: bytes,
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, NDArray[np.float64]], dict[int, int], tuple[Curve, ...]]:
    """Positions, seconds, scores by name, attempts where there was more than one, and curves."""
    import pyarrow as pa

    table = pa.ipc.open_stream(packed).read_all()
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    positions, attempts = columns["position"], columns.get("attempts", np.empty(0, np.int32))
    again = np.flatnonzero(attempts > 1)
    scores = {name.removeprefix("score:"): column for name, column in columns.items() if name.startswith("score:")}
    return (
        positions,
        columns["seconds"],
        scores,
        dict(zip(positions[again].tolist(), attempts[again].tolist(), strict=True)),
        pickle.loads((table.schema.metadata or {}).get(_CURVES, _NO_CURVES)),
    )
