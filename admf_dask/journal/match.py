"""What a journal knows of the items of a new call: the same items, some of them, in another order, among others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.journal.call import Call, keys_at
from admf_dask.journal.store import StoredBlock
from admf_dask.outcomes import Block
from admf_dask.space.items import Combinable
from admf_dask.space.part import PartOfSpace, Ranges

LARGEST = 20_000_000
"""Items of a changed space that are compared one by one with what was recorded."""


def recalled_as_it_was(stored: Iterable[StoredBlock]) -> tuple[list[Block], Ranges]:
    """The blocks of the same items, and the positions they settle."""
    found = list(stored)
    pieces = [np.empty((0, 2), np.int64), *(one.ranges for one in found)]
    return [one.block for one in found], Ranges.of(np.concatenate(pieces).tolist())


class Matcher:
    """Finds recorded items among the items of a call, by their keys."""

    def __init__(self, call: Call) -> None:
        """Costs about 0.2 microseconds for each item of a grid, 5 for one of a list."""
        self._call = call
        positions = np.arange(call.total, dtype=np.int64)
        keys = keys_at(call.items, positions)
        order = np.argsort(keys[:, 0], kind="stable")
        self._first, self._second, self._positions = keys[order, 0], keys[order, 1], positions[order]

    def positions_of(self, items: Sequence[Any], recorded: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the items recorded at some positions of `items` stand now; -1 where they do not. Equal items: the first."""
        keys = keys_at(items, recorded)
        places = np.searchsorted(self._first, keys[:, 0])
        inside = np.minimum(places, max(0, len(self._first) - 1))
        if not len(self._first):
            return np.full(len(recorded), -1, np.int64)
        same = (self._first[inside] == keys[:, 0]) & (self._second[inside] == keys[:, 1])
        return np.where(same, self._positions[inside], -1)

    def recall(self, stored: Iterable[StoredBlock], items: Sequence[Any], taken: Ranges) -> tuple[list[Block], Ranges]:
        """The rows and failures that belong to items of the call, moved to where those stand now."""
        blocks: list[Block] = []
        for one in stored:
            moved = self._move(one.block, items, taken)
            if moved.evaluated:
                blocks.append(moved)
                positions = np.concatenate([moved.indices, [failed.index for failed in moved.failures]]).astype(
                    np.int64
                )
                taken = taken.union(Ranges.of_positions(positions))
        return blocks, taken

    def _move(self, block: Block, items: Sequence[Any], taken: Ranges) -> Block:
        now = self._open(self.positions_of(items, block.indices), taken)
        failed_at = np.array([failed.index for failed in block.failures], np.int64)
        failed_now = self._open(self.positions_of(items, failed_at), taken).tolist()
        there = np.flatnonzero(now >= 0)
        # Ascending, and once where equal items were recorded twice.
        kept = there[np.unique(now[there], return_index=True)[1]]
        failures = tuple(
            replace(failed, index=at) for failed, at in zip(block.failures, failed_now, strict=True) if at >= 0
        )
        moved = dict(zip(block.indices.tolist(), now.tolist(), strict=True))
        return replace(
            block,
            indices=now[kept],
            seconds=block.seconds[kept],
            columns=None if block.columns is None else {n: c[kept] for n, c in block.columns.items()},
            payload=_pick(block, kept),
            failures=failures,
            evaluated=len(kept) + len(failures),
            failed=len(failures),
            rejected=0,
            rejected_example=None,
            attempts={moved[i]: n for i, n in block.attempts.items() if moved.get(i, -1) >= 0},
            curves=tuple(replace(c, index=moved[c.index]) for c in block.curves if moved.get(c.index, -1) >= 0),
        )

    def _open(self, positions: NDArray[np.int64], taken: Ranges) -> NDArray[np.int64]:
        """Positions that are there, not taken already, and allowed by the constraints of the call; else -1."""
        positions = positions.copy()
        if len(taken.starts):
            which = np.searchsorted(taken.starts, positions, side="right") - 1
            positions[(which >= 0) & (positions < taken.stops[which])] = -1
        items = self._call.items
        if isinstance(items, Combinable) and items.constraints:
            there = np.flatnonzero(positions >= 0)
            if len(there):
                ranges = Ranges.of_positions(positions[there])
                allowed, broken = PartOfSpace(items, ranges).mask(0, ranges.size)
                passed = np.ones(ranges.size, bool) if allowed is None else allowed.copy()
                passed[[at for at, _ in broken]] = False
                refused = ranges.positions(np.flatnonzero(~passed))
                positions[np.isin(positions, refused)] = -1
        return positions


def _pick(block: Block, kept: NDArray[np.int64]) -> bytes | None:
    if block.payload is None:
        return None
    if len(kept) == len(block.indices) and bool(np.all(kept[:-1] <= kept[1:])):
        return block.payload
    import cloudpickle

    values = block.values()
    packed: bytes = cloudpickle.dumps([values[place] for place in kept.tolist()], protocol=5)
    return packed
