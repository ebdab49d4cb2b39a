"""What a worker does with a chunk: call the function on each item, and pack what became of them.

`MapEvaluator` keeps whatever the function returns; the evaluators of scores in `score` build on it. None of them ever raises
because of an item.

Longer than other modules: what the hot loop fills, how it stops and how it goes on after a failure are read together.
"""

from __future__ import annotations

import os
import pickle
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from time import monotonic_ns, perf_counter
from typing import Any, Protocol

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from admf_dask.errors import TaskError, TaskTimeout
from admf_dask.objectives import Scores
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.policy import Policy, pause_after
from admf_dask.runtime.alarm import SoftStop
from admf_dask.runtime.calls import BEGAN, Cells, Takes, prepare
from admf_dask.runtime.chunks import Budget
from admf_dask.runtime.shared import SharedData, taking, value_of
from admf_dask.text import did_you_mean, format_bytes

GROUP_SECONDS, GROUP_MOST = 0.005, 512
"""How long items that are timed together may take, and how many they are at the most. Between two groups a dozen functions are
called whose code and data have left the caches meanwhile, so that costs several times what it does in a loop of its own.
"""
LATE = 3
"""Times that, and a group ends with the item under way: items may turn slow at once, and nobody could take the rest."""
QUICK_SECONDS = 0.0005
"""What takes longer is timed by itself, and told by itself."""
TIMEOUT_SHARE = 0.02
"""The part of a timeout that a group may take, as an item that is stopped is said to have begun with its group."""
LARGEST_RESULT = 500_000_000
"""Bytes of one pickled result."""
_HERE = os.path.dirname(__file__)


class Watch(Protocol):
    """What an evaluator tells while it works, and what tells it to stop."""

    cancelled: threading.Event

    def claim(self, until: int) -> int:
        """Say that items before `until` will be begun without another look; returns how far that is still right: less where slots
        with nothing to do have been given the rest of the chunk, 0 if the run is over.
        """

    def note(self, start: int, count: int) -> tuple[Cells, int]:
        """Executing `count` items from `start` on; returns the cells, as below."""

    def cells_of_single_items(self) -> tuple[Cells, int]:
        """Where to store the index of each item before it is called, `cells[at]`, and when it began, `cells[at + BEGAN]`."""


@dataclass(slots=True)
class Rows:
    """What has been gathered of a chunk so far."""

    spans: list[Sequence[int]] = field(default_factory=list)
    """Indices of what has a value, in pieces."""
    values: list[Any] = field(default_factory=list)
    seconds: list[tuple[float, int]] = field(default_factory=list)
    """Seconds of each item, and of how many."""
    failures: list[FailedItem] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    rejected: int = 0
    rejected_example: int | None = None
    group: int = 1
    """Items that are timed together, by how long the last ones took."""

    def add(self, span: Sequence[int]) -> None:
        """Indices of what has a value now too."""
        last = self.spans[-1] if self.spans else None
        if isinstance(last, range) and isinstance(span, range) and last.stop == span.start:
            self.spans[-1] = range(last.start, span.stop)
        else:
            self.spans.append(span)

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices and seconds of what has a value, each of shape (n,)."""
        indices = [
            np.arange(span.start, span.stop) if isinstance(span, range) else np.array(span, int) for span in self.spans
        ]
        each, counts = zip(*self.seconds, strict=True) if self.seconds else ((), ())
        seconds = np.repeat(np.array(each, np.float32), np.array(counts, np.int64))
        return np.concatenate(indices) if indices else np.empty(0, np.int64), seconds


@dataclass(slots=True)
class Stretch:
    """Items that are evaluated one after the other."""

    indices: Sequence[int]
    """Ascending."""
    make: Callable[[int, int], Iterable[Any]]
    """The items at the places `[low, high)` among those, at least one; each when it is asked for, where all might not fit into
    memory.
    """
    pairs: Iterator[tuple[int, Any]] = field(init=False)
    """Indices with their items from where one is."""

    def __post_init__(self) -> None:
        """Before the first."""
        self.go_to(0)

    @classmethod
    def of(cls, indices: Sequence[int], items: Sequence[Any]) -> Stretch:
        """Of items that are there."""
        return cls(indices, lambda low, high: items[low:high])

    def go_to(self, place: int) -> None:
        """The item at that place is the next."""
        rest = self.indices[place:]
        self.pairs = zip(rest, self.make(place, len(self.indices)) if rest else (), strict=True)


def _again(call: Callable[[Any], Any], stretch: Stretch, place: int) -> Any:
    """Call with an item that is made anew: the function may have changed what it was given before."""
    (item,) = stretch.make(place, place + 1)
    return call(item)


class CallError(TaskError):
    """The call itself is wrong, not an item of it: the run stops with this message."""


@dataclass(frozen=True)
class Keep:
    """Which rows of an optimisation come back."""

    score: str | None = None
    maximize: bool = True
    count: int | None = None
    """The best `count` of each chunk; None for all."""

    def ranking_column(self, columns: Scores) -> str | None:
        """The column that ranks. Raises CallError if that cannot be told; None if there is no row."""
        if not columns:
            return None
        if self.score is not None:
            if self.score not in columns:
                hint = did_you_mean(self.score, columns)
                raise CallError(f"score={self.score!r} must be one of the numbers that the objective returns{hint}")
            return self.score
        if len(columns) > 1:
            names = ", ".join(columns)
            raise CallError(
                f"the objective returns {len(columns)} numbers ({names}), and one of them must rank; "
                f"write optimize(..., score={next(iter(columns))!r})"
            )
        return next(iter(columns))


class OfThread(threading.local):
    """What each thread has to take the data by; it does not travel."""

    takes: Takes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Empty on arrival."""
        return OfThread, ()


