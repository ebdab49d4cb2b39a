"""Recorded blocks as DataFrames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.outcomes import Block
from admf_dask.space.items import Combinable

if TYPE_CHECKING:
    import pandas as pd


def rows_frame(block: Block, items: Sequence[Any]) -> pd.DataFrame:
    """What has a value: the parameters or `item`, the scores or `value`, seconds, attempts."""
    import pandas as pd

    values: dict[str, Any] = {"value": block.values()} if block.payload is not None else dict(block.columns or {})
    attempts = [block.attempts.get(index, 1) for index in block.indices.tolist()]
    return pd.DataFrame(
        {**item_columns(items, block.indices), **values, "seconds": block.seconds, "attempts": attempts}
    )


def failures_frame(block: Block, items: Sequence[Any]) -> pd.DataFrame:
    """What failed: the parameters or `item`, kind, error_type, message, traceback, seconds, attempts."""
    import pandas as pd

    failed = block.failures
    columns = item_columns(items, np.array([one.index for one in failed], np.int64))
    for name in ("kind", "error_type", "message", "traceback"):
        columns[name] = [getattr(one.failure, name) for one in failed]
    return pd.DataFrame({**columns, "seconds": [o.seconds for o in failed], "attempts": [o.attempts for o in failed]})


def item_columns(items: Sequence[Any], positions: NDArray[np.int64]) -> dict[str, Any]:
    """The items at some positions as columns: one for each parameter of a space, else `item`."""
    if not isinstance(items, Combinable):
        return {"item": [items[position] for position in positions.tolist()]}
    return items.table(positions)
