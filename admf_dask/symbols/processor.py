"""`ParallelDataProcessor`: a function over many symbols, with results that may be larger than memory, and restarts."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError, DataError, JournalError
from admf_dask.events import Observer
from admf_dask.functions import misfit
from admf_dask.journal import Journal, as_journal
from admf_dask.policy import Policy
from admf_dask.progress import observers_for
from admf_dask.runtime import MapEvaluator, Outcomes, Session, Title, session_for, settings_of
from admf_dask.steps import FrameReader, compose
from admf_dask.steps.pipeline import starts_with_frame
from admf_dask.symbols.restart import Sitting, as_recorded
from admf_dask.symbols.results import SymbolResults
from admf_dask.symbols.source import Item, Source
from admf_dask.symbols.task import Task, pair
from admf_dask.text import did_you_mean

if TYPE_CHECKING:
    from dask.bag import Bag
    from distributed import Client


LONGEST_NAME = 200
"""Bytes of a symbol that names a file: of the 255 that file systems take, endings take some, and more while a file is written."""


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
        self.config = settings_of(config, workers, mode)
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
            `prices/{symbol}.parquet`. Files are read on the worker, the largest early, so that the end is short.
        reader
            How to read the files: names, dates, timezone, separator, decimal. Without one they are read as they are, and dates in
            CSV stay text.
        out
            A folder: the worker writes each returned frame to `out/{symbol}.parquet` itself, under another name first, so
            that nothing half-written is ever seen and nothing passes through this process. The result reads them when asked.
            It keeps a journal in `out/.journal` and does only what is new: a symbol is skipped, and listed in
            `results.skipped`, when its input, the function and its options are as recorded and its file is there. An input file
            is as recorded when its size and time are, or else its content; a frame when its content is.
        force
            Do all again, whatever is recorded.
        on_error, timeout, journal, progress
            As in `Session.map`.
        **kwargs
            Options of the function, the same for every symbol.

        Raises DataError for symbols or folders that cannot be used at all, and TaskError when every symbol failed, or as
        `on_error` says; what there is then is in `.partial` of the error, as it is of a KeyboardInterrupt.

        Memory: a symbol takes what its frame and its result take, on the worker that does it. Where sizes differ much, the
        largest run one after the other beside small ones, as far as the end comes no later for it. Where several threads share
        a process, two large ones are kept apart if they would not fit into its limit together.
        """
        policy, observers = Policy.of(on_error=on_error, timeout=timeout), observers_for(progress)
        function, source = _function(processor_func), Source.of(data, reader)
        names, folder = source.names(symbols), _folder(out, source)
        _check_file_names(names, folder)
        _check_options(function, source, kwargs)
        task = Task(function, kwargs, source.pattern, source.mapping is not None, reader, folder)
        journal = _journal(journal, folder)
        items = source.items(names, recorded=journal is not None)
        if journal is not None:
            items = as_recorded(items, journal, source, force=force, written=folder is not None)
        if folder is not None:
            task = replace(task, key=task.own_key())
        sitting = Sitting(folder)
        data_here = () if source.frames is None else (source.frames,)
        evaluator = MapEvaluator(task, items, data_here, policy)
        title = Title("process", str(getattr(function, "__name__", "symbols")))
        with session_for(self.session, self.config) as session:
            weights = source.weights(items)
            run = session.run(evaluator, title, (*observers, sitting), journal, weights)
            try:
                outcomes = Outcomes.gather(run, items)
            except BaseException as error:
                if isinstance(partial_outcomes := getattr(error, "partial", None), Outcomes):
                    error.partial = SymbolResults(names, partial_outcomes, sitting.recalled)  # type: ignore[attr-defined]
                raise
        return SymbolResults(names, outcomes, sitting.recalled)

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

        function, source = _function(processor_func), Source.of(data, reader)
        task = Task(function, kwargs, source.pattern, source.mapping is not None, reader, None)
        items = [Item(name, 0, "") for name in source.names(symbols)]
        return list_bag(items, "symbols").map(partial(pair, task=task, frames=source.frames))


def _function(given: Any) -> Callable[..., Any]:
    """One function of symbol and frame: the given one, or the steps one after the other."""
    if callable(given) and not starts_with_frame(given):
        return cast("Callable[..., Any]", given)
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)
    steps = [given] if callable(given) or pair else list(given) if isinstance(given, (list, tuple)) else []
    if not steps:
        raise TypeError(f"processor_func must be a function or a list of functions, but is {given!r:.80}")
    return compose(*steps)


def _check_options(function: Any, source: Source, options: Mapping[str, Any]) -> None:
    """Raise ConfigError where the function does not take what it would be given: each symbol would fail."""
    given = ("symbol",) if source.pattern is None and source.mapping is None else ("symbol", "frame")
    why = misfit(function, *given, **options)
    if why is None:
        return
    known = [name for name in inspect.signature(function, follow_wrapped=False).parameters if name not in given]
    near = next((did_you_mean(name, known) for name in options if name not in known), "")
    cure = "" if len(given) == 2 else "; a frame needs data="
    name = getattr(function, "__name__", type(function).__name__)
    raise ConfigError(f"{name} is called with {' and '.join(given)} and its options, but: {why}{near}{cure}")


def _folder(out: Any, source: Source) -> str | None:
    """The folder, made and tried. Raises DataError before anything runs, and for one where results would be read as data."""
    if out is None:
        return None
    if not isinstance(out, (str, os.PathLike)) or not os.fspath(out) or "{symbol}" in str(os.fspath(out)):
        raise DataError(
            f"out must be a folder, in which each symbol's file is {{symbol}}.parquet, but is {out!r:.80}; write out='features', "
            "or out='.' for the current one"
        )
    folder = str(os.path.abspath(os.fspath(out)))
    if source.reads(os.path.join(folder, "{symbol}.parquet")):
        raise DataError(
            f"results must not lie where the data is, but data= would read what out= writes into {folder}: the prices there "
            "would be lost; give another out="
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"x")
    except OSError as error:
        words = f"the output folder {folder} cannot be written to: {error.strerror or error}"
        raise DataError(f"{words}; give another out=, or make room and allow writing there") from error
    return folder


def _check_file_names(names: Sequence[str], folder: str | None) -> None:
    """Raise DataError for symbols that can name no file in a folder of results, before the work for them is done."""
    for name in names if folder is not None else ():
        if "/" in name or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
            raise DataError(
                f"with out= each symbol names a file, but {name!r:.60} cannot: no /, and at most {LONGEST_NAME} bytes; give them "
                "names such as symbol.replace('/', '-')"
            )


def _journal(given: Any, out: str | None) -> Journal | None:
    """What was asked for, or the one that a folder of results keeps. Raises JournalError for one that does not fit it."""
    journal = as_journal(given)
    if journal is None:
        return None if out is None else Journal(Path(out) / ".journal", changed="anew", retry_failed=True)
    if out is not None and journal.changed == "keep":
        raise JournalError(
            "a folder holds one set of results, but this journal keeps those of several functions (changed='keep'); give each "
            "function an out= of its own and leave journal= out"
        )
    return journal
