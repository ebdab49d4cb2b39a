"""How often a page is brought up to date: so seldom that looking costs next to nothing, often enough to be live."""

from __future__ import annotations

FASTEST, SLOWEST = 0.5, 5.0
"""Seconds between two updates."""
SHARE_BUSY, SHARE_FREE = 0.025, 0.25
"""Of one CPU, what the page and its browser may take together: while workers want every CPU, and while they do not."""
PATIENCE = 10.0
"""Seconds after which a browser that has not said that it has drawn is told more all the same."""
_FIRST_GUESS = 0.05
_WEIGHT = 0.3


class Pace:
    """Decides from what the last updates cost, here and in the browser, when the next one is due. Not thread-safe.

    A browser tells when it has drawn, so one that is slow, or at the end of a slow line, is not sent more than it can take; one
    whose tab nobody sees is sent nothing.
    """

    def __init__(self) -> None:
        """The first update is due at once."""
        self.hidden = False
        self._made = self._drawn = _FIRST_GUESS
        self._last = float("-inf")
        self._waiting = False

    def due(self, now: float, *, busy: bool, moving: bool) -> bool:
        """Whether to update now: `busy` where workers want every CPU, `moving` while a run goes on."""
        since = now - self._last
        if self.hidden or (self._waiting and since < PATIENCE):
            return False
        return since >= self.interval(busy=busy, moving=moving)

    def interval(self, *, busy: bool, moving: bool) -> float:
        """Seconds from one update to the next."""
        cost = self._made + self._drawn
        seconds = min(SLOWEST, max(FASTEST, cost / (SHARE_BUSY if busy else SHARE_FREE)))
        return seconds if moving else max(seconds, 2 * FASTEST)

    def made(self, seconds: float, now: float, *, sent: bool) -> None:
        """An update took so many seconds of this process; `sent` where the browser will say that it has drawn it."""
        self._made += _WEIGHT * (seconds - self._made)
        self._last, self._waiting = now, sent

    def drawn(self, seconds: float) -> None:
        """The browser has drawn it in so many seconds."""
        self._waiting = False
        self._drawn += _WEIGHT * (min(seconds, SLOWEST) - self._drawn)