@dataclass(frozen=True)
class MapEvaluator:
    """Evaluate `function(item)` or `function(item, data)` and keep the values as they are."""

    function: Callable[..., Any]
    items: Sequence[Any]
    data: tuple[Any, ...] = ()
    policy: Policy = field(default_factory=Policy)
    interruptible: bool = False
    """Whether KeyboardInterrupt means the user (this thread) or the item (a worker)."""
    keep: Keep | None = None
    """How rows rank and which come back; None where values are not scores."""
    _of_thread: OfThread = field(init=False, repr=False, compare=False, default_factory=OfThread)

    def __call__(self, start: int, stop: int, budget: float, watch: Watch) -> Block:
        """Evaluate `[start, stop)`, or the part of it that fits in `budget` seconds."""
        limit = Budget(budget, start, stop, perf_counter())
        rows = Rows()
        reached = self._evaluate(start, stop, rows, limit, watch)
        return self._pack(start, reached, rows, limit.began)

    def _evaluate(self, start: int, stop: int, rows: Rows, budget: Budget, watch: Watch) -> int:
        """As `_loop`."""

        def make(low: int, high: int) -> Iterator[Any]:
            # One at a time: they may be large.
            return map(self.items.__getitem__, range(start + low, start + high))

        return self._loop(Stretch(range(start, stop), make), start, stop, rows, budget, watch)

    def _fails(self, rows: Rows, reached: int) -> bool:
        """Whether nothing more of the chunk is to be begun because of what failed before item `reached`."""
        return self.policy.on_error == "raise" and any(failed.index < reached for failed in rows.failures)

    def _loop(self, stretch: Stretch, start: int, stop: int, rows: Rows, budget: Budget, watch: Watch) -> int:
        """Evaluate what there is in `[start, stop)`, as far as budget and chunk go; returns before which index all is done.

        A group is one item, unless items are quick; then it grows to some milliseconds, and its time is divided evenly. The
        innermost loop makes one item, stores its index, calls the function, keeps the value, and asks the clock whether items
        have turned slow; the one with which a group ends for that is timed by itself.

        All groups are in one function and take from one iterator on purpose. A CPU runs the interpreter, and with it the user's
        function, the better the longer the same steps follow one another: with a function for each group, and an iterator that
        it begins anew, items of 10 microseconds took some hundredths longer.
        """
        indices, values, seconds = stretch.indices, rows.values, rows.seconds
        if not indices:
            return max(start, watch.claim(stop))
        call, timeout, read = prepare(self.function, self._takes, self.policy.seed), self.policy.timeout, self._read
        most_seconds = GROUP_SECONDS if timeout is None else min(GROUP_SECONDS, TIMEOUT_SHARE * timeout)
        cells, at = watch.cells_of_single_items()
        had, told = len(values), len(rows.failures)
        failed: set[int] = set()
        before, low, reached, size = perf_counter(), 0, start, rows.group
        while low < len(indices):
            high = min(len(indices), low + size)
            until = stop if high == len(indices) else indices[high - 1] + 1
            end = watch.claim(until)
            if end < until:
                high = bisect_left(indices, end, low, high)
            if high == low:
                reached = max(reached, end)
                break
            late, began, now = before + LATE * most_seconds, before, before
            index, kept, group = -1, len(values), islice(stretch.pairs, high - low)
            cells[at], cells[at + BEGAN] = -1, monotonic_ns()
            while True:
                try:
                    for index, item in group:
                        began, cells[at] = now, index
                        value = call(item)
                        if type(value) is not float and read is not None:
                            value = read(value)
                        values.append(value)
                        now = perf_counter()
                        if now > late:
                            break
                    cells[at] = -1
                    break
                except BaseException as error:
                    cells[at] = -1
                    if index < 0:
                        raise
                    done = bisect_left(indices, index) + 1
                    if len(values) - had + len(failed) < done:
                        again = partial(_again, call, stretch, done - 1)
                        if not self._recovered(error, index, again, rows, watch):
                            failed.add(index)
                        now = perf_counter()
                        if now > late:
                            break
                    elif isinstance(error, SoftStop):
                        # It came when the value had just been added: the item was in time. The next one may have been in the
                        # making.
                        stretch.go_to(done)
                        group = islice(stretch.pairs, high - done)
                    else:
                        raise
            place = bisect_left(indices, index, low, high) + 1
            if place < high:
                high, end = place, index + 1
            reached, now, slow = max(reached, end), perf_counter(), now > late
            each = last = (now - before) / (high - low)
            if slow and high > low + 1:
                each, last = (began - before) / (high - low - 1), now - began
            alone = slow and index not in failed
            seconds.append((each, len(values) - kept - alone))
            if alone:
                seconds.append((last, 1))
            while told < len(rows.failures):
                one = rows.failures[told]
                spent = last if one.index == index else each
                rows.failures[told] = one if one.seconds else replace(one, seconds=spent)
                told += 1
            size = min(2 * size, GROUP_MOST, int(most_seconds / max(last, 1e-9))) if last < QUICK_SECONDS else 1
            size, before, low = max(1, size), now, high
            if budget.is_spent(reached, now) or self._fails(rows, reached):
                break
        assert len(values) - had + len(failed) == low, "each item has one outcome"
        rows.group = size
        rows.add([index for index in indices[:low] if index not in failed] if failed else indices[:low])
        return reached

    def _recovered(self, error: BaseException, index: int, call: Callable[[], Any], rows: Rows, watch: Watch) -> bool:
        """Call an item that failed again where the policy says so; else, or in vain, it is a failure of the block."""
        (cells, at), policy, attempts = watch.cells_of_single_items(), self.policy, 1
        began = cells[at + BEGAN]
        while True:
            if isinstance(error, KeyboardInterrupt) and self.interruptible:
                raise error
            again = attempts <= policy.retries and isinstance(error, policy.retry_on)
            if not again or watch.cancelled.wait(pause_after(attempts)):
                seconds = (monotonic_ns() - began) / 1e9 if isinstance(error, SoftStop) else 0.0
                rows.failures.append(FailedItem(index, seconds, self._failure(error), attempts))
                return False
            attempts += 1
            try:
                cells[at + BEGAN] = monotonic_ns()
                cells[at] = index
                value = call()
                cells[at] = -1
                rows.values.append(value if self._read is None else self._read(value))
            except BaseException as next_error:  # noqa: BLE001 - as in the hot loop
                cells[at] = -1
                error = next_error
            else:
                rows.attempts[index] = attempts
                return True

    def _failure(self, error: BaseException) -> Failure:
        if not isinstance(error, SoftStop):
            if isinstance(error, ValueError) and "read-only" in str(error):
                error.add_note("Shared data are the same memory for all workers; change a copy: `data = data.copy()`")
            return Failure.from_exception(error, inside=_HERE)
        if self.policy.timeout is None:
            words = "its run was stopped"
        else:
            words = (
                f"took longer than timeout={self.policy.timeout:g} seconds and was stopped where the traceback shows"
            )
        told = TaskTimeout(words).with_traceback(error.__traceback__)
        told.__context__ = error.__context__
        stopped = Failure.from_exception(told, inside=_HERE, kind="timeout")
        return replace(stopped, error_type="TaskTimeout", pickled=None)

    @property
    def _read(self) -> Callable[[Any], Any] | None:
        """What to make of a value that is not a float already; None to keep it."""
        return None

    @property
    def _takes(self) -> Takes:
        """For each part of the data what to call to get it, as it was, for one item."""
        takes = self._of_thread.takes
        if takes is None:
            takes = tuple(part.taking() if isinstance(part, SharedData) else taking(part) for part in self.data)
            self._of_thread.takes = takes
        return takes

    @property
    def given(self) -> tuple[Any, ...]:
        """The data themselves, where they are shared."""
        return tuple(value_of(part) for part in self.data)

    def _pack(self, start: int, reached: int, rows: Rows, began: float) -> Block:
        payload = self._payload(rows)
        return make_block(start, reached, rows, began, *rows.table(), payload=payload)

    def _payload(self, rows: Rows) -> bytes:
        try:
            packed = pickle.dumps(rows.values, protocol=5)
        except Exception:  # noqa: BLE001 - tried again one by one, so that only the guilty item fails
            return self._payload_singly(rows)
        return packed if len(packed) <= LARGEST_RESULT else self._payload_singly(rows)

    def _payload_singly(self, rows: Rows) -> bytes:
        kept: list[tuple[int, Any, float]] = []
        indices, timed = rows.table()
        for index, value, seconds in zip(indices.tolist(), rows.values, timed.tolist(), strict=True):
            try:
                single = cloudpickle.dumps(value, protocol=5)
                if len(single) > LARGEST_RESULT:
                    raise OverflowError(f"{format_bytes(len(single))} is more than {format_bytes(LARGEST_RESULT)}")
                cloudpickle.loads(single)
            except BaseException as error:  # noqa: BLE001 - __reduce__ is user code
                rows.failures.append(FailedItem(index, seconds, _unpicklable(value, error)))
            else:
                kept.append((index, value, seconds))
        rows.spans[:] = [[index for index, _, _ in kept]]
        rows.values[:] = [value for _, value, _ in kept]
        rows.seconds[:] = [(seconds, 1) for _, _, seconds in kept]
        packed: bytes = cloudpickle.dumps(rows.values)
        return packed


