"""Doing an item again, alone, in a fresh process, and saying whether it comes out the same.

An item that does not agree with itself has found state that leaks between items (a global, a cache, a default argument), or
chance without a seed, or time.
"""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from admf_dask.errors import TaskTimeout, WorkerDied
from admf_dask.identity import content_key
from admf_dask.local import run_isolated_process
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.runtime.alarm import GRACE
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.job import Watch
from admf_dask.runtime.pack import pack_evaluator
from admf_dask.space.part import Ranges, part_of
from admf_dask.text import format_count

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Replay:
    """An item done again."""

    index: int
    item: Any
    agrees: bool
    """Whether value, or type and words of the error, are the same to the last bit."""
    before: Any
    """The value of the run, or the error in words."""
    now: Any
    """The value when it was done again, or the error in words."""
    traceback: str | None
    """Of the error when it was done again."""

    def __repr__(self) -> str:
        """One sentence."""
        verdict = "agrees" if self.agrees else f"DISAGREES: was {self.before!r:.100}, is {self.now!r:.100}"
        return f"<Replay of {self.item!r:.100}: {verdict}>"


class Audit(Sequence[Replay]):
    """Some items done again, each alone in a fresh process."""

    def __init__(self, replays: Iterable[Replay]) -> None:
        """Keep them."""
        self._replays = tuple(replays)

    @property
    def agrees(self) -> bool:
        """Whether all came out as in the run."""
        return all(replay.agrees for replay in self._replays)

    @property
    def disagreements(self) -> list[Replay]:
        """Those that did not."""
        return [replay for replay in self._replays if not replay.agrees]

    @property
    def frame(self) -> pd.DataFrame:
        """One row each: item, agrees, before, now; index `index`."""
        import pandas as pd

        rows = [(replay.item, replay.agrees, replay.before, replay.now) for replay in self._replays]
        index = pd.Index([replay.index for replay in self._replays], name="index", dtype="int64")
        return pd.DataFrame(rows, index=index, columns=["item", "agrees", "before", "now"])

    def __len__(self) -> int:
        """How many."""
        return len(self._replays)

    @overload
    def __getitem__(self, index: int) -> Replay: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Replay]: ...
    def __getitem__(self, index: int | slice) -> Replay | Sequence[Replay]:
        """One of them."""
        return self._replays[index]

    def __repr__(self) -> str:
        """How many agree, and the first that does not."""
        wrong = self.disagreements
        first = f"; first {wrong[0]!r}" if wrong else ""
        return f"<Audit: {format_count(len(self) - len(wrong))} of {format_count(len(self))} agree{first}>"


def replay(evaluator: MapEvaluator, index: int, before: Any) -> Replay:
    """Do item `index` again, with the seed of the run; `before` is its value, or a `Failure`."""
    now, traceback = _read(_alone(evaluator, index))
    was = _words(before) if isinstance(before, Failure) else before
    failed = isinstance(before, Failure), traceback is not None
    return Replay(index, evaluator.items[index], failed[0] == failed[1] and _same(was, now), was, now, traceback)


def audit(indices: Sequence[int], count: int, seed: int, again: Callable[[int], Replay]) -> Audit:
    """`count` of the `indices`, drawn without replacement, done again."""
    if type(count) is not int or count < 1:
        raise ValueError(
            f"audit takes the number of items to do again, a whole number of at least 1, but got {count!r}"
        )
    chosen = random.Random(seed).sample(range(len(indices)), min(count, len(indices)))
    return Audit(again(int(indices[place])) for place in sorted(chosen))


def _alone(evaluator: MapEvaluator, index: int) -> Block | Failure:
    one = replace(evaluator, items=part_of(evaluator.items, Ranges.of([(index, index + 1)])), interruptible=False)
    timeout = evaluator.policy.timeout
    # The soft stop inside comes first; this one is for what does not return.
    call = run_isolated_process.options(timeout=None if timeout is None else timeout + 2 * GRACE)
    try:
        return Block.unpack(call(_evaluate, pack_evaluator(one)[0]))
    except TaskTimeout as error:
        return Failure("timeout", "TaskTimeout", str(error), "")
    except WorkerDied as error:
        return Failure("died", "WorkerDied", str(error), "")


def _evaluate(packed: bytes) -> bytes:
    evaluator: MapEvaluator = pickle.loads(packed)
    return evaluator(0, 1, 1e9, Watch(threading.Event(), None)).pack()


def _read(block: Block | Failure) -> tuple[Any, str | None]:
    """The value, or the error in words and its traceback."""
    if isinstance(block, Failure):
        return _words(block), block.traceback
    if block.failures:
        failed: FailedItem = block.failures[0]
        return _words(failed.failure), failed.failure.traceback
    if block.payload is not None:
        return block.values()[0], None
    if not len(block.indices):
        return "a constraint rejects it", ""
    return {name: float(column[0]) for name, column in (block.columns or {}).items()}, None


def _words(failure: Failure) -> str:
    # How a process died is told in other words by its nanny than by who waits for it.
    return failure.error_type if failure.kind != "error" else failure.summary


def _same(left: Any, right: Any) -> bool:
    try:
        return content_key(left) == content_key(right)
    except TypeError:
        return bool(left == right)
