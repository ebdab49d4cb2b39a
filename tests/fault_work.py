"""Items that go wrong in every way that items do; a module of its own so that workers import it as they would a user's."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from dask.sizeof import sizeof


class WillNotUnpickle(Exception):
    """Survives `dumps`, and `loads` only where a library (tblib) rebuilds exceptions without calling their class."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


class BreaksItsPickle(Exception):
    """Survives `dumps`, never `loads`."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


class HoldsALock(Exception):
    """Cannot be pickled at all."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.lock = threading.Lock()


class CannotBePrinted(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fall_over() -> None:
    ctypes.string_at(0)


def grow(step: int) -> None:
    held = []
    while True:
        held.append(np.ones(step, np.uint8))


def hold(size: int, seconds: float) -> bool:
    held = np.ones(size, np.uint8)
    time.sleep(seconds)
    return bool(held[-1])


def loop_for_ever() -> None:
    while True:
        pass


class LoopsAsItGoes:
    def __del__(self) -> None:
        loop_for_ever()


def loop_where_nothing_can_be_raised() -> None:
    """In a callback of C code, then in a destructor, then in the open."""
    ctypes.CFUNCTYPE(None)(loop_for_ever)()
    LoopsAsItGoes()
    loop_for_ever()


def loop_and_swallow() -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: S110 - as careless as users are
            pass


FAULTS: dict[str, Any] = {
    "raise": lambda: int("not a number"),
    "segfault": fall_over,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "memory in small steps": lambda: grow(10**6),
    "memory in big steps": lambda: grow(3 * 10**8),
    "memory held for a while": lambda: hold(420_000_000, 1.0),
    "python loop": loop_for_ever,
    "python loops where nothing can be raised": loop_where_nothing_can_be_raised,
    "python loop that swallows": loop_and_swallow,
    "sleep": lambda: time.sleep(600),
    "c loop": lambda: ctypes.CDLL(None).sleep(600),
    "c loop that holds the interpreter": lambda: ctypes.PyDLL(None).sleep(600),
    "unpicklable result": threading.Lock,
    "unpicklable error": lambda: (_ for _ in ()).throw(HoldsALock("locked")),
    "error that will not unpickle": lambda: (_ for _ in ()).throw(WillNotUnpickle(1, 2)),
    "error that breaks its pickle": lambda: (_ for _ in ()).throw(BreaksItsPickle("gone")),
    "system exit": lambda: (_ for _ in ()).throw(SystemExit(4)),
    "recursion": lambda: (lambda f: f(f))(lambda f: f(f)),
    "keyboard interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "no str": lambda: (_ for _ in ()).throw(CannotBePrinted),
    "short c sleep": lambda: ctypes.CDLL(None).usleep(1_900_000),
    "too large a result": lambda: bytes(1_000_000_000),
}


def start_method(_: int) -> str:
    """Of what the item would start with multiprocessing."""
    return multiprocessing.get_start_method()


def act(item: Any) -> Any:
    """Do what the item says; anything else comes back as it is."""
    return FAULTS[item]() if isinstance(item, str) and item in FAULTS else item


def act_and_tell(item: Any, folder: str) -> Any:
    """As `act`, leaving a mark for each call."""
    with open(Path(folder, f"{item}"), "ab") as file:
        file.write(b"x")
    return act(item)


def wait_to_be_killed_once(item: int, folder: str) -> int:
    """Item 5 waits at its first call, for somebody outside to kill its process."""
    mark = Path(folder, "pid")
    if item == 5 and not mark.exists():
        mark.with_suffix(".new").write_text(str(os.getpid()))
        mark.with_suffix(".new").rename(mark)
        time.sleep(600)
    return item


def fails_twice(item: int, folder: str) -> int:
    """A transient error: the first two calls of each odd item fail."""
    mark = Path(folder, f"calls-{item}")
    calls = len(mark.read_bytes()) if mark.exists() else 0
    with open(mark, "ab") as file:
        file.write(b"x")
    if item % 2 and calls < 2:
        raise ConnectionError("not now")
    return item


def draws(item: int, *, rng: np.random.Generator) -> float:
    return float(rng.normal())


def draws_after_trouble(item: int, folder: str) -> tuple[float, float]:
    """As `draws_in_all_ways`; before that some items fail at their first call, and some take their process along."""
    mark = Path(folder, f"trouble-{item}")
    if item % 10 in (3, 7) and not mark.exists():
        mark.touch()
        random.random()
        np.random.rand()
        if item == 17 and os.environ.get("ADMF_DASK_MAY_DIE"):
            os._exit(3)
        raise ConnectionError("not now")
    return draws_in_all_ways(item)


def draws_in_all_ways(item: int) -> tuple[float, float]:
    return random.random(), float(np.random.rand())


def draws_before_and_after(item: int) -> tuple[float, float, float, float]:
    """As `draws_in_all_ways`, twice, with a pause in which another thread may go on."""
    first = draws_in_all_ways(item)
    time.sleep(0.005)
    return (*first, *draws_in_all_ways(item))


def draws_while_dask_measures(item: int) -> tuple[float, float]:
    """As `draws_in_all_ways`; meanwhile the event loop of the process looks at a message, as it does at any time."""
    sizeof({number: number for number in range(1_000)})
    return draws_in_all_ways(item)


def remembers(item: int, memory: list[int] = []) -> int:  # noqa: B006 - state that leaks is the point
    memory.append(item)
    return len(memory)


def sleeps(item: int) -> int:
    time.sleep(item / 1000)
    return item


def sleeps_in_thread(item: int) -> int:
    """Returns which one."""
    sleeps(item)
    return threading.get_ident()


def holds_or_sleeps(item: int) -> int:
    """Item 11 holds the interpreter for ever; all others take most of their time."""
    if item == 11:
        ctypes.PyDLL(None).sleep(600)
    time.sleep(0.5)
    return item


def sleeps_or_acts(item: Any) -> Any:
    """An innocent item takes a while, so that faults meet neighbours at work."""
    return act(item) if isinstance(item, str) else sleeps(item)


WITH_A_CRASH = [*[1] * 1_000, "segfault", *[1] * 500]


def crashes_once_recorded(item: Any, journal: str) -> Any:
    """A text waits for the first block in the journal, and falls over."""
    while isinstance(item, str):
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"file:{journal}/journal.sqlite?mode=ro", uri=True)) as found,
        ):
            if found.execute("SELECT count(*) FROM block").fetchone()[0]:
                fall_over()
    return sleeps(item)


def gives_one(item: Any, data: Any = None) -> int:
    return 1


def begins_to_hang(item: int | None, folder: str) -> None:
    """A number leaves a mark and does not return."""
    if item is not None:
        Path(folder, str(item)).touch()
        ctypes.CDLL(None).sleep(600)
