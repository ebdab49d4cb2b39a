"""Parquet files and frames, as pandas has them, in less time and memory where they hold plain numbers and times.

`pandas.read_parquet` goes through Arrow's machinery for data sets of many files, which costs a millisecond for each file and 5 MB
once: a tenth of what a small symbol costs in all. One file needs only its own reader. And Parquet looks for repeated values in
each column, to write each once: in features, which are numbers that do not repeat, that is a third of all the work.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SAMPLE = 4096
"""Values that are looked at to see whether they repeat."""
LARGE = 2**20
"""Bytes of a table after which memory is given back."""
_ATTRS = b"PANDAS_ATTRS"
"""Where pandas before 3 keeps `frame.attrs`."""


def read_frame(path: str) -> pd.DataFrame:
    """The file, equal to what `pandas.read_parquet(path)` returns. Raises what Arrow raises. Safe in threads.

    Numbers, truth values and times without a timezone become pandas in one way only, and so does their index; where there is
    anything else, pandas itself reads. Memory: each column is let go as it becomes pandas, so the peak is little over one frame.
    """
    import pandas as pd
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with pa.OSFile(path) as source, ParquetFile(source) as file:
        schema = file.schema_arrow
        if all(_is_plain(kind) for kind in schema.types) and _ATTRS not in (schema.metadata or {}):
            table = file.read(use_threads=False, use_pandas_metadata=True)
            size = table.nbytes
            with warnings.catch_warnings():
                # Older Arrow makes frames in a way that pandas warns of; pandas says nothing of it either.
                warnings.filterwarnings("ignore", "make_block is deprecated", DeprecationWarning)
                plain: pd.DataFrame = table.to_pandas(use_threads=False, self_destruct=True)
            del table
            release_memory(size)
            return plain
    read: pd.DataFrame = pd.read_parquet(path)
    return read


def write_table(table: pa.Table, path: str) -> None:
    """Write a table; what it holds is read back the same by anybody. Raises OSError where it cannot be written.

    Columns of numbers and times whose values hardly repeat are written as they are, all others as Arrow writes them.
    """
    import pyarrow.parquet as pq

    repeating = [name for name, column in zip(table.column_names, table.columns, strict=True) if _repeats(column)]
    pq.write_table(table, path, use_dictionary=repeating)


def release_memory(used: int) -> None:
    """Give memory back that Arrow keeps for later, after something of `used` bytes: up to 100 MB after a large file.

    Costs 0.2 ms; small ones need the little that they had again at once, so they keep it.
    """
    if used >= LARGE:
        import pyarrow as pa

        pa.default_memory_pool().release_unused()


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether values of a column occur several times, by a stretch from the middle; a short table is not looked at."""
    from pyarrow import compute, types

    if not types.is_primitive(column.type):
        # Text: most often a name that stands in each row.
        return True
    if len(column) < SAMPLE:
        return False
    return bool(compute.count_distinct(column.slice((len(column) - SAMPLE) // 2, SAMPLE)).as_py() < SAMPLE // 2)


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or (types.is_timestamp(kind) and kind.tz is None)
    )
