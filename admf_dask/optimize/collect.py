"""Blocks of scores, as they come in, into one table: everything, or the best n in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import ConfigError, ResourceError, SpaceError, TaskError
from admf_dask.outcomes import Block, FailedItem
from admf_dask.ranking import Floats, Table
from admf_dask.runtime import Keep
from admf_dask.text import format_bytes, format_count, whole

FAILURES_KEPT = 10_000
"""Failures recorded with their tracebacks by a run that keeps the best n; all are counted."""
FEW_BYTES = 32 * 2**20
"""Rows of so many bytes are kept without a look at the machine, which takes 2 ms."""


@dataclass(slots=True)
class Places:
    """A row for each position, put where it belongs as it comes: nothing is left to be put together at the end.

    Rows that were put together were there twice meanwhile. Of rows that never come no memory is taken.
    """

    count: int
    _filled: NDArray[np.bool_] = field(init=False)
    _seconds: NDArray[np.float32] = field(init=False)
    _columns: dict[str, Floats] = field(init=False, default_factory=dict)
    _rows: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Reserve, without touching it."""
        self._filled, self._seconds = np.zeros(self.count, np.bool_), np.empty(self.count, np.float32)

    def put(self, table: Table) -> None:
        """Rows whose positions are not taken yet."""
        at: slice | NDArray[np.int64] = table.indices
        first, last = int(table.indices[0]), int(table.indices[-1])
        if last - first == len(table) - 1:
            at = slice(first, last + 1)
        for name in table.columns:
            if name not in self._columns:
                self._columns[name] = np.empty(self.count)
                self._columns[name][self._filled] = np.nan
        for name, column in self._columns.items():
            column[at] = table.columns.get(name, np.nan)
        self._seconds[at], self._filled[at] = table.seconds, True
        self._rows += len(table)

    def table(self) -> Table:
        """All rows there are."""
        if self._rows == self.count:
            return Table(np.arange(self.count), dict(self._columns), self._seconds)
        at = np.flatnonzero(self._filled)
        return Table(at, {name: column[at] for name, column in self._columns.items()}, self._seconds[at])


@dataclass(slots=True)
class Collector:
    """Takes blocks in any order; `table()` has them in grid order."""

    keep: Keep
    rows: int | None = None
    """How many there will be at most, at positions from 0; None where that is not known, or few of them may come."""
    score: str | None = None
    evaluated: int = 0
    rejected: int = 0
    failed: int = 0
    rejected_example: int | None = None
    failures: list[FailedItem] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)
    _tables: list[Table] = field(default_factory=list)
    _rows: int = 0
    _places: Places | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Nothing is taken of memory yet."""
        if self.keep.count is None and self.rows is not None:
            self._places = Places(self.rows)

    def add(self, block: Block) -> None:
        """One more block. With `keep=n` memory stays below a few n rows."""
        self.evaluated += block.evaluated
        self.rejected += block.rejected
        self.failed += block.failed
        if block.rejected_example is not None:
            # The first in grid order, whatever the order of the chunks.
            first = self.rejected_example
            self.rejected_example = block.rejected_example if first is None else min(first, block.rejected_example)
        room = len(block.failures) if self.keep.count is None else max(0, FAILURES_KEPT - len(self.failures))
        self.failures.extend(block.failures[:room])
        if block.worker:
            self.workers[block.worker] = self.workers.get(block.worker, 0) + block.evaluated
        if not len(block.indices) or block.columns is None:
            return
        self._check_score(block.columns)
        table = Table(block.indices, block.columns, block.seconds)
        if self._places is not None:
            self._places.put(table)
            return
        self._tables.append(table)
        self._rows += len(block.indices)
        if self.keep.count is not None and self._rows > 4 * self.keep.count + 100_000:
            self._tables = [self._best(Table.join(self._tables))]
            self._rows = len(self._tables[0])

    def _check_score(self, columns: dict[str, Floats]) -> None:
        name = self.keep.ranking_column(columns)
        if self.score is None:
            self.score = name
        elif name != self.score:
            raise TaskError(
                f"the objective must name its numbers alike for every combination, but one chunk returned {self.score!r} "
                f"and another {name!r}; return the same keys, or say score=..."
            )

    def _best(self, table: Table) -> Table:
        if self.keep.count is None or self.score is None:
            return table
        return table.best(self.score, self.keep.count, maximize=self.keep.maximize)

    def table(self) -> Table:
        """All rows kept, by grid index."""
        if self._places is not None:
            return self._places.table()
        tables = sorted(self._tables, key=lambda table: int(table.indices[0]))
        joined = self._best(Table.join(tables))
        if all(table.indices[-1] < following.indices[0] for table, following in pairwise(tables)):
            return joined
        # Of a run that was resumed blocks may lie between the rows of others.
        return joined.take(np.argsort(joined.indices, kind="stable"))


def read_keep(keep: Any) -> int | None:
    """`keep="all"` is None, `keep=n` is n. Raises ConfigError for anything else."""
    keep = whole(keep)
    if keep == "all":
        return None
    if isinstance(keep, int) and not isinstance(keep, bool) and keep >= 1:
        return keep
    raise ConfigError(f'keep must be "all" or a whole number of at least 1, but got {keep!r}')


def check_room(total: int, keep: int | None, names: int, free: Callable[[], int]) -> None:
    """Refuse to keep more rows than memory holds. Raises ResourceError with both numbers and the line to type.

    `free` tells how many bytes are; it is asked only where there are many rows.

    Also refuses, with a SpaceError, a space whose positions do not fit 64 bits.
    """
    if total > 2**62:
        raise SpaceError(
            f"a run can number {format_count(2**62)} combinations, but the space has {format_count(total)}; "
            "write optimize(space.sample(1_000_000, seed=1), ...)"
        )
    needed = total * (24 + 8 * names)
    if keep is not None or needed < FEW_BYTES:
        return
    available = free()
    if needed > available // 2:
        raise ResourceError(
            f"keeping all {format_count(total)} results takes about {format_bytes(needed)}, more than half of the "
            f"{format_bytes(available)} that are free; write optimize(..., keep=1000) to keep the best 1,000 in constant memory"
        )
