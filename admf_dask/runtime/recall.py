"""Which chunks should come back before their end, because slots have nothing to do: decided from what was seen, no clock in here.

A chunk whose items take longer than those before would hold up the end of a run. So while slots idle and nothing waits, it is
looked at which item each worker is at, and who has much left to do is asked to return it; the rest is dealt out anew. The price
is an answer and two more chunks, some milliseconds; without it chunks near the end had to be cut fine in advance, for all runs.

Who is in the middle of a long item cannot answer, and need not: what it will not begin without a look is taken away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

WORTH_SECONDS, WORTH_SECONDS_PER_SLOT = 0.03, 0.001
"""A chunk with less to do than this goes on to its end; with many slots the driver has no time for so little."""
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.01, 0.5
"""Between two looks, at first and after many in vain."""
ANSWER_SECONDS = 0.05
"""An answer takes no longer, unless the item under way does; then what is not begun is taken without it."""


def worth(slots: int) -> float:
    """Seconds of work that are worth to be dealt out anew."""
    return max(WORTH_SECONDS, WORTH_SECONDS_PER_SLOT * slots)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A chunk that a worker is evaluating."""

    number: int
    at: int
    """The item that it is at, by position."""
    left: int
    """Items after those under way."""
    until: int = 0
    """The one that it will not begin without a look whether it was asked; 0 if that is not known."""


@dataclass(slots=True)
class Recalls:
    """What was seen of the chunks of one run."""

    slots: int
    _first: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When a chunk was seen for the first time, and at which item."""
    _asked: dict[int, float] = field(default_factory=dict)

    def choose(self, seen: Iterable[UnderWay], idle: int, now: float, seconds_per_item: float | None) -> list[UnderWay]:
        """Those to ask now, at most one for each of `idle` slots, who has most to do first.

        How long the rest of a chunk will take follows from how fast it went since it was first seen; at that time from
        `seconds_per_item` of the run, if that is known.
        """
        long: list[tuple[float, UnderWay]] = []
        for chunk in seen:
            if chunk.number in self._asked:
                idle -= now < self._asked[chunk.number] + ANSWER_SECONDS
            elif (expected := self._expected(chunk, now, seconds_per_item)) > worth(self.slots):
                long.append((expected, chunk))
        chosen = [chunk for _, chunk in sorted(long, key=lambda one: -one[0])[: max(0, idle)]]
        self._asked |= {chunk.number: now for chunk in chosen}
        return chosen

    def silent(self, seen: Iterable[UnderWay], now: float) -> list[UnderWay]:
        """Those that were asked and are still at an item: they keep what they may begin without a look, and no more."""
        return [
            chunk for chunk in seen
            if chunk.until > chunk.at and now >= self._asked.get(chunk.number, now) + ANSWER_SECONDS
        ]  # fmt: skip

    def _expected(self, chunk: UnderWay, now: float, seconds_per_item: float | None) -> float:
        began, at = self._first.setdefault(chunk.number, (now, chunk.at))
        if now > began:
            return chunk.left * (now - began) / max(1, chunk.at - at)
        return chunk.left * (seconds_per_item or 0.0)
