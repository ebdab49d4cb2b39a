"""Progress on a terminal, in a log and in a notebook: three small renderers of one state."""

from __future__ import annotations

import html
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from admf_dask import above
from admf_dask.events import Event, Notice, Observer, RunFinished, RunStarted
from admf_dask.progress.state import ProgressState

Clock = Callable[[], float]
logger = logging.getLogger("admf_dask.progress")


def observers_for(progress: bool | str | Observer) -> tuple[Observer, ...]:
    """The observers that `progress=` asks for.

    `"auto"` and True: a live line in a notebook or on a terminal, sparse lines elsewhere (a log file, CI); False: none; or
    an observer of your own, with `on_event`, which then stands in place of these: to have a bar too, hand each event on to one,
    such as `TerminalProgress()`. The page shows the run in any case. Raises TypeError for anything else.
    """
    if progress is False or progress is None:
        return ()
    if progress is True or progress == "auto":
        if _in_notebook():
            return (NotebookProgress(),)
        return (TerminalProgress(),) if _is_terminal(sys.stderr) else (LogProgress(),)
    if callable(getattr(progress, "on_event", None)):
        return (progress,)  # type: ignore[return-value]
    raise TypeError(f'progress must be "auto", True, False or an object with on_event(event), but got {progress!r:.60}')


class _Renderer:
    """Feeds the state and decides when to draw. A stream that breaks ends the drawing and not the run."""

    interval = 0.1

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        """`stream` None is `sys.stderr` at the time of writing."""
        self.state = ProgressState()
        self._stream, self._clock = stream, clock
        self._drawn = -1e9
        self._broken = False

    def on_event(self, event: Event) -> None:
        """Take the event and draw if it is time."""
        self.state.take(event)
        if isinstance(event, Notice):
            self._say(event.text)
        last = isinstance(event, RunFinished)
        if last or self._clock() - self._drawn >= self.interval:
            self._drawn = self._clock()
            self._draw(last)

    def _draw(self, last: bool) -> None:
        raise NotImplementedError

    def _say(self, text: str) -> None:
        self._write(f"{text}\n")

    def _to(self) -> TextIO:
        return self._stream or sys.stderr

    def _write(self, text: str) -> None:
        if self._broken:
            return
        try:
            stream = self._to()
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            # Closed, or a pipe nobody reads any more.
            self._broken = True


class TerminalProgress(_Renderer):
    """One line, drawn again ten times a second at the most, left standing at the end.

    What this process and the worker processes print meanwhile goes above it: a line that a worker prints takes the bar's place,
    and the bar is back with the next result. Output of child processes and of C code goes where it goes.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        """As the others."""
        super().__init__(stream, clock=clock)
        self._lock = threading.RLock()
        self._terminal: TextIO | None = None
        self._begun: dict[str, above.Above] = {}

    def on_event(self, event: Event) -> None:
        """As the others; between the first and the last event `sys.stdout` and `sys.stderr` write above the bar."""
        with self._lock:
            if isinstance(event, RunStarted) and self._stream is None:
                self._terminal = sys.stderr
                self._begun = above.begin(self._again)
            try:
                super().on_event(event)
            finally:
                if isinstance(event, RunFinished):
                    above.end(self._begun)
                    self._terminal = None

    def _again(self) -> None:
        with self._lock:
            self._draw(False)

    def _draw(self, last: bool) -> None:
        width = _width(self._to())
        self._write(above.CLEAR + self._line(width - 1) + ("\n" if last else ""))

    def _say(self, text: str) -> None:
        self._write(f"{above.CLEAR}{text}\n")

    def _to(self) -> TextIO:
        return self._stream or self._terminal or sys.stderr

    def _line(self, width: int) -> str:
        words = self.state.words()
        head = f"{self.state.name} " if self.state.name else ""
        room = width - len(head) - len(words) - 3
        if room >= 8:
            size = min(room, 30)
            full, empty = ("█", "░") if _can_write(self._to(), "█░") else ("#", "-")
            filled = int(self.state.share * size)
            words = f"{full * filled}{empty * (size - filled)} {words}"
        return f"{head}{words}"[: max(1, width)]


class LogProgress(_Renderer):
    """Whole lines for a file: at the start, at each tenth (ten seconds apart at least), every minute, and at the end.

    They go through `logging` (logger `admf_dask.progress`, level INFO) where that has a handler and lets them pass, else to the
    stream.
    """

    interval = 0.0
    seconds_between = 10.0

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        """As the others."""
        super().__init__(stream, clock=clock)
        self._tenth = -1
        self._line_at = -1e9

    def _draw(self, last: bool) -> None:
        tenth, now = int(self.state.share * 10), self._clock()
        since = now - self._line_at
        due = since >= 60 or (tenth > self._tenth and since >= self.seconds_between)
        if last or due:
            self._tenth, self._line_at = tenth, now
            name = f"{self.state.name}: " if self.state.name else ""
            self._tell_line(f"{name}{self.state.words()}")

    def _say(self, text: str) -> None:
        self._tell_line(text)

    def _tell_line(self, line: str) -> None:
        if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
            logger.info("%s", line)
        else:
            self._write(f"{line}\n")


class NotebookProgress(_Renderer):
    """One output cell, updated; the last state is what the saved notebook shows."""

    interval = 0.25

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        """As the others."""
        super().__init__(stream, clock=clock)
        self._handle: Any = None

    def _draw(self, last: bool) -> None:
        from IPython.display import HTML, display

        content = HTML(self._html())
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)

    def _html(self) -> str:
        state = self.state
        bar = f'<progress value="{state.share:.4f}" max="1" style="width:16em;vertical-align:middle"></progress>'
        return f"<div><b>{html.escape(state.name)}</b> {bar} {html.escape(state.words())}</div>"


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def _width(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return shutil.get_terminal_size().columns


def _can_write(stream: Any, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
