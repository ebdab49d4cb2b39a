"""The same chunks as Dask collections, for people who compose graphs: bags of combinations, delayed tables of scores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from admf_dask.runtime.calls import Cells, cells_of_nobody
from admf_dask.runtime.score import ScoreEvaluator
from admf_dask.space import Combinable

if TYPE_CHECKING:
    import pandas as pd
    from dask.bag import Bag
    from dask.delayed import Delayed

PARTITIONS = 100


def grid_bag(grid: Combinable, npartitions: int | None) -> Bag:
    """The allowed combinations of a grid as a bag of dicts; a partition is an index range."""
    import dask.bag

    return dask.bag.from_delayed(_delayed(_allowed_rows, grid, npartitions, "combinations"))


def list_bag(items: list[Any], label: str) -> Bag:
    """Any items as a bag; a partition is an index range, and the items are one node of the graph."""
    import dask.bag

    return dask.bag.from_delayed(_delayed(_slice, items, None, label))


def _slice(start: int, stop: int, items: list[Any]) -> list[Any]:
    return items[start:stop]


def frame_of(readers: dict[str, Callable[[], Any]]) -> Any:
    """One `dask.dataframe` with a partition for each reader; the first is read now, for its columns."""
    import dask.dataframe

    if not readers:
        raise ValueError("there is no result to make a dask DataFrame of")
    meta = next(iter(readers.values()))().iloc[:0]
    return dask.dataframe.from_map(_call, list(readers.values()), meta=meta, label="symbols")


def _call(reader: Callable[[], Any]) -> Any:
    return reader()


def delayed_chunks(evaluator: ScoreEvaluator, npartitions: int | None) -> list[Delayed]:
    """The chunks of a sweep as delayed DataFrames."""
    return _delayed(_score_frame, evaluator, npartitions, "optimize", total=len(evaluator.items))


def spans(total: int, npartitions: int | None) -> list[tuple[int, int]]:
    """`total` items as at most `npartitions` ranges of nearly equal length. Raises ValueError below 1."""
    if npartitions is not None and npartitions < 1:
        raise ValueError(f"npartitions must be at least 1, but got {npartitions}")
    count = max(1, min(total, npartitions or PARTITIONS))
    return [(total * part // count, total * (part + 1) // count) for part in range(count)]


def _delayed(
    function: Callable[..., Any], shared: Any, npartitions: int | None, label: str, total: int | None = None
) -> list[Delayed]:
    import uuid

    from dask.delayed import delayed

    # Made a delayed object of its own, so that grid and function are one node of the graph and not one for each chunk.
    run = uuid.uuid4().hex
    once = delayed(shared, name=f"{label}-source-{run}", traverse=False)
    call = delayed(function, pure=False, traverse=False)
    ranges = spans(len(shared) if total is None else total, npartitions)
    return [
        call(start, stop, once, dask_key_name=(f"{label}-{run}", part)) for part, (start, stop) in enumerate(ranges)
    ]


def _allowed_rows(start: int, stop: int, grid: Combinable) -> list[dict[str, Any]]:
    allowed, broken = grid.mask(start, stop)
    if broken:
        raise broken[0][1]
    rows = grid.rows(start, stop)
    return rows if allowed is None else [rows[offset] for offset in np.flatnonzero(allowed).tolist()]


class _Unwatched:
    """A delayed chunk is nobody's run: it is not noted, and only its graph can cancel it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def claim(self, until: int) -> int:
        """Nobody takes anything."""
        return until

    def note(self, start: int, count: int) -> tuple[Cells, int]:
        """Nobody watches."""
        return self.cells_of_single_items()

    def cells_of_single_items(self) -> tuple[Cells, int]:
        return cells_of_nobody(), 0


def _score_frame(start: int, stop: int, evaluator: ScoreEvaluator) -> pd.DataFrame:
    import pandas as pd

    block = evaluator(start, stop, math.inf, _Unwatched())
    scored = pd.DataFrame(block.columns or {}, index=pd.Index(block.indices, name="combination"))
    failed = pd.DataFrame(
        {"error": [item.failure.summary for item in block.failures]},
        index=pd.Index([item.index for item in block.failures], name="combination", dtype="int64"),
    )
    table = pd.concat([scored, failed]).sort_index() if len(failed) else scored.assign(error=None)
    params = pd.DataFrame(
        [evaluator.items.rows(index, index + 1)[0] for index in table.index.tolist()], index=table.index
    )
    return pd.concat([params, table], axis=1)
