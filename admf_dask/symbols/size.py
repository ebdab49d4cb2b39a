"""How much memory a price file becomes: a look at its footer, or at its first lines, before anything is read.

The largest symbols run first, so what they take must be known before one has run.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any

from admf_dask.steps.readers import PARQUET

if TYPE_CHECKING:
    from admf_dask.steps import FrameReader

COPIES = 3.0
"""Frames of the size of the input that a function holds at its peak: the input, what it makes of it, and a part of that again
while it is made or written. A judgement, not a measurement."""
UNKNOWN = 10.0
"""Bytes of a frame for each byte of a file that cannot be looked at: about what compressed daily bars become."""
SAMPLE = 64 * 1024


def frame_bytes(frame: Any) -> int:
    """Bytes of a frame in memory, 0 for anything else. Costs microseconds; text that is Python objects counts by pointer."""
    usage = getattr(frame, "memory_usage", None)
    if usage is None:
        return int(getattr(frame, "nbytes", 0))
    used = usage()
    return int(used if isinstance(used, int) else used.sum())


def memory_per_byte(path: str | None, reader: FrameReader | None = None) -> float:
    """Bytes that a symbol takes while it is evaluated, for each byte of its file; without a path, for each byte of a frame."""
    if path is None:
        return COPIES
    try:
        return COPIES * (_of_parquet(path) if path.endswith(PARQUET) else _of_csv(path, reader))
    except Exception:  # noqa: BLE001 - a file that is broken in any way fails by name when its turn comes
        return COPIES * UNKNOWN


def _of_parquet(path: str) -> float:
    """By the footer: rows of 8 bytes in each column, or more where text is longer. 0.3 ms."""
    import os

    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        facts = file.metadata
        groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
        size = sum(
            max(8 * group.num_rows, group.column(place).total_uncompressed_size)
            for group in groups
            for place in range(group.num_columns)
        )
    return float(size / os.path.getsize(path))


def _of_csv(path: str, reader: FrameReader | None) -> float:
    """By the first 64 KiB, as a frame."""
    import pandas as pd

    with open(path, "rb") as file:
        packed = file.read(SAMPLE)
    text = zlib.decompressobj(wbits=31).decompress(packed) if path.endswith(".gz") else packed
    lines = text[: text.rindex(b"\n") + 1]
    marks: dict[str, Any] = {} if reader is None else {"sep": reader.separator, "decimal": reader.decimal}
    table = pd.read_csv(io.BytesIO(lines), **marks)
    return int(table.memory_usage(deep=True).sum()) / len(lines) * len(text) / len(packed)
