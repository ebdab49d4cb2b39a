"""What a worker does with one symbol: read, call, write. A written file knows what it was made of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from admf_dask.errors import DataError, TaskError
from admf_dask.functions import function_parts
from admf_dask.identity import content_key
from admf_dask.steps import FrameReader
from admf_dask.steps.files import find_file
from admf_dask.steps.parquet import read_frame, release_memory, write_table
from admf_dask.steps.readers import read_table
from admf_dask.symbols.source import Frames, Item
from admf_dask.text import closest, did_you_mean, join_words

if TYPE_CHECKING:
    import pandas as pd

_ATTRS = b"PANDAS_ATTRS"
"""Where pandas before 3 looks for `frame.attrs`; newer Arrow keeps them by itself."""
_SEAL = b"admf_dask"


class MissingColumn(DataError, KeyError):
    """The function asked the frame for a column that it does not have: a KeyError as before, in a sentence."""

    __str__ = Exception.__str__


@dataclass(frozen=True)
class Written:
    """A frame that a worker wrote."""

    path: str
    rows: int
    bytes: int
    rows_in: int | None = None
    """Rows of the frame that was read; None without one."""
    digest: str = ""
    """Of the content of the input file: a file that was only touched is known by it."""
    found: bool = False
    """The file was there already, made of the same by a run that ended before it could note it."""

    def read(self) -> pd.DataFrame:
        """Read it."""
        return read_frame(self.path)

    @property
    def is_there(self) -> bool:
        """Whether the file still is as it was written, by its size."""
        try:
            return os.path.getsize(self.path) == self.bytes
        except OSError:
            return False


@dataclass(frozen=True)
class Task:
    """A function over symbols."""

    function: Callable[..., Any]
    options: dict[str, Any]
    pattern: str | None
    mapped: bool
    reader: FrameReader | None
    out: str | None
    key: str = ""
    """With `out`: what all its files have in common, to be written into them."""

    def identity_parts(self) -> Mapping[str, Any]:
        """What its results depend on, for the journal."""
        return {
            "the function": self.function,
            **{f"option {name!r}": value for name, value in self.options.items()},
            "where the data is": (self.pattern, self.mapped),
            "the reader": self.reader,
            "the output folder": self.out,
        }

    def own_key(self) -> str:
        """A digest of function, options and reader; nothing where their content cannot be told."""
        try:
            return content_key(function_parts(self)).hex()
        except TypeError:
            return ""

    def __call__(self, item: Item, frames: Frames | None = None) -> Any:
        """The result, or what was written of it."""
        if self.out is not None and (found := self._found(item)) is not None:
            return found
        path = None if self.pattern is None else find_file(self.pattern, item.symbol)
        given = self._given(item.symbol, path, frames)
        # Before the call, which may change what it was given.
        rows_in = len(given[0]) if given and hasattr(given[0], "__len__") else None
        columns = list(getattr(given[0], "columns", ())) if given else []
        try:
            value = self.function(item.symbol, *given, **self.options)
        except KeyError as error:
            self._explain(error, item.symbol, columns)
            raise
        if self.out is None:
            return value
        del given
        return self._write(item, value, rows_in, "" if path is None else digest_of(path))

    def _explain(self, error: KeyError, symbol: str, columns: list[Any]) -> None:
        """Raise MissingColumn where pandas did not find one: which ones there are, and how it gets its name."""
        key = error.args[0] if error.args else None
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        by_pandas = at is not None and str(at.tb_frame.f_globals.get("__name__")).startswith("pandas.")
        if not columns or not by_pandas or not isinstance(key, str) or key in columns:
            return
        names = [str(name) for name in columns]
        near = closest(key, names)
        renaming = f"{{{key!r}: {near!r}}}" if self.pattern is not None else f"{{{near!r}: {key!r}}}"
        cure = (
            f"reader=FrameReader(columns={renaming})"
            if self.pattern is not None
            else f"frame.rename(columns={renaming})"
        )
        raise MissingColumn(
            f"there is no {key!r}; the frame of {symbol} has the columns {join_words(map(repr, names[:12]))}"
            f"{'...' if names[12:] else ''}{f'; write {cure}' if near else ''}"
        ) from error

    def _given(self, symbol: str, path: str | None, frames: Frames | None) -> tuple[Any, ...]:
        if self.mapped:
            mapping: Mapping[str, Any] = {} if frames is None else frames.by_symbol
            if symbol not in mapping:
                raise DataError(f"data has no {symbol!r}{did_you_mean(symbol, map(str, mapping))}")
            return (mapping[symbol],)
        if path is None:
            return ()
        return (read_table(path) if self.reader is None else self.reader.read(path),)

    def _path(self, symbol: str) -> str:
        return os.path.join(str(self.out), f"{symbol}.parquet")

    def _found(self, item: Item) -> Written | None:
        """What an interrupted run wrote of this and could not note any more. A look of 0.3 ms where there is a file."""
        path = self._path(item.symbol)
        if not self.key or not os.path.isfile(path):
            return None
        import pyarrow.parquet as pq

        try:
            facts = pq.read_metadata(path)
            seal = json.loads((facts.metadata or {}).get(_SEAL, b"{}"))
        except (OSError, ValueError):
            return None
        if seal.get("made of") != self._made_of(item):
            return None
        return Written(path, facts.num_rows, os.path.getsize(path), seal["rows in"], seal["digest"], found=True)

    def _made_of(self, item: Item) -> list[str]:
        return [self.key, item.stamp, item.turn]

    def _write(self, item: Item, value: Any, rows_in: int | None, digest: str) -> Written:
        import pandas as pd
        import pyarrow as pa

        symbol = item.symbol
        if isinstance(value, pd.Series):
            value = value.to_frame()
        if not isinstance(value, pd.DataFrame):
            raise TaskError(
                f"with out= the function must return a DataFrame, but for {symbol} it returned {type(value).__name__}"
            )
        # The slots are the threads: more of them here would take turns with other symbols.
        table = pa.Table.from_pandas(value, nthreads=1)
        seal = json.dumps({"made of": self._made_of(item), "rows in": rows_in, "digest": digest})
        notes = {**(table.schema.metadata or {}), _SEAL: seal}
        with contextlib.suppress(TypeError, ValueError):  # what is no JSON is left out, as Arrow does
            notes[_ATTRS] = json.dumps(value.attrs)
        table = table.replace_schema_metadata(notes)
        path = self._path(symbol)
        temporary = os.path.join(str(self.out), f".{symbol}.{os.getpid()}.partial")
        try:
            write_table(table, temporary)
            size = os.path.getsize(temporary)
            os.replace(temporary, path)
        except OSError as error:
            words = f"{symbol}.parquet cannot be written in {self.out}: {error.strerror or error}"
            raise DataError(f"{words}; make room there, or give another out=") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        release_memory(table.nbytes)
        return Written(path, len(value), size, rows_in, digest)


def digest_of(path: str) -> str:
    """The content of a file, as hexadecimal digits. About 1 s a gigabyte."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def pair(item: Item, *, task: Task, frames: Frames | None) -> tuple[str, Any]:
    """A symbol with its result, for a bag."""
    return item.symbol, task(item) if frames is None else task(item, frames)