def make_block(
    start: int,
    reached: int,
    rows: Rows,
    began: float,
    indices: NDArray[np.int64],
    seconds: NDArray[np.float32],
    *,
    columns: Scores | None = None,
    payload: bytes | None = None,
    evaluated: int | None = None,
    failed: int | None = None,
) -> Block:
    """A block of `rows`; counts that are not given follow from them."""
    return Block(
        start=start,
        stop=reached,
        indices=indices,
        columns=columns,
        payload=payload,
        seconds=seconds,
        failures=tuple(rows.failures),
        evaluated=len(indices) + len(rows.failures) if evaluated is None else evaluated,
        rejected=rows.rejected,
        busy=perf_counter() - began,
        worker=f"pid {os.getpid()}",
        failed=len(rows.failures) if failed is None else failed,
        rejected_example=rows.rejected_example,
        attempts=rows.attempts,
    )


def _unpicklable(value: Any, error: BaseException) -> Failure:
    if isinstance(error, OverflowError):
        rule = TaskError(
            f"a result must be small enough to travel back, but this {type(value).__name__} of {error}; write it to a file "
            "and return the path, or return less of it"
        )
        return Failure.from_exception(rule)
    rule = TaskError(
        f"a result must survive pickling to travel back, but {type(value).__name__} does not "
        f"({type(error).__name__}: {error}); return plain data, an array or a frame instead"
    )
    rule.__cause__ = error
    return Failure.from_exception(rule)
