"""What to hand out next: pending ranges, cut by count or by weight, held back where memory would not suffice. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Self

import numpy as np

from admf_dask.admission import Admission
from admf_dask.runtime.chunks import PARTS, ChunkSizer, Pending
from admf_dask.spread import enough, is_urgent
from admf_dask.weights import Weights

Range = tuple[int, int]
LONG_SECONDS = 0.5
"""A chunk as long as this does not wait in line behind another: the driver has the time to send it when a slot is free."""


@dataclass(slots=True)
class Supply:
    """Chunks of what is left to do. Without weights the items count alike, and memory is nobody's matter.

    With weights a chunk is cut by work, so that a giant goes alone and small ones together, and begins when `Admission` lets it.
    If the first in line may not begin because something as heavy is under way, lighter ones pass it; if only lighter ones are
    under way, it waits for them and they are not followed, so that it does not wait for ever.

    Where processes have one slot each, no two items must be kept apart, but the giants should not all run at once: then the
    admission is soft, with as much room as `spread.enough` finds.
    """

    pending: Pending
    sizer: ChunkSizer
    weights: Weights | None = None
    admission: Admission | None = None

    @classmethod
    def of(
        cls,
        total: int,
        slots: int,
        weights: Weights | None = None,
        admission: Admission | None = None,
        *,
        can_cut: bool = False,
    ) -> Self:
        """All of `total` items; `can_cut` where a chunk can be cut."""
        if weights is None:
            admission = None
        elif admission is None and (room := enough(weights, slots)) is not None:
            admission = Admission(slots, room, soft=True)
        # A chunk of heavy items and lighter ones counts as heavy to its end, so those are not longer than need be.
        sizer = ChunkSizer(slots, can_cut, PARTS if can_cut and weights is None else 1)
        return cls(Pending.of(total), sizer, weights, admission)

    @property
    def seconds_per_item(self) -> float | None:
        """As measured; None where that is not known, or items are not alike."""
        return self.sizer.seconds_per_item if self.weights is None else None

    def next(self, in_flight: int) -> Range | None:
        """The chunk to begin now, beside `in_flight` others; None to wait for one of those. Counts it as begun."""
        if not self.pending.count:
            return None
        if self.weights is None:
            return self.pending.take(self.sizer.size(self.pending.count, in_flight))
        start, stop = self.pending.ranges[0]
        waits = in_flight >= self.sizer.slots
        allowance = float("inf") if self.admission is None else self.admission.allowance
        if self.admission is not None and self.weights.memory[start] > allowance:
            found = self._instead(self.admission, waits)
            if found is None:
                return None
            start, stop = found
        if waits and self._is_long(start):
            return None
        most = max(allowance, int(self.weights.memory[start]))
        chunk = self.pending.take_at(start, self._cut(start, stop, most, in_flight))
        self.begin(chunk)
        return chunk

    def _instead(self, admission: Admission, waits: bool) -> Range | None:
        """Where to begin when the first in line is too heavy beside what is under way; `waits` if no slot is free anyway."""
        assert self.weights is not None
        first = self.pending.ranges[0]
        if not admission.soft:
            memory = int(self.weights.memory[first[0]])
            return None if admission.waits_for_lighter(memory) else self._first_within(admission.allowance)
        if is_urgent(int(self.weights.work[first[0]]), self._left, self.sizer.slots):
            return first
        found = self._first_within(admission.allowance)
        if found is None and not waits:
            last = self.pending.ranges[-1][1]
            return last - 1, last
        return found

    def begin(self, chunk: Range) -> None:
        """A chunk begins that `next` did not give."""
        if self.admission is not None and self.weights is not None:
            self.admission.begin(self.weights.memory_of(*chunk))

    def end(self, chunk: Range) -> None:
        """A chunk is over, whatever became of it."""
        if self.admission is not None and self.weights is not None:
            self.admission.end(self.weights.memory_of(*chunk))

    def reached(self, chunk: Range, stop: int, seconds: float, goes_on: Range | None = None) -> None:
        """A chunk was evaluated up to `stop` in `seconds`; the rest is settled."""
        start = chunk[0]
        self.sizer.record(stop - start if self.weights is None else self.weights.work_of(start, stop), seconds)
        self.settle((stop, chunk[1]), goes_on)

    def settle(self, rest: Range, goes_on: Range | None = None) -> None:
        """What is left of a chunk that is over is pending again, but for what its worker `goes_on` with, which begins."""
        if goes_on is not None:
            self.begin(goes_on)
            rest = goes_on[1], rest[1]
        self.pending.put_back(*rest)
        if self.admission is not None and self.admission.soft:
            # The first in line is the heaviest.
            self.pending.ranges = deque(sorted(self.pending.ranges))

    @property
    def _left(self) -> int:
        """Work that is pending."""
        assert self.weights is not None
        return sum(self.weights.work_of(*span) for span in self.pending.ranges)

    def _is_long(self, start: int) -> bool:
        """Whether the next item is expected to take long; before the first is measured, the worst is."""
        assert self.weights is not None
        rate = self.sizer.seconds_per_item
        return rate is None or rate * int(self.weights.work[start]) > LONG_SECONDS

    def _first_within(self, allowance: float) -> Range | None:
        """Where the first pending item is that takes at most this, up to the end of its range."""
        assert self.weights is not None
        for start, stop in self.pending.ranges:
            light = np.flatnonzero(self.weights.memory[start:stop] <= allowance)
            if len(light):
                return start + int(light[0]), stop
        return None

    def _cut(self, start: int, stop: int, allowance: float, in_flight: int) -> int:
        """Items of the chunk that begins at `start`: by work, and none that is too heavy."""
        assert self.weights is not None
        end = self.weights.reach(start, stop, self.sizer.size(self._left, in_flight))
        heavy = np.flatnonzero(self.weights.memory[start:end] > allowance)
        return (start + int(heavy[0]) if len(heavy) else end) - start
