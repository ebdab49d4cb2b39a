"""`SharedData`: what travels instead of the data, and what each process has mapped."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from admf_dask.errors import SessionError
from admf_dask.runtime.shared.arrival import arrived_path, local_path
from admf_dask.runtime.shared.guarded import taking
from admf_dask.runtime.shared.parcel import load
from admf_dask.text import format_bytes

_MOST = 64
_mapped: OrderedDict[str, _Mapped] = OrderedDict()
_lock = threading.Lock()
_travelling: ContextVar[list[SharedData] | None] = ContextVar("travelling", default=None)


class SharedData:
    """A handle of a few hundred bytes on data that lies once on this machine; made by `Session.share`.

    Give it as `data=` and the function gets the data itself, or send it to a task and ask for `.value` there. It can be
    pickled, also into Dask graphs. It lives as long as its session. Thread-safe.
    """

    __slots__ = ("key", "path", "size", "words")

    def __init__(self, path: str, size: int, words: str) -> None:
        """`path` is the driver's file of `size` bytes, named by its content; `words` say what it is."""
        self.path, self.size, self.words = path, size, words
        self.key = os.path.basename(path)

    @property
    def value(self) -> Any:
        """The data as they were shared, mapped once in each process and read-only; `.value.copy()` can be written.

        A frame to which somebody added a column is another object than the next `.value`. Costs microseconds, the first time
        about a tenth of a millisecond for each array; pages are read when touched. Raises SessionError when it is gone with
        its session.
        """
        return self.taking()()

    def taking(self) -> Callable[[], Any]:
        """What this thread calls to get the data. Raises SessionError as `value`."""
        return self._here().taking()

    def _here(self) -> _Mapped:
        with _lock:
            if self.key in _mapped:
                _mapped.move_to_end(self.key)
                return _mapped[self.key]
        try:
            mapped = _Mapped(load(local_path(self.path, self.size)))
        except FileNotFoundError as error:
            raise SessionError(
                f"the shared {self.words} is not on this machine: its session was closed, or it was sent here by other means "
                "than a run of a session; share it again, or give it as data="
            ) from error
        with _lock:
            mapped = _mapped.setdefault(self.key, mapped)
            while len(_mapped) > _MOST:
                _mapped.popitem(last=False)
        return mapped

    def identity_parts(self) -> tuple[Any, ...]:
        """What it is for a journal: its content, wherever it lies."""
        return (self.value,)

    def __reduce__(self) -> tuple[Any, ...]:
        """Path and facts, not the data."""
        if (found := _travelling.get()) is not None:
            found.append(self)
        return SharedData, (self.path, self.size, self.words)

    def __eq__(self, other: object) -> bool:
        """Equal content."""
        return isinstance(other, SharedData) and other.key == self.key

    def __hash__(self) -> int:
        """By content."""
        return hash(self.key)

    def __repr__(self) -> str:
        """What and how much."""
        return f"<SharedData: {self.words}, {format_bytes(self.size)}>"


class _Mapped:
    """What this process has mapped, guarded for each thread."""

    def __init__(self, value: Any) -> None:
        self._value, self._of_thread = value, threading.local()

    def taking(self) -> Callable[[], Any]:
        try:
            take: Callable[[], Any] = self._of_thread.take
        except AttributeError:
            take = self._of_thread.take = taking(self._value)
        return take


@contextmanager
def travelling() -> Iterator[list[SharedData]]:
    """The handles that are pickled meanwhile in this thread."""
    found: list[SharedData] = []
    token = _travelling.set(found)
    try:
        yield found
    finally:
        _travelling.reset(token)


def value_of(data: Any) -> Any:
    """The data behind a handle; anything else as it is."""
    return data.value if isinstance(data, SharedData) else data


def forget(path: str) -> None:
    """Let go of what this process has mapped of a driver's file, so that its memory is free when nobody uses it."""
    with _lock:
        _mapped.pop(os.path.basename(path), None)


def let_go(paths: list[str]) -> None:
    """On a worker: forget these files of the driver, and remove what was received of them."""
    for path in paths:
        forget(path)
        with contextlib.suppress(OSError):
            arrived_path(path).unlink()


def describe(value: Any) -> str:
    """A value in a few words: `DataFrame 2,148 x 5`, `array float64 (100, 3)`, `mapping of 50`."""
    kind = type(value).__name__
    if hasattr(value, "columns") and hasattr(value, "shape"):
        return f"{kind} {value.shape[0]:,} x {value.shape[1]}"
    if kind == "ndarray":
        return f"array {value.dtype} {value.shape}"
    if hasattr(value, "keys") and hasattr(value, "__len__"):
        return f"{kind} of {len(value):,}"
    return kind
