"""What is printed while a bar stands on a terminal goes above it, not through it: in this process and in worker processes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

CLEAR = "\r\x1b[K"
"""To the start of the line, and empty it."""


class Above:
    """A terminal's text stream that writes whole lines, each after emptying the line. Everything else is the stream's own.

    Thread-safe: each thread's line is held back until it is whole or flushed, so lines of several threads do not mix.
    """

    def __init__(self, stream: Any, again: Callable[[], None] | None = None) -> None:
        """`again` draws the bar anew after each whole line; without it that waits for whoever draws the bar."""
        self._stream, self._again = stream, again
        self._held: dict[int, str] = {}
        self._begun: set[int] = set()
        """Threads that have written a part of a line."""

    def write(self, text: str) -> int:
        """Write what is whole of it; whatever stands in the line is gone first. Returns the number of characters."""
        thread = threading.get_ident()
        whole, newline, rest = (self._held.pop(thread, "") + text).rpartition("\n")
        if newline:
            lines = [CLEAR + line for line in whole.split("\n")]
            if thread in self._begun:
                self._begun.discard(thread)
                lines[0] = lines[0].removeprefix(CLEAR)
            self._stream.write("\n".join(lines) + newline)
            if self._again is not None:
                self._stream.flush()
                self._again()
        if rest:
            self._held[thread] = rest
        return len(text)

    def flush(self) -> None:
        """Write this thread's line as far as it has come."""
        self._part(threading.get_ident())
        self._stream.flush()

    def _part(self, thread: int) -> None:
        part = self._held.pop(thread, "")
        if part:
            self._stream.write(part if thread in self._begun else CLEAR + part)
            self._begun.add(thread)

    def close_lines(self) -> None:
        """Write what threads still hold."""
        for thread in list(self._held):
            self._part(thread)

    def writelines(self, lines: Any) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """As the stream has it."""
        return getattr(self._stream, name)


def begin(again: Callable[[], None] | None = None) -> dict[str, Above]:
    """Put it before this process's stdout and stderr, as far as they are terminals; returns what `end` takes."""
    found = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not stream.closed and stream.isatty():
            found[name] = Above(stream, again)
            setattr(sys, name, found[name])
    return found


def end(begun: dict[str, Above]) -> None:
    """Take it away, unless somebody has put another stream there since."""
    for name, above in begun.items():
        above._again = None
        above.close_lines()
        if getattr(sys, name) is above:
            setattr(sys, name, above._stream)
    begun.clear()
