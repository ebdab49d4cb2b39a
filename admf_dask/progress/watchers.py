"""Where counters are shown beside their line: a session with a page enters itself here while it is open."""

from __future__ import annotations

import threading
from typing import Any, Protocol


class Counter(Protocol):
    """What others know of a `ParallelProgress`."""

    key: str
    total: int | None
    description: str

    def update(self, increment: int = 1) -> bool:
        """Count."""

    def display(self) -> None:
        """Show the line now."""

    def statistics(self) -> Any:
        """As a `ProgressStatistics`."""


class Watcher(Protocol):
    """Who shows counters."""

    def changed(self, progress: Counter, ended: str | None) -> None:
        """A counter has moved; `ended` is the state of its end, once. Returns within microseconds."""


_lock = threading.Lock()
_watchers: tuple[Watcher, ...] = ()


def present() -> tuple[Watcher, ...]:
    """Those who watch now."""
    return _watchers


def enter(watcher: Watcher) -> None:
    """Begin to watch."""
    global _watchers
    with _lock:
        _watchers = (*_watchers, watcher)


def leave(watcher: Watcher) -> None:
    """Watch no more."""
    global _watchers
    with _lock:
        _watchers = tuple(one for one in _watchers if one is not watcher)
