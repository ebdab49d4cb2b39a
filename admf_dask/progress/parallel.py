"""`ParallelProgress`: a counter with a progress line, for loops of the user's own."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TextIO

from admf_dask.progress.relay import DISPLAY, STATISTICS, Link, Relay, link_to
from admf_dask.progress.watchers import present
from admf_dask.text import format_count, format_rate, format_seconds, whole

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

    Exact from any number of threads, and from other processes of this machine: send it to them, as an argument, in a closure or
    as `data=`, and their `update` counts here (about 0.1 ms a call; a count has arrived when it returns). While a session with a
    dashboard is open, the page shows it as a run of its own. What `Session.map` evaluates is counted without it (`progress=`).

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
        total = whole(total)
        if total is not None and (type(total) is not int or total < 0):
            raise ValueError(
                f"total must be a whole number of at least 0, or None where it is not known, but is {total!r}"
            )
        self.total, self.description = total, description or "Processing"
        self._stream, self._clock = stream, clock
        self.key = uuid.uuid4().hex
        """Unique for ever: 32 hexadecimal digits."""
        self._pid = os.getpid()
        self._relay: Relay | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._completed = 0
        self._began = self._shown = clock()
        self._open = False
        """Whether a line stands that is not ended yet."""
        _here[self.key] = self

    def update(self, increment: int = 1) -> bool:
        """Count `increment` more; returns whether a line was shown: every half second, and when the total is reached."""
        increment = whole(increment)
        if type(increment) is not int or increment < 0:
            raise ValueError(f"increment must be a whole number of at least 0, but is {increment!r}")
        if self._pid != os.getpid():
            return self._from_a_fork().update(increment)
        with self._lock:
            before, self._completed = self._completed, self._completed + increment
            now = self._clock()
            complete = self.total is not None and before < self.total <= self._completed
            due = complete or now - self._shown >= INTERVAL_SECONDS
            if due:
                self._shown = now
                self._show(complete)
        self._tell("finished" if complete else None)
        return due

    def display(self) -> None:
        """Show the line now."""
        if self._pid != os.getpid():
            return self._from_a_fork().display()
        with self._lock:
            self._shown = self._clock()
            self._show(self.total is not None and self._completed >= self.total)
        return None

    def _tell(self, ended: str | None) -> None:
        """Those who show it elsewhere."""
        if ended and self._ended:
            return
        self._ended = self._ended or ended is not None
        for watcher in present():
            watcher.changed(self, ended)

    def statistics(self) -> ProgressStatistics:
        """Counts, rate and time as they are now."""
        if self._pid != os.getpid():
            return self._from_a_fork().statistics()
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
            relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()
        self._tell("finished" if error is None else "interrupted")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the way back here."""
        with self._lock:
            if self._relay is None:
                self._relay = Relay(self)
            relay = self._relay
        way = relay.address, relay.token, socket.gethostname()
        return _arrive, (self.key, self._pid, way, self.total, self.description)

    def _from_a_fork(self) -> RemoteProgress:
        """The way back of a copy that a fork made. Raises RuntimeError where there is none."""
        if self._relay is None:
            raise RuntimeError(
                "this ParallelProgress is a copy that a fork made, which would count by itself; give it to the process as an "
                "argument instead"
            )
        way = self._relay.address, self._relay.token, socket.gethostname()
        return RemoteProgress(link_to(*way), self.total, self.description)


class RemoteProgress:
    """A `ParallelProgress` in another process: the same calls, counted and shown by the original.

    Where that cannot be reached any more (its process is gone, its `with` has ended, it is on another machine) a warning is
    logged once, `update` returns False and the work goes on.
    """

    def __init__(self, link: Link, total: int | None, description: str) -> None:
        """Made on arrival."""
        self._link, self.total, self.description = link, total, description

    def update(self, increment: int = 1) -> bool:
        """Count; whether the original showed a line."""
        increment = whole(increment)
        if type(increment) is not int or increment < 0:
            raise ValueError(f"increment must be a whole number of at least 0, but is {increment!r}")
        answer = self._link.ask(increment)
        return answer is not None and answer[0]

    def display(self) -> None:
        """Have the original show its line."""
        self._link.ask(DISPLAY)

    def statistics(self) -> ProgressStatistics:
        """As the original has them; zeros where it cannot be reached."""
        answer = self._link.ask(STATISTICS)
        return ProgressStatistics(self.total, *(answer[1:] if answer is not None else (0, 0.0, 0.0, None)))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: the original ends where it was made."""


_here: weakref.WeakValueDictionary[str, ParallelProgress] = weakref.WeakValueDictionary()


def _arrive(key: str, pid: int, way: tuple[Any, ...], total: int | None, description: str) -> Any:
    """The original in its own process, a way to it elsewhere."""
    original = _here.get(key) if pid == os.getpid() else None
    return original if original is not None else RemoteProgress(link_to(*way), total, description)
