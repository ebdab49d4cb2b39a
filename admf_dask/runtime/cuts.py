"""What to take from chunks under way, because slots have nothing to do: decided from what was seen, no clock in here.

A chunk whose items take longer than those before would hold up the end of a run. So while slots idle and nothing waits, it is
looked at which item each worker is at, and the rest of who has much left to do is cut so that he and those who get it end
together; he goes on meanwhile, and need not answer. The price is one more chunk, some milliseconds of a slot that had nothing to
do; without it chunks near the end had to be cut fine in advance, for all runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

WORTH_SECONDS, WORTH_SECONDS_PER_SLOT = 0.012, 0.001
"""A chunk with less to do than this goes on to its end; with many slots the driver has no time for so little."""
HAND_OVER_SECONDS = 0.005
"""From a cut until a slot that had nothing to do begins with what was cut off."""
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.01, 0.5
"""Between two looks, at first and after many in vain."""
ROOM_SECONDS = 0.2
"""Of a chunk while others wait for a slot; and between two looks for that a quarter of it."""
QUICKEST_SECONDS = 1e-9
"""Of an item: no time at all is none that could be divided by."""
SETTLED_SECONDS = 0.02
"""After a cut, until it shows whether it was right."""


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
    stop: int
    """The item before which it ends."""
    until: int
    """The one that it will not begin without a look whether it was cut."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How long a chunk will take, as far as that can be seen."""

    chunk: UnderWay
    rest: float
    """Seconds that the items under way still take."""
    pace: float
    """Seconds of each of those after them."""

    @property
    def seconds(self) -> float:
        """Until all is done."""
        return self.rest + self.chunk.left * self.pace

    def end(self, takers: int) -> int:
        """Where to cut, so that this one and so many others, who begin a little later, are done at the same time."""
        chunk, ahead = self.chunk, HAND_OVER_SECONDS - self.rest
        keeps = int((chunk.left + takers * ahead / self.pace) / (takers + 1))
        return max(chunk.until, chunk.stop - chunk.left + max(0, keeps))


@dataclass(slots=True)
class Cutter:
    """What was seen of the chunks of one run."""

    slots: int
    _first: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When a chunk was seen for the first time, and at which item."""
    _since: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When it was first seen at the item at which it was seen last."""
    _cut: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When it was cut, and for how many others."""

    def choose(
        self, seen: Iterable[UnderWay], idle: int, now: float, seconds_per_item: float | None
    ) -> list[tuple[UnderWay, int]]:
        """Those to cut now for `idle` slots, and before which item; who has most to do comes first.

        How long a chunk will take follows from how fast it went since it was first seen, or from `seconds_per_item` of the run,
        if that is known; an item under way is expected to take as long again as it was seen to.
        """
        long: list[Outlook] = []
        for chunk in seen:
            outlook, (cut, takers) = self._outlook(chunk, now, seconds_per_item), self._cut.get(chunk.number, (now, 0))
            if now < cut + SETTLED_SECONDS and takers:
                idle -= takers
            elif outlook.seconds > worth(self.slots) and chunk.until < chunk.stop:
                long.append(outlook)
        long = sorted(long, key=lambda one: -one.seconds)[: max(0, idle)]
        chosen = []
        for place, outlook in enumerate(long):
            takers = len(range(place, idle, len(long)))
            self._cut[outlook.chunk.number] = now, takers
            chosen.append((outlook.chunk, outlook.end(takers)))
        return chosen

    def shorten(
        self, seen: Iterable[UnderWay], now: float, seconds_per_item: float | None
    ) -> list[tuple[UnderWay, int]]:
        """Those with far more to do than others should wait for, and before which item to cut them."""
        chosen = []
        for chunk in seen:
            outlook = self._outlook(chunk, now, seconds_per_item)
            if chunk.left * outlook.pace > 2 * ROOM_SECONDS:
                end = max(chunk.until, chunk.stop - chunk.left + int(ROOM_SECONDS / outlook.pace))
                if end < chunk.stop:
                    chosen.append((chunk, end))
        return chosen

    def _outlook(self, chunk: UnderWay, now: float, seconds_per_item: float | None) -> Outlook:
        began, first = self._first.setdefault(chunk.number, (now, chunk.at))
        if self._since.setdefault(chunk.number, (now, chunk.at))[1] != chunk.at:
            self._since[chunk.number] = now, chunk.at
        rest = now - self._since[chunk.number][0]
        if chunk.at > first:
            pace = (now - began) / (chunk.at - first)
        else:
            pace = now - began if seconds_per_item is None else seconds_per_item
        return Outlook(chunk, rest, max(pace, QUICKEST_SECONDS))
