"""Which symbols, and where their frames come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from admf_dask.errors import DataError
from admf_dask.identity import content_key
from admf_dask.steps import FrameReader, find_symbols, read_symbols
from admf_dask.steps.files import as_pattern, candidates, find_file
from admf_dask.symbols.size import frame_bytes, memory_per_byte
from admf_dask.weights import Weights

CALL_WORK = 256 * 1024
"""What a symbol costs whatever its size, in bytes of Parquet: 15 ms against 50 ms a megabyte, for twenty columns of features."""


@dataclass(frozen=True)
class Item:
    """A symbol with what is known of its input: its identity in the journal, and its place in the order."""

    symbol: str
    size: int
    """Bytes of its file, or of its frame in memory."""
    stamp: str
    """Changes with the content of the input: size and time of a file, the content of a frame."""
    turn: str = ""
    """Something new where it is to be done again although its input is the same."""

    def __repr__(self) -> str:
        """The symbol."""
        return self.symbol


@dataclass(frozen=True)
class Frames:
    """Frames in memory, for the workers. Each item knows the content of its own, so together they are nobody's identity."""

    guarded_field: ClassVar[str] = "by_symbol"
    """What the runtime gives to each item as it was."""
    by_symbol: Mapping[str, Any]

    def identity_parts(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Source:
    """Where frames come from: a pattern of files, a mapping, or nowhere."""

    pattern: str | None = None
    mapping: Mapping[str, Any] | None = None
    reader: FrameReader | None = None

    @classmethod
    def of(cls, data: Any, reader: Any = None) -> Source:
        """From `data=` and `reader=`. Raises DataError or TypeError with the rule."""
        if reader is not None and not isinstance(reader, FrameReader):
            raise TypeError(f"reader must be a FrameReader, but is {reader!r:.80}")
        if reader is not None and (data is None or isinstance(data, Mapping)):
            raise DataError(
                f"a reader reads files, but data is {'a mapping' if data is not None else 'not given'}; give a folder or a "
                "pattern such as 'prices/{symbol}.csv'"
            )
        if data is None:
            return cls()
        if isinstance(data, Mapping):
            _check_keys(data)
            return cls(mapping=data)
        if not isinstance(data, (str, os.PathLike)):
            raise DataError(
                f"data must be a mapping symbol -> frame, a folder or a pattern with {{symbol}}, but is {_data_in_words(data)}"
            )
        return cls(pattern=as_pattern(data), reader=reader)

    @property
    def frames(self) -> Frames | None:
        """What the workers need in memory."""
        return None if self.mapping is None else Frames(self.mapping)

    def names(self, symbols: Any) -> list[str]:
        """The names in a list or a file, or all that there are; each once. Raises DataError with the rule."""
        if symbols is None:
            return self._all()
        if isinstance(symbols, os.PathLike) or (isinstance(symbols, str) and os.path.isfile(symbols)):
            return list(dict.fromkeys(read_symbols(symbols)))
        if isinstance(symbols, str):
            a_file = symbols.endswith((".txt", ".csv", ".json")) or os.sep in symbols
            raise DataError(
                f"symbols must be a list of names or a file, but there is no file {symbols!r} in {os.getcwd()}"
                if a_file
                else f"symbols must be a list of names or a file, but is the text {symbols!r}; write [{symbols!r}]"
            )
        if hasattr(symbols, "columns"):
            label = next((label for label in symbols.columns if str(label).lower() in ("symbol", "ticker")), None)
            cure = "symbols.index" if label is None else f"symbols[{label!r}]"
            raise DataError(
                f"symbols must be a list of names, but is a DataFrame, which lists its columns; write {cure}"
            )
        names = list(symbols)
        for name in names:
            if not isinstance(name, str) or not name:
                raise DataError(f"a symbol must be a name, but the list has {name!r:.60}")
        return list(dict.fromkeys(names))

    def _all(self) -> list[str]:
        if self.mapping is not None:
            return [str(name) for name in self.mapping]
        if self.pattern is None:
            raise DataError("symbols=None means all that data= has, but there is no data=; give a list of symbols")
        return list(find_symbols(self.pattern))

    def items(self, names: list[str], *, recorded: bool) -> list[Item]:
        """An item for each name, the largest first. `recorded`: a journal will want to know frames by their content."""
        return sorted((self._item(name, recorded) for name in names), key=lambda item: -item.size)

    def _item(self, symbol: str, recorded: bool) -> Item:
        if self.mapping is not None:
            frame = self.mapping.get(symbol)
            return Item(symbol, frame_bytes(frame), content_key(frame).hex() if recorded else "")
        path = self.file(symbol)
        if path is None:
            return Item(symbol, 0, "" if self.pattern is None else "missing")
        facts = os.stat(path)
        return Item(symbol, facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}")

    def file(self, symbol: str) -> str | None:
        """The file of a symbol, None where there is none."""
        if self.pattern is None:
            return None
        try:
            return find_file(self.pattern, symbol)
        except DataError:
            return None

    def reads(self, pattern: str) -> bool:
        """Whether a file like `pattern` would be taken as data, by whatever links its folder is reached."""
        if self.pattern is None:
            return False
        return any(_real(path) == _real(pattern) for path in candidates(self.pattern, "{symbol}"))

    def weights(self, items: list[Item]) -> Weights | None:
        """What the items weigh; None without any input. Looks into a file of each kind for what it becomes when read."""
        if self.mapping is None and self.pattern is None:
            return None
        sizes = np.array([item.size for item in items], np.int64)
        return Weights(sizes + CALL_WORK, (sizes * self._memory_per_byte(items)).astype(np.int64))

    def _memory_per_byte(self, items: list[Item]) -> Any:
        if self.mapping is not None:
            return memory_per_byte(None)
        known: dict[str, float] = {}
        found = []
        for item in items:
            # The largest of its kind comes first.
            path = self.file(item.symbol)
            kind = os.path.splitext(path or "")[1]
            if kind not in known:
                known[kind] = memory_per_byte(path, self.reader)
            found.append(known[kind])
        return np.array(found)


def _check_keys(data: Mapping[Any, Any]) -> None:
    for name in data:
        if not isinstance(name, str) or not name:
            raise DataError(
                f"the keys of data= must be names, but one is {name!r:.60}; write {{str(key): frame for key, frame in "
                "data.items()}"
            )


def _data_in_words(data: Any) -> str:
    """What it is, and how it becomes a mapping."""
    kind = type(data).__name__
    if kind == "DataFrameGroupBy":
        return f"a {kind}; write dict(list(data))"
    if not hasattr(data, "columns"):
        return f"{data!r:.80}" if not isinstance(data, (list, tuple)) else f"a {kind}; write dict(zip(symbols, data))"
    if getattr(data.columns, "nlevels", 1) > 1:
        return f"a {kind} with several levels of columns; write {{name: data[name] for name in data.columns.levels[0]}}"
    return (
        f"one {kind}; write {{'NAME': data}}, or dict(list(data.groupby('symbol'))) where rows are of several symbols"
    )


def _real(path: str) -> str:
    """The path with links in its folder followed."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)
