"""`ParallelProgress`: a counter with a progress line, for loops of the user's own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self, TextIO

from admf_dask.text import format_count, format_rate, format_seconds

INTERVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ProgressStatistics:
    """A look at a `ParallelProgress`."""

    total: int | None
    """Items in all; None where that is not known."""
    completed: int
    elapsed: float
    """Seconds since it was made."""
    rate: float
    """Items a second over all the time; 0 before the first."""
    remaining: float | None
    """Seconds left at that rate; None where nothing is known, 0 when done."""


class ParallelProgress:
    """Counts what is done and shows a line at most every half second: `data: 40/100 (40.0 %), elapsed 4.0 s, 6.0 s left`.

    ```python
    with ParallelProgress(len(symbols), "symbols") as progress:
        for symbol in symbols:
            load(symbol)
            progress.update()
    ```

    Exact from any number of threads. It lives in one process and refuses to be pickled: what runs on workers is counted by
    `Session.map` itself (`progress=`).

    Parameters
    ----------
    total
        Items in all, 0 or more; None where it is not known. Raises ValueError below 0.
    description
        What the line begins with; `Processing` by default.
    """

    def __init__(
        self,
        total: int | None,
        description: str | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stream` None is `sys.stderr` at the time of writing."""
        if total is not None and (type(total) is not int or total < 0):
            raise ValueError(
                f"total must be a whole number of at least 0, or None where it is not known, but is {total!r}"
            )
        self.total, self.description = total, description or "Processing"
        self._stream, self._clock = stream, clock
        self._lock = threading.Lock()
        self._completed = 0
        self._began = self._shown = clock()
        self._open = False
        """Whether a line stands that is not ended yet."""

    def update(self, increment: int = 1) -> bool:
        """Count `increment` more; returns whether a line was shown: every half second, and when the total is reached."""
        if type(increment) is not int or increment < 0:
            raise ValueError(f"increment must be a whole number of at least 0, but is {increment!r}")
        with self._lock:
            before, self._completed = self._completed, self._completed + increment
            now = self._clock()
            complete = self.total is not None and before < self.total <= self._completed
            due = complete or now - self._shown >= INTERVAL_SECONDS
            if due:
                self._shown = now
                self._show(complete)
            return due

    def display(self) -> None:
        """Show the line now."""
        with self._lock:
            self._shown = self._clock()
            self._show(self.total is not None and self._completed >= self.total)

    def statistics(self) -> ProgressStatistics:
        """Counts, rate and time as they are now."""
        with self._lock:
            return self._statistics()

    def _statistics(self) -> ProgressStatistics:
        elapsed = self._clock() - self._began
        rate = self._completed / elapsed if elapsed > 0 else 0.0
        left = None if self.total is None else max(0, self.total - self._completed)
        remaining = 0.0 if left == 0 else left / rate if left is not None and rate > 0 else None
        return ProgressStatistics(self.total, self._completed, elapsed, rate, remaining)

    def _show(self, last: bool) -> None:
        now = self._statistics()
        done = format_count(now.completed)
        if now.total is not None:
            done += f"/{format_count(now.total)} ({now.completed / now.total if now.total else 1.0:.1%})".replace(
                "%", " %"
            )
        words = f"{self.description}: {done}, elapsed {format_seconds(now.elapsed)}"
        if last:
            words += f", {format_rate(now.rate)}" if now.rate else ""
        elif now.remaining is not None:
            words += f", {format_seconds(now.remaining)} left"
        stream = self._stream or sys.stderr
        try:
            live = stream.isatty()
            stream.write(f"\r\x1b[K{words}" if live else f"{words}\n")
            if live and last:
                stream.write("\n")
            stream.flush()
        except (OSError, ValueError):
            # Closed, or a pipe nobody reads any more: the work goes on.
            return
        self._open = live and not last

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the line standing and the cursor on the next."""
        with self._lock:
            if self._open:
                self._open = False
                (self._stream or sys.stderr).write("\n")

    def __reduce__(self) -> NoReturn:
        """Refuse: a copy would count by itself."""
        raise TypeError(
            "a ParallelProgress lives in one process and cannot be sent to another; Session.map(..., progress=True) counts what "
            "runs on workers"
        )
