"""What became of items: `Outcome` for people, `Block` and `Failure` for travel, journal and page.

Outcomes are records, never exceptions: a failed item is a row with its traceback. A worker answers a chunk with one
`Block`, packed as one `bytes` object, because Dask sends containers element by element and one frame costs nothing.
"""

from __future__ import annotations

import pickle
import traceback as traceback_module
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import TaskError, TaskFailed, TaskTimeout, WorkerDied

Floats = NDArray[np.float64]
_KINDS: dict[str, type[TaskError]] = {"error": TaskFailed, "died": WorkerDied, "timeout": TaskTimeout}
_MESSAGE_LIMIT = 4_000
_ON_WORKER = "Traceback on the worker:"
_TRACEBACK_LIMIT = 40_000


class EqualResultsWarning(UserWarning):
    """All backtests of a sweep gave the same: what was varied has no effect."""


class NothingRanksWarning(UserWarning):
    """All scores are NaN: there is no best."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no value. Always picklable, whatever the exception was."""

    kind: str
    """`error` (the function raised), `died` (its process did) or `timeout`."""
    error_type: str
    """The exception's class name, with its module unless it is a builtin."""
    message: str
    traceback: str
    """The traceback on the worker as text."""
    pickled: bytes | None = field(default=None, repr=False)
    """The exception itself, if it survived a round trip through pickle."""

    @classmethod
    def from_exception(cls, error: BaseException, *, inside: str | None = None, kind: str = "error") -> Failure:
        """Record `error`; the first frames of the traceback are left out as long as they are of the folder `inside`."""
        trail = error.__traceback__
        while inside and trail is not None and trail.tb_next and trail.tb_frame.f_code.co_filename.startswith(inside):
            trail = trail.tb_next
        try:
            text = "".join(traceback_module.format_exception(type(error), error, trail))
            message = str(error)
        except BaseException as broken:  # noqa: BLE001 - a user's __str__ may do anything
            text = message = f"<this exception cannot be printed: {type(broken).__name__}>"
        if len(text) > _TRACEBACK_LIMIT:
            half = _TRACEBACK_LIMIT // 2
            text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
        return cls(kind, _qualified(type(error)), message[:_MESSAGE_LIMIT], text, _survivor(error))

    def exception(self, item: Any = None) -> BaseException:
        """The original exception where it could travel, else the `TaskError` of this kind with the same words."""
        error: BaseException | None = None
        if self.pickled is not None:
            try:
                error = pickle.loads(self.pickled)
            except Exception:  # noqa: BLE001 - a class the driver cannot import; the words remain
                error = None
        if isinstance(error, TaskError) and error.item is None:
            error.item = item
        if error is None:
            error = _KINDS[self.kind](self.message if self.kind != "error" else self.summary, item=item)
        known = any(note.startswith(_ON_WORKER) for note in getattr(error, "__notes__", ()))
        if self.traceback and not known:
            error.add_note(f"{_ON_WORKER}\n{self.traceback}")
        return error

    @property
    def summary(self) -> str:
        """One line: class and message."""
        first = self.message.strip().splitlines()[0] if self.message.strip() else ""
        return f"{self.error_type}: {first}" if first else self.error_type


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One failed item of a block."""

    index: int
    seconds: float
    failure: Failure
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Curve:
    """A line that belongs to an item, thinned to be drawn: the equity of a backtest."""

    index: int
    x: NDArray[np.float64]
    """Milliseconds since the epoch, or positions; ascending, shape (n,)."""
    y: NDArray[np.float32]
    dates: bool
    """Whether `x` are moments."""


@dataclass(frozen=True, slots=True)
class Block:
    """What a worker made of the items in `[start, stop)`: columns for what has a value, records for what failed.

    Where a run goes on from a journal, start and stop count places among the items that were left to do; `indices`, failures
    and everything else that a caller sees stand for positions among all items.

    A block of an optimisation holds float columns; a block of a map holds a pickled list of values, and columns too where these
    have numbers to rank by. Either way `indices` says which items the rows belong to, ascending; with `keep=n` these are the
    best n of the chunk.
    """

    start: int
    stop: int
    indices: NDArray[np.int64]
    columns: dict[str, Floats] | None
    payload: bytes | None
    seconds: NDArray[np.float32]
    """Per row; a batch objective's time is divided evenly."""
    failures: tuple[FailedItem, ...]
    evaluated: int
    """Items that were called, failures included, before `keep=` left any out."""
    rejected: int
    """Items that a constraint turned away."""
    busy: float
    """Seconds spent in `[start, stop)`, constraints and packing included."""
    worker: str
    failed: int = 0
    """Number of failures; more than `len(failures)` when a run with `keep=n` has more than it records."""
    rejected_example: int | None = None
    attempts: dict[int, int] = field(default_factory=dict)
    """Item -> how often it was called, for items with a value that needed more than one call."""
    curves: tuple[Curve, ...] = ()
    """Of the best few rows, for whoever draws them."""

    def pack(self) -> bytes:
        """One `bytes` object for the wire; of rows without a gap 8 bytes for each column and next to nothing else."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields |= {"indices": _folded_range(self.indices), "seconds": _folded_repeats(self.seconds)}
        return pickle.dumps(tuple(fields.values()), protocol=5)

    @classmethod
    def unpack(cls, packed: bytes) -> Block:
        """The reverse of `pack`."""
        fields = dict(zip(cls.__dataclass_fields__, pickle.loads(packed), strict=True))
        if isinstance(indices := fields["indices"], range):
            fields["indices"] = np.arange(indices.start, indices.stop)
        if isinstance(seconds := fields["seconds"], tuple):
            fields["seconds"] = np.repeat(*seconds)
        return cls(**fields)

    def values(self) -> list[Any]:
        """The values of a map's block, in the order of `indices`. May run user code (unpickling)."""
        return [] if self.payload is None else list(pickle.loads(self.payload))


