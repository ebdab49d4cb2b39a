"""A Parquet file as a frame, as pandas reads it, in half the time and with less memory where it holds plain numbers and times.

`pandas.read_parquet` goes through Arrow's machinery for data sets of many files, which costs a millisecond for each file and 5 MB
once: a tenth of what a small symbol costs in all. One file needs only its own reader.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

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
            with warnings.catch_warnings():
                # Older Arrow makes frames in a way that pandas warns of; pandas says nothing of it either.
                warnings.filterwarnings("ignore", "make_block is deprecated", DeprecationWarning)
                plain: pd.DataFrame = table.to_pandas(use_threads=False, self_destruct=True)
            return plain
    read: pd.DataFrame = pd.read_parquet(path)
    return read


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or (types.is_timestamp(kind) and kind.tz is None)
    )
