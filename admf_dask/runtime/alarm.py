"""The soft stop of an item that takes too long: an exception raised inside the thread that evaluates it.

One small thread for a run in each worker looks at the cells in which the evaluator notes when an item began. What is
overdue gets `SoftStop`, which ends Python code wherever it stands, also a `time.sleep` or a compiled call that comes back.
What never returns to the interpreter cannot be ended this way: there the process must go, and the driver sees to that
through the black box; where it cannot (a cluster of other machines), the alarm ends its own process. In thread mode and in
the calling thread nothing can be ended: there the alarm says what the run waits for.
"""

from __future__ import annotations

import _thread
import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from admf_dask.runtime.calls import BEGAN, Cells

GRACE = 1.0
"""Seconds from the soft stop to the end of the process."""
LAST_WORDS_SECONDS = 0.3
"""For the message to leave the process, whose event loop sends it."""
EXIT_CODE = 124
"""Of a process that ended itself; as `timeout(1)` has it."""
AGAIN_SECONDS = 0.01
"""After a soft stop that was lost."""


logger = logging.getLogger("admf_dask")
_strike = ctypes.pythonapi.PyThreadState_SetAsyncExc


class SoftStop(BaseException):
    """Raised inside an item that took longer than its timeout; not an Exception, so that `except Exception` lets it through."""

    def __str__(self) -> str:
        """What a user sees of it who catches everything."""
        return "this item took longer than timeout= allows, or its run was stopped"


def interval(timeout: float) -> float:
    """Seconds between two looks."""
    return min(0.25, max(0.02, timeout / 10))


class Alarm:
    """Watches the threads of one run in this process. Thread-safe; ends when `cancelled` is set."""

    def __init__(
        self,
        timeout: float,
        cancelled: threading.Event,
        *,
        last_words: Callable[[int, int], None] | None = None,
        helpless: bool = False,
    ) -> None:
        """What happens when a soft stop has no effect.

        With `last_words(start, count)`, which tells the driver, the process is ended; `helpless` says that nobody can end it.
        """
        self._timeout, self._cancelled, self._last_words, self._helpless = timeout, cancelled, last_words, helpless
        self._watched: dict[int, tuple[Cells, int]] = {}
        self._struck: dict[int, tuple[int, int]] = {}
        self._told: dict[int, tuple[int, int]] = {}
        self._ages = Ages()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch_this_thread(self, cells: Cells, at: int) -> None:
        """Look after the calling thread from now on: `cells[at]` says which item it is at, `cells[at + BEGAN]` since when."""
        with self._lock:
            self._watched[threading.get_ident()] = cells, at
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="admf-dask-alarm", daemon=True)
                self._thread.start()

    def leave_this_thread(self) -> None:
        """The calling thread goes on to something else: its cells will tell of items that are not of this run."""
        with self._lock:
            self._watched.pop(threading.get_ident(), None)

    def _run(self) -> None:
        step, looked = interval(self._timeout), time.monotonic()
        while not self._cancelled.wait(step):
            with self._lock:
                watched = list(self._watched.items())
            now = time.monotonic()
            if now - looked > 3 * step:
                # This thread was kept from running, and so were those it watches, by one that held the interpreter.
                self._ages.forgive(now - looked)
            looked = now
            for thread, (cells, at) in watched:
                index, began = cells[at], cells[at + BEGAN]
                since = self._ages.since(thread, (index, began), now)
                if index >= 0 and began:
                    self._look(thread, cells, at, now - since - self._timeout)

    def _look(self, thread: int, cells: Cells, at: int, overdue: float) -> None:
        index, began = cells[at], cells[at + BEGAN]
        if overdue > GRACE and self._last_words is not None:
            self._last_words(index, max(1, cells[at + 1]))
            time.sleep(LAST_WORDS_SECONDS)
            os._exit(EXIT_CODE)
        if overdue > GRACE and self._helpless and self._told.get(thread) != (index, began):
            self._told[thread] = index, began
            logger.warning(
                "item %s takes longer than timeout=%g seconds and does not return to the interpreter. A thread cannot be ended, "
                "so the run waits for it; with mode='process' its process would be ended", index, self._timeout,
            )  # fmt: skip
        if overdue > 0 and (self._struck.get(thread) != (index, began) or overdue > GRACE):
            self._struck[thread] = index, began
            stop_softly(thread, cells, at, index, began)


def stop_softly(thread: int, cells: Cells, at: int, index: int, began: int) -> None:
    """Raise SoftStop in a thread, if it still is at that item."""
    if not isinstance(sys.unraisablehook, LostStops):
        sys.unraisablehook = LostStops(sys.unraisablehook)
    _aims[thread] = cells, at, index, began
    strike, target, exception = _strike, ctypes.c_ulong(thread), ctypes.py_object(SoftStop)
    # From this look at the cells to the strike no other thread runs, as no Python code is called in between; and the
    # interpreter delivers what was sent before the thread goes on from where it stands. So a strike lands while the
    # evaluator says that it is at this item.
    if cells[at] == index and cells[at + BEGAN] == began:
        strike(target, exception)


class LostStops:
    """In the place of `sys.unraisablehook`, with all but a soft stop left to the one before.

    In a destructor, or in a callback of C code (numba's cache while it compiles), Python prints an exception and goes on. A soft
    stop that lands there is sent again, so that the item ends where an exception can end it, and nobody sees it printed.
    """

    def __init__(self, before: Callable[[Any], object]) -> None:
        """`before` is what printed so far."""
        self._before = before

    def __call__(self, args: Any) -> None:
        """In the thread that was struck; takes no lock, as it may hold any."""
        if args.exc_type is not SoftStop:
            self._before(args)
        elif (aim := _aims.get(threading.get_ident())) is not None:
            _thread.start_new_thread(_stop_again, (threading.get_ident(), *aim))


_aims: dict[int, tuple[Cells, int, int, int]] = {}
"""By thread: the item that was struck last."""


def _stop_again(thread: int, *aim: Any) -> None:
    time.sleep(AGAIN_SECONDS)
    stop_softly(thread, *aim)


class Ages:
    """How long something has looked the same: from the look at which it was first seen so, at most one interval too late."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._seen: dict[object, tuple[object, float]] = {}

    def since(self, who: object, what: object, now: float) -> float:
        """When `who` was first seen with `what` that it still has."""
        seen = self._seen.get(who)
        if seen is None or seen[0] != what:
            self._seen[who] = seen = what, now
        return seen[1]

    def forgive(self, seconds: float) -> None:
        """Leave a time out of account in which nobody could change."""
        self._seen = {who: (what, since + seconds) for who, (what, since) in self._seen.items()}
