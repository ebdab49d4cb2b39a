"""What is printed while a bar stands on a terminal goes above it, not through it: in this process and in worker processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

CLEAR = "\r\x1b[K"
"""To the start of the line, and empty it."""


class Above:
    """A terminal's text stream that empties the line before it begins one. Everything else is the stream's own."""

    def __init__(self, stream: Any, again: Callable[[], None] | None = None) -> None:
        """`again` draws the bar anew after each whole line; without it that waits for whoever draws the bar."""
        self._stream, self._again = stream, again
        self._begins = True

    def write(self, text: str) -> int:
        """Write; whatever stands in the line is gone first. Returns how many characters of `text` were written."""
        parts = []
        for line in text.splitlines(keepends=True):
            parts.append(CLEAR + line if self._begins else line)
            self._begins = line.endswith("\n")
        self._stream.write("".join(parts))
        if parts and self._begins and self._again is not None:
            self._stream.flush()
            self._again()
        return len(text)

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
        if getattr(sys, name) is above:
            setattr(sys, name, above._stream)
    begun.clear()
