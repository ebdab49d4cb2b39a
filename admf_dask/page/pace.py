"""How often a page is brought up to date: so seldom that looking costs next to nothing, often enough to be live."""

from __future__ import annotations

FASTEST, SLOWEST = 0.5, 5.0
"""Seconds between two updates."""
SHARE_BUSY, SHARE_FREE = 0.02, 0.25
"""What the page and its browser may take together: of all CPUs while workers want each of them, else of one CPU."""
PATIENCE = 10.0
"""Seconds after which a browser that has not said that it has drawn is told more all the same."""
_FIRST_GUESS = 0.03
"""Of a drawing here and of one in the browser, which is slow before its compiler knows the page."""
UNSEEN = 4.0
"""What a drawing takes in all, over what the page sees of it: the rest is in threads that paint, in processes that put it on the
screen, and on this side in the messages (80 ms to 20 ms, as measured over hundreds of drawings)."""
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

    def due(self, now: float, *, busy: int, moving: bool) -> bool:
        """Whether to update now: `busy` is the number of CPUs if workers want all of each; `moving` while a run goes on."""
        since = now - self._last
        if self.hidden or (self._waiting and since < PATIENCE):
            return False
        return since >= self.interval(busy=busy, moving=moving)

    def interval(self, *, busy: int, moving: bool) -> float:
        """Seconds from one update to the next."""
        cost = UNSEEN * (self._made + self._drawn)
        seconds = min(SLOWEST, max(FASTEST, cost / (SHARE_BUSY * busy if busy else SHARE_FREE)))
        return seconds if moving else max(seconds, 2 * FASTEST)

    def made(self, seconds: float, now: float, *, sent: bool) -> None:
        """An update took so many seconds of this process; `sent` where the browser will say that it has drawn it."""
        self._made = _towards(self._made, seconds)
        self._last, self._waiting = now, sent

    def drawn(self, seconds: float) -> None:
        """The browser has drawn it in so many seconds."""
        self._waiting = False
        self._drawn = _towards(self._drawn, seconds)


def _towards(before: float, seconds: float) -> float:
    """A moving mean, in which one drawing that took long, such as a page's first, counts as three usual ones do."""
    return before + _WEIGHT * (min(seconds, 3 * before) - before)
