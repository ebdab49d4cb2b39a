"""A run that is over as one `Update`, from its outcomes: what a report is drawn from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask import ranking
from admf_dask.outcomes import Curve, Outcome, error_words
from admf_dask.progress.digest import FAILURES, TOP, FailureTold, Update, axes_of, in_words, labels_of


def told_of(
    items: Sequence[Any],
    outcomes: Sequence[Outcome],
    *,
    kind: str,
    name: str,
    elapsed: float,
    total: int,
    score: str | None = None,
    scores: NDArray[np.float64] | None = None,
    curves: tuple[Curve, ...] = (),
) -> Update:
    """What an observer would have been told. `scores`: of the outcomes that are ok, in their order; higher is better."""
    ok = np.array([outcome.index for outcome in outcomes if outcome.ok], np.int64)
    failed = [outcome for outcome in outcomes if not outcome.ok]
    values = np.empty(0) if scores is None else scores
    best = ranking.best(values, ok, TOP, maximize=True).tolist() if len(values) else []
    kinds: dict[str, int] = {}
    for outcome in failed:
        kinds[type(outcome.error).__name__] = kinds.get(type(outcome.error).__name__, 0) + 1
    now = time.time()
    return Update(
        run="result", kind=kind, name=name, total=total, slots=1, score=score, maximize=True, began=now - elapsed, at=now,
        state="finished" if total == len(outcomes) else "interrupted", recalled=0, done=len(outcomes),
        evaluated=len(outcomes), failed=len(failed), rejected=0, indices=ok, scores=values,
        best=tuple((float(values[at]), int(ok[at]), in_words(items[int(ok[at])])) for at in best if not np.isnan(values[at])),
        failures=tuple(_failure(outcome, now) for outcome in failed[:FAILURES]), kinds=kinds, notices=(),
        failed_items=tuple(outcome.index for outcome in failed), labels=labels_of(items), axes=axes_of(items),
        curves=curves or None,
    )  # fmt: skip


def _failure(outcome: Outcome, now: float) -> FailureTold:
    words = error_words(outcome.error)
    return FailureTold(
        outcome.index,
        in_words(outcome.item),
        type(outcome.error).__name__,
        words[:500],
        outcome.traceback or words,
        now,
    )
