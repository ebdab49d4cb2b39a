"""`ParallelDataProcessor`: a function over many symbols, with results that may be larger than memory, and restarts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from admf_dask.config import ParallelConfig
from admf_dask.errors import DataError, JournalError, TaskError
from admf_dask.events import Observer
from admf_dask.journal import Journal, as_journal
from admf_dask.outcomes import Outcome
from admf_dask.runtime import Outcomes, Session
from admf_dask.steps import FrameReader, compose, find_symbols, read_symbols
from admf_dask.steps.files import as_pattern, find_file
from admf_dask.steps.pipeline import starts_with_frame
from admf_dask.steps.readers import read_table
from admf_dask.text import did_you_mean, format_count

if TYPE_CHECKING:
    import pandas as pd
    from dask.bag import Bag
    from distributed import Client


class ParallelDataProcessor:
    """Applies a function to each of many symbols, in parallel.

    ```python
    processor = ParallelDataProcessor(workers=4)
    features = processor.process_symbols(symbols, make_features, data="prices/{symbol}.parquet", out="features")
    ```

    Parameters
    ----------
    workers, mode, session, config
        As for `ParallelOptimizer`: without a session, each call opens one and closes it.
    """

    def __init__(
        self,
        workers: int | None = None,
        mode: str | None = None,
        *,
        session: Session | Client | None = None,
        config: ParallelConfig | None = None,
    ) -> None:
        """Check the settings; nothing is started."""
        given: dict[str, Any] = {"max_workers": workers, "mode": mode}
        self.config = replace(config or ParallelConfig(), **{k: v for k, v in given.items() if v is not None})
        self.session = session

    def process_symbols(
        self,
        symbols: Any,
        processor_func: Callable[..., Any] | Sequence[Any],
        *,
        data: Any = None,
        reader: FrameReader | None = None,
        out: str | os.PathLike[str] | None = None,
        force: bool = False,
        on_error: str = "record",
        timeout: float | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
        progress: bool | str | Observer = "auto",
        **kwargs: Any,
    ) -> SymbolResults:
        """Call `processor_func(symbol, **kwargs)`, or `processor_func(symbol, frame, **kwargs)` with `data`, for each symbol.

        Parameters
        ----------
        symbols
            Names, in the order wanted; a repeated one is evaluated once. Or a file: text (one a line), CSV with a column
            `symbol`, or JSON. Or None with `data`: all that it has.
        processor_func
            A function, or a list of steps, each taking what the one before returned: functions of symbol and frame, steps of
            `admf_dask.steps`, or pairs (function, options), as `compose` takes them.
        data
            A mapping symbol -> frame; a folder of Parquet or CSV files named by symbol; or a pattern such as
            `prices/{symbol}.parquet`. Files are read on the worker, the largest first, so that the end is short.
        reader
            How to read the files: names, dates, timezone, separator. Without one they are read as they are, and dates in
            CSV stay text.
        out
            A folder: the worker writes each returned frame to `out/{symbol}.parquet` itself, under another name first, so
            that nothing half-written is ever seen and nothing passes through this process. The result reads them when asked.
            It keeps a journal in `out/.journal` and does only what is new: a symbol is skipped when its input file, the
            function and its options are as recorded and its file is there.
        force
            With `out`: do all again.
        on_error, timeout, journal, progress
            As in `Session.map`.
        **kwargs
            Options of the function, the same for every symbol.

        Raises DataError for symbols or folders that cannot be used at all, TaskError when every symbol failed.
        """
        function, source = _function(processor_func), _Source.of(data, reader)
        names = list(dict.fromkeys(_names(symbols, source)))
        task = _Task(function, kwargs, source.pattern, source.mapping is not None, reader, _folder(out))
        items = [_Item(name, *source.facts(name)) for name in names]
        items.sort(key=lambda item: -item.size)
        if out is not None:
            journal = as_journal(journal) or Journal(Path(out) / ".journal", changed="anew", retry_failed=True)
            _forget_what_is_gone(items, Path(out), force, journal)
        with self._session() as session:
            outcomes = session.map(
                task, items, data=source.mapping, on_error=on_error, timeout=timeout, journal=journal, progress=progress,
                name=getattr(function, "__name__", "symbols"),
            )  # fmt: skip
        return SymbolResults(names, outcomes)

    def to_bag(
        self,
        symbols: Any,
        processor_func: Callable[..., Any] | Sequence[Any],
        *,
        data: Any = None,
        reader: FrameReader | None = None,
        **kwargs: Any,
    ) -> Bag:
        """The same calls as a `dask.bag` of pairs (symbol, result); nothing runs until it is computed."""
        from admf_dask.runtime.graph import list_bag

        function, source = _function(processor_func), _Source.of(data, reader)
        task = _Task(function, kwargs, source.pattern, source.mapping is not None, reader, None)
        items = [_Item(name, 0, "") for name in dict.fromkeys(_names(symbols, source))]
        return list_bag(items, "symbols").map(partial(_pair, task=task, mapping=source.mapping))

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        if isinstance(self.session, Session):
            yield self.session
            return
        with Session(self.config, client=self.session) as session:
            yield session


@dataclass(frozen=True)
class _Item:
    """A symbol with what is known of its input: its identity in the journal, and its place in the order."""

    symbol: str
    size: int
    stamp: str

    def __repr__(self) -> str:
        return self.symbol


@dataclass(frozen=True)
class _Source:
    """Where frames come from."""

    pattern: str | None = None
    mapping: Mapping[str, Any] | None = None
    reader: FrameReader | None = None

    @classmethod
    def of(cls, data: Any, reader: Any = None) -> _Source:
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
            return cls(mapping=data)
        if not isinstance(data, (str, os.PathLike)):
            raise DataError(
                f"data must be a mapping symbol -> frame, a folder or a pattern with {{symbol}}, but is {data!r:.80}"
            )
        return cls(pattern=as_pattern(data), reader=reader)

    def symbols(self) -> list[str]:
        """All that there are, sorted."""
        if self.mapping is not None:
            return [str(name) for name in self.mapping]
        if self.pattern is None:
            raise DataError("symbols=None means all that data= has, but there is no data=; give a list of symbols")
        return list(find_symbols(self.pattern))

    def facts(self, symbol: str) -> tuple[int, str]:
        """Bytes and a stamp of the input; 0 and nothing where there is no file to look at."""
        if self.mapping is not None:
            frame = self.mapping.get(symbol)
            return int(getattr(frame, "size", 0)), ""
        if self.pattern is None:
            return 0, ""
        try:
            facts = os.stat(find_file(self.pattern, symbol))
        except (OSError, DataError):
            return 0, "missing"
        return facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}"


def _names(symbols: Any, source: _Source) -> list[str]:
    """The names in a list, or in a file. Raises DataError with the rule."""
    if symbols is None:
        return source.symbols()
    if isinstance(symbols, os.PathLike) or (isinstance(symbols, str) and os.path.isfile(symbols)):
        return read_symbols(symbols)
    if isinstance(symbols, str):
        raise DataError(f"symbols must be a list of names or a file, but is the text {symbols!r}; write [{symbols!r}]")
    names = list(symbols)
    for name in names:
        if not isinstance(name, str) or not name:
            raise DataError(f"a symbol must be a name, but the list has {name!r:.60}")
    return names


def _function(given: Any) -> Callable[..., Any]:
    """One function of symbol and frame: the given one, or the steps one after the other."""
    if callable(given) and not starts_with_frame(given):
        return cast("Callable[..., Any]", given)
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)
    steps = [given] if callable(given) or pair else list(given) if isinstance(given, (list, tuple)) else []
    if not steps:
        raise TypeError(f"processor_func must be a function or a list of functions, but is {given!r:.80}")
    return compose(*steps)


def _folder(out: Any) -> str | None:
    if out is None:
        return None
    folder = str(os.path.abspath(os.fspath(out)))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise DataError(f"the output folder {folder} cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise DataError(f"the output folder {folder} is not writable")
    return folder


def _forget_what_is_gone(items: list[_Item], out: Path, force: bool, journal: Journal) -> None:
    """A recorded symbol whose file is missing is to be done again, whatever the journal says: its stamp becomes another."""
    try:
        recorded = set(journal.frame.get("item", ()))
    except JournalError:
        return
    for place, item in enumerate(items):
        if item in recorded and (force or not (out / f"{item.symbol}.parquet").is_file()):
            items[place] = replace(item, stamp=f"{item.stamp} again {os.urandom(8).hex()}")


@dataclass(frozen=True)
class _Task:
    """What a worker does with one symbol."""

    function: Callable[..., Any]
    options: dict[str, Any]
    pattern: str | None
    mapped: bool
    reader: FrameReader | None
    out: str | None

    def identity_parts(self) -> Mapping[str, Any]:
        """What its results depend on, for the journal."""
        return {
            "the function": self.function,
            **{f"option {name!r}": value for name, value in self.options.items()},
            "where the data is": (self.pattern, self.mapped),
            "the reader": self.reader,
            "the output folder": self.out,
        }

    def __call__(self, item: _Item, mapping: Mapping[str, Any] | None = None) -> Any:
        if self.mapped:
            if mapping is None or item.symbol not in mapping:
                raise DataError(f"data has no {item.symbol!r}{did_you_mean(item.symbol, map(str, mapping or ()))}")
            value = self.function(item.symbol, mapping[item.symbol], **self.options)
        elif self.pattern is not None:
            read = read_table if self.reader is None else self.reader.read
            value = self.function(item.symbol, read(find_file(self.pattern, item.symbol)), **self.options)
        else:
            value = self.function(item.symbol, **self.options)
        return value if self.out is None else self._write(item.symbol, value)

    def _write(self, symbol: str, value: Any) -> Written:
        import pandas as pd

        if isinstance(value, pd.Series):
            value = value.to_frame()
        if not isinstance(value, pd.DataFrame):
            raise TaskError(
                f"with out= the function must return a DataFrame, but for {symbol} it returned {type(value).__name__}"
            )
        path = os.path.join(str(self.out), f"{symbol}.parquet")
        temporary = os.path.join(str(self.out), f".{symbol}.{os.getpid()}.partial")
        try:
            value.to_parquet(temporary)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return Written(path, len(value), os.path.getsize(path))


@dataclass(frozen=True)
class Written:
    """A frame that a worker wrote."""

    path: str
    rows: int
    bytes: int

    def read(self) -> pd.DataFrame:
        """Read it."""
        import pandas as pd

        frame: pd.DataFrame = pd.read_parquet(self.path)
        return frame


def _pair(item: _Item, *, task: _Task, mapping: Mapping[str, Any] | None) -> tuple[str, Any]:
    return item.symbol, task(item, mapping) if mapping is not None else task(item)


class SymbolResults(dict[str, Any]):
    """Symbol -> result of those that succeeded, in the order given; a dict, and the failures apart.

    Asking for a symbol that failed raises its error. With `out=` the values are read from their files when asked for
    (`results["AAPL"]`), so iterating over keys costs nothing; `.written` has paths, rows and bytes.
    """

    def __init__(self, names: Sequence[str], outcomes: Outcomes) -> None:
        """Made by `process_symbols`."""
        found: dict[str, Outcome] = {outcome.item.symbol: outcome for outcome in outcomes}
        ordered = [found[name] for name in names if name in found]
        super().__init__({outcome.item.symbol: outcome.value for outcome in ordered if outcome.ok})
        self._failed = {outcome.item.symbol: outcome for outcome in ordered if not outcome.ok}

    def __getitem__(self, symbol: str) -> Any:
        """The result. Raises the symbol's own error if it failed, KeyError with the nearest name if it was not asked for."""
        if symbol in self._failed:
            error = self._failed[symbol].error
            assert error is not None
            raise error
        return _read(super().__getitem__(symbol))

    def __missing__(self, symbol: str) -> NoReturn:
        raise KeyError(f"{symbol!r} was not processed{did_you_mean(symbol, [*self, *self._failed])}")

    def get(self, symbol: str, default: Any = None) -> Any:
        """The result; the default where there is none, also for a symbol that failed."""
        try:
            return _read(super().__getitem__(symbol))
        except KeyError:
            return default

    def values(self) -> Any:
        """The results, each read when it comes."""
        return [_read(value) for value in super().values()]

    def items(self) -> Any:
        """Pairs of symbol and result."""
        return [(symbol, _read(value)) for symbol, value in super().items()]

    @property
    def written(self) -> pd.DataFrame:
        """With `out=`: path, rows and bytes of each symbol."""
        import pandas as pd

        rows = {symbol: (v.path, v.rows, v.bytes) for symbol, v in super().items() if isinstance(v, Written)}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["path", "rows", "bytes"]).rename_axis("symbol")

    @property
    def failures(self) -> pd.DataFrame:
        """One row for each symbol that failed: error_type, message, traceback, seconds, attempts; index `symbol`."""
        import pandas as pd

        rows = [
            (type(o.error).__name__, str(o.error), o.traceback, o.seconds, o.attempts) for o in self._failed.values()
        ]
        index = pd.Index(list(self._failed), name="symbol")
        return pd.DataFrame(rows, index=index, columns=["error_type", "message", "traceback", "seconds", "attempts"])

    def to_bag(self) -> Bag:
        """Pairs (symbol, result) as a `dask.bag`."""
        from admf_dask.runtime.graph import list_bag

        return list_bag(list(super().items()), "symbols").map(_read_pair)

    def to_dask(self) -> Any:
        """One `dask.dataframe` over all results, with a column `symbol`; files are read when it is computed."""
        from admf_dask.runtime.graph import frame_of

        return frame_of({symbol: partial(_labelled, symbol, value) for symbol, value in super().items()})

    def __repr__(self) -> str:
        """Counts."""
        return f"<SymbolResults: {format_count(len(self))} ok, {format_count(len(self._failed))} failed>"


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, Written) else value


def _read_pair(pair: tuple[str, Any]) -> tuple[str, Any]:
    return pair[0], _read(pair[1])


def _labelled(symbol: str, value: Any) -> Any:
    return _read(value).assign(symbol=symbol)
