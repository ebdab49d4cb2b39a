"""How items become chunks: pure decisions from measured durations, no clock and no cluster in here.

A chunk costs 4 to 6 ms beyond its work (task, scheduler, result), so a chunk should hold 0.1 s of work or more; the driver
can follow about 200 chunks a second, so with many slots it must hold more. A chunk must not be long either: it delays the
end, the progress and Ctrl-C. Two rules together give both:

- the driver asks for about `target` seconds of items, by the mean duration measured so far, and for less near the end;
- the worker stops at the end of the item in which `budget` seconds ran out (or a little later, if all is done then), and what
  it did not reach goes back to the driver. So the first chunks need no probing, and a stretch of slow items is shared out
  instead of holding up the end.

Where the driver can cut a chunk that is under way (see `cuts`), on this machine, nothing need be cut fine in advance: what is
left is dealt out evenly, and again if it turns out not to be even. Nor need a worker there return a chunk that takes longer than
its budget: it tells what it has and goes on, so that a run of two seconds is one chunk for each slot.

The constants are the best of a grid tried on the simulated clock of the tests and on 2 CPUs, where driver and scheduler take
their time from the workers: each chunk costs them 5 ms of a CPU.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from admf_dask.runtime.cuts import worth

TARGET_SECONDS = 0.4
FLOOR_SECONDS = 0.03
FIRST_BUDGET_SECONDS = 0.35
PATIENCE = 1.25
"""A worker may take this many times the target before it returns what it has."""
LITTLE_MORE = 0.2
"""The part of a budget by which it may be exceeded, where all is done then."""
PARTS = 4
"""Budgets within which a worker may finish a chunk, where it tells what it has after each. What would take longer at the pace of
the part that it did is returned: then there is too much of it for one slot, or the next items are unlike those before."""
SECONDS_PER_SLOT = 0.01
"""Longer chunks on many slots: at 1,000 slots 10 s, so that the driver sees 100 chunks a second."""
FLOOR_SECONDS_PER_SLOT = 0.003
"""The first and the last chunks hold at least what the driver needs to serve each slot once: at 1,000 slots 3 s."""
SHARES = 1.25
"""Near the end a chunk is at most this part of what is left to a slot, four fifths, where it cannot be cut."""
WAITING_SECONDS = 0.1
"""Where it can, a chunk that waits for a slot holds at least this."""


@dataclass(slots=True)
class ChunkSizer:
    """The size of the next chunk, and the seconds a worker may spend on it."""

    slots: int
    can_cut: bool = False
    """Whether a chunk can be cut while it is under way."""
    parts: int = 1
    """Targets that a chunk holds while there is plenty: more than one where its worker tells what it has after each."""
    seconds_per_item: float | None = None

    @property
    def target(self) -> float:
        """Seconds of work that a chunk should hold while there is plenty."""
        return max(TARGET_SECONDS, SECONDS_PER_SLOT * self.slots)

    @property
    def floor(self) -> float:
        """Seconds of work below which a chunk is not made smaller for the sake of an even end."""
        return max(FLOOR_SECONDS, FLOOR_SECONDS_PER_SLOT * self.slots)

    def record(self, items: int, seconds: float) -> None:
        """Learn from a finished chunk; recent chunks count more, and where a mistake cannot be mended, long ones."""
        if items <= 0:
            return
        measured = seconds / items
        if self.seconds_per_item is None:
            self.seconds_per_item = measured
        else:
            weight = 0.5 if self.can_cut else min(0.5, max(0.1, seconds / self.target / 2))
            self.seconds_per_item += weight * (measured - self.seconds_per_item)

    def size(self, remaining: int, in_flight: int = 0) -> int:
        """Items for the next chunk when `remaining` are not yet handed out, beside so many chunks; at least 1."""
        share, least = self._share(remaining, in_flight)
        if self.seconds_per_item is None:
            return max(1, share)
        if self.seconds_per_item <= 0.0:
            return max(1, min(remaining, share))
        wanted = self.target * self.parts / self.seconds_per_item
        floor = math.ceil(least / self.seconds_per_item)
        return max(1, min(remaining, int(wanted) or 1, max(share, floor)))

    def _share(self, remaining: int, in_flight: int) -> tuple[int, float]:
        """Items that are one slot's part of what is left, and the seconds below which a chunk is not made smaller."""
        if not self.can_cut:
            return math.ceil(remaining / (SHARES * self.slots)), self.floor
        free = self.slots - in_flight
        if free > 0:
            return math.ceil(remaining / free), worth(self.slots) / 2
        return math.ceil(remaining / self.slots), max(WAITING_SECONDS, self.floor)

    @property
    def budget(self) -> float:
        """Seconds after which a worker returns what it has."""
        if self.seconds_per_item is None and not self.can_cut:
            return max(FIRST_BUDGET_SECONDS, self.floor)
        return PATIENCE * self.target


@dataclass(frozen=True, slots=True)
class Budget:
    """The time for the items `[start, stop)`, from when the first began."""

    seconds: float
    start: int
    stop: int
    began: float

    def is_spent(self, reached: int, now: float) -> bool:
        """Whether to stop before item `reached`: the time is over, and at the pace so far the rest would take more than a little
        beyond it. A rest smaller than that is not worth to be told of, or dealt out, by itself.
        """
        spent = now - self.began
        if spent <= self.seconds:
            return False
        left = (self.stop - reached) * spent / max(1, reached - self.start)
        return spent + left > (1 + LITTLE_MORE) * self.seconds


@dataclass(slots=True)
class Pending:
    """The index ranges not yet handed out, in order; a grid of 10^9 points is one range."""

    ranges: deque[tuple[int, int]] = field(default_factory=deque)
    count: int = 0

    @classmethod
    def of(cls, total: int) -> Pending:
        """All items of a run."""
        pending = cls()
        pending.put_back(0, total)
        return pending

    def put_back(self, start: int, stop: int) -> None:
        """Hand `[start, stop)` out next; an empty range is nothing."""
        if start < stop:
            self.ranges.appendleft((start, stop))
            self.count += stop - start

    def take(self, size: int) -> tuple[int, int]:
        """The next range of at most `size` items. Raises IndexError when nothing is left."""
        start, stop = self.ranges.popleft()
        cut = min(stop, start + size)
        if cut < stop:
            self.ranges.appendleft((cut, stop))
        self.count -= cut - start
        return start, cut

    def take_at(self, at: int, size: int) -> tuple[int, int]:
        """The range of at most `size` items from `at` on, wherever it is in line. Raises IndexError when `at` is not pending."""
        for place, (start, stop) in enumerate(self.ranges):
            if start <= at < stop:
                cut = min(stop, at + size)
                del self.ranges[place]
                for span in ((cut, stop), (start, at)):
                    if span[0] < span[1]:
                        self.ranges.insert(place, span)
                self.count -= cut - at
                return at, cut
        raise IndexError(f"{at} is not pending")