def _folded_range(indices: NDArray[np.int64]) -> NDArray[np.int64] | range:
    if not len(indices):
        return indices
    whole = range(int(indices[0]), int(indices[0]) + len(indices))
    return whole if np.array_equal(indices, np.arange(whole.start, whole.stop)) else indices


def _folded_repeats(
    seconds: NDArray[np.float32],
) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Quick items are timed in groups, so the same number stands there many times in a row."""
    changes = np.flatnonzero(seconds[1:] != seconds[:-1]) + 1
    if 4 * len(changes) >= len(seconds):
        return seconds
    begins = np.concatenate([[0], changes])
    return seconds[begins], np.diff(begins, append=len(seconds))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: a value, or an error that says whose fault it was."""

    index: int
    """Its position among the items."""
    item: Any
    value: Any
    """What the function returned; None for a failure."""
    error: BaseException | None
    """The item's own exception, or `WorkerDied`, `TaskTimeout`, `TaskFailed`; None where it has a value."""
    traceback: str | None
    """The traceback on the worker as text, or None."""
    seconds: float
    """What it took on the worker; of quick items the mean of those of a few milliseconds."""
    worker: str
    """The name of the worker that did it."""
    attempts: int
    """How often it was called."""

    @property
    def ok(self) -> bool:
        """Whether the item has a value."""
        return self.error is None


def error_words(error: BaseException | None) -> str:
    """`ValueError: not enough bars`; safe for an exception that cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's __str__ may do anything
        return f"{type(error).__name__}: <this exception cannot be printed>"


def _qualified(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _survivor(error: BaseException) -> bytes | None:
    """`error` pickled, if it comes back as the same class; tried here so that no driver ever fails on it."""
    try:
        packed: bytes = cloudpickle.dumps(error.with_traceback(None))
        survived = type(pickle.loads(packed)).__qualname__ == type(error).__qualname__
    except BaseException:  # noqa: BLE001 - __reduce__ and __setstate__ are user code
        return None
    return packed if survived and len(packed) < 1_000_000 else None
