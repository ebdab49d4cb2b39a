"""`Outcomes`: what became of the items of a map, in item order."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from admf_dask.errors import TaskError
from admf_dask.outcomes import Block, Failure, Outcome, error_words
from admf_dask.policy import Policy
from admf_dask.progress.afterwards import told_of
from admf_dask.rich import box
from admf_dask.runtime.driver import Run
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.replay import Audit, Replay, audit, replay
from admf_dask.text import failed_words, format_count, format_seconds, others_are, short

if TYPE_CHECKING:
    import pandas as pd


class FailedItemsWarning(UserWarning):
    """Some items of a run failed; the others are in the result."""


def map_evaluator(function: Callable[..., Any], items: Any, data: Any, policy: Policy) -> MapEvaluator:
    """Check the call, and make the evaluator. Raises TypeError with the line that was probably meant."""
    if not callable(function):
        raise TypeError(
            f"expected a function, but got {function!r:.60} ({type(function).__name__}). "
            "Write `session.map(function, items)`, without calling the function"
        )
    if hasattr(items, "iloc"):
        if hasattr(items, "columns"):
            raise TypeError(
                "items must be a sequence, but got a DataFrame, which lists its columns; for its rows write "
                "frame.to_dict('records')"
            )
        items = list(items)  # items[i] is the i-th of them, whatever the index of a Series says
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")) or isinstance(items, (str, bytes, dict)):
        if isinstance(items, (str, bytes, dict)) or not hasattr(items, "__iter__"):
            raise TypeError(
                f"items must be a sequence, but got {items!r:.60} ({type(items).__name__}); write `[...]` around it"
            )
        items = list(items)
    return MapEvaluator(function, items, () if data is None else (data,), policy)


class Outcomes(Sequence[Outcome]):
    """The outcomes of a map, in item order; a sequence of `Outcome`.

    After an interrupt it holds what had finished. Immutable, so it may be read from any thread.
    """

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        *,
        name: str = "map",
        total: int | None = None,
        evaluator: MapEvaluator | None = None,
        failures: Mapping[int, Failure] | None = None,
        elapsed: float = 0.0,
    ) -> None:
        """`total` is the number of items of the run, more than there are outcomes after an interrupt."""
        self._evaluator, self._recorded = evaluator, failures or {}
        self._outcomes = tuple(outcomes)
        self.name = name
        self.total = len(self._outcomes) if total is None else total
        self.elapsed = elapsed
        """Seconds that the run took."""

    @classmethod
    def gather(cls, run: Run, items: Sequence[Any]) -> Self:
        """Run to the end. Raises KeyboardInterrupt or ClusterLost with `.partial`; TaskError if every item failed."""
        found: list[Outcome] = []
        failed: dict[int, Failure] = {}
        parts: dict[str, Any] = {"name": run.title.name, "evaluator": run.evaluator, "failures": failed}
        began = time.monotonic()
        try:
            with contextlib.closing(run.__iter__()) as blocks:
                for block in blocks:
                    found.extend(outcomes_of(block, items))
                    failed.update({item.index: item.failure for item in block.failures})
        except BaseException as error:
            partial = cls(sorted(found, key=_index), total=run.total, elapsed=time.monotonic() - began, **parts)
            error.partial = partial  # type: ignore[attr-defined]
            raise
        result = cls(sorted(found, key=_index), elapsed=time.monotonic() - began, **parts)
        try:
            warn_of_failures(len(result), result._failed, "result")
        except TaskError as error:
            error.partial = result  # type: ignore[attr-defined]
            raise
        return result

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        """The outcome at a position."""
        return self._outcomes[index]

    def __len__(self) -> int:
        """Number of outcomes."""
        return len(self._outcomes)

    @property
    def _failed(self) -> list[Outcome]:
        return [outcome for outcome in self._outcomes if not outcome.ok]

    def values(self) -> list[Any]:
        """The values, in item order. Raises the first error if an item failed, with the item named in a note."""
        for outcome in self._failed:
            assert outcome.error is not None
            outcome.error.add_note(f"item {outcome.index}: {outcome.item!r:.200}")
            raise outcome.error
        return [outcome.value for outcome in self._outcomes]

    def replay(self, i: int) -> Replay:
        """Do item i (a position among the items) again, alone in a fresh process with the same seed, and compare.

        Costs tens of milliseconds and what the item takes. Raises IndexError if the run did not come to it.
        """
        at = {outcome.index: outcome for outcome in self._outcomes}
        i = i + self.total if i < 0 else i
        if i not in at or self._evaluator is None:
            raise IndexError(
                f"this run has no outcome of item {i} (it has {format_count(len(at))} of {format_count(self.total)})"
            )
        return replay(self._evaluator, i, self._recorded.get(i, at[i].value))

    def audit(self, k: int = 10, *, seed: int = 0) -> Audit:
        """`replay` of k random items: finds state that leaks between items. Its `agrees` says whether all came out alike."""
        return audit([outcome.index for outcome in self._outcomes], k, seed, self.replay)

    @property
    def failures(self) -> pd.DataFrame:
        """One row per failed item: index `item index`; item, error_type, message, traceback, seconds, attempts."""
        import pandas as pd

        rows = [
            (o.item, *error_words(o.error).split(": ", 1), o.traceback, o.seconds, o.attempts) for o in self._failed
        ]
        index = pd.Index([o.index for o in self._failed], name="index", dtype="int64")
        return pd.DataFrame(
            rows, index=index, columns=["item", "error_type", "message", "traceback", "seconds", "attempts"]
        )

    @property
    def frame(self) -> pd.DataFrame:
        """One row per item: item, value, ok, error, seconds, worker, attempts."""
        import pandas as pd

        rows = [
            (
                o.item,
                o.value,
                o.ok,
                None if o.ok else error_words(o.error),
                o.seconds,
                o.worker,
                o.attempts,
            )
            for o in self
        ]
        index = pd.Index([o.index for o in self], name="index", dtype="int64")
        return pd.DataFrame(
            rows, index=index, columns=["item", "value", "ok", "error", "seconds", "worker", "attempts"]
        )

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens without a network: counts, what became of each item, failures with tracebacks.

        Returns the path; its folder is made where it is missing. About 4 MB, most of them the library that draws; costs a second.
        Raises OSError where it cannot be written.
        """
        from admf_dask.page.report import save_report

        # An item that a run did not come to has no name here.
        items: dict[int, Any] = {outcome.index: outcome.item for outcome in self}
        every = [items.get(index, "not done") for index in range(self.total)]
        return save_report(
            told_of(every, self, kind="map", name=self.name, elapsed=self.elapsed, total=self.total), Path(path)
        )

    def __repr__(self) -> str:
        """Counts."""
        failed = len(self._failed)
        missing = f", {format_count(self.total - len(self))} not done" if self.total > len(self) else ""
        return (
            f"<Outcomes of {self.name}: {format_count(len(self) - failed)} ok, {format_count(failed)} failed{missing}>"
        )

    def _repr_html_(self) -> str:
        """Counts, and the first failures or values as a table."""
        failed = len(self._failed)
        shown = self.failures[["item", "error_type", "message"]] if failed else self.frame[["item", "value", "seconds"]]
        words = f"{self.name}: {format_count(len(self) - failed)} ok, {format_count(failed)} failed"
        missing = f"{format_count(self.total - len(self))} not done" if self.total > len(self) else ""
        return box("Outcomes", words, missing, f"took {format_seconds(self.elapsed)}", table=shown)


def outcomes_of(block: Block, items: Sequence[Any]) -> Iterator[Outcome]:
    """The outcomes in a block of a map."""
    rows = zip(block.indices.tolist(), block.values(), block.seconds.tolist(), strict=True)
    for index, value, seconds in rows:
        yield Outcome(index, items[index], value, None, None, seconds, block.worker, block.attempts.get(index, 1))
    for failed in block.failures:
        item = items[failed.index]
        error = failed.failure.exception(item)
        yield Outcome(
            failed.index, item, None, error, failed.failure.traceback, failed.seconds, block.worker, failed.attempts
        )


def warn_of_failures(total: int, failed: Sequence[Outcome], where: str) -> None:
    """Warn once with count, first error and where to look; raise if nothing succeeded."""
    if not failed:
        return
    first = failed[0]
    words = failed_words(len(failed), total, "item", f"{short(first.item, 200)}: {error_words(first.error)}")
    if len(failed) == total:
        raise TaskError(words, item=first.item) from first.error
    warnings.warn(
        f"{words}. {others_are(total - len(failed)).capitalize()} in `{where}`; what failed in `{where}.failures`",
        FailedItemsWarning,
        stacklevel=4,
    )


def _index(outcome: Outcome) -> int:
    return outcome.index
