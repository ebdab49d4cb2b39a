"""`admf-dask process`: a function over many symbols, results to files, failures named. Made for scripts and cron."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from admf_dask.cli.codes import INTERRUPTED, OK, SOME_FAILED
from admf_dask.cli.output import say as out_loud
from admf_dask.cli.settings import config_from
from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError, DataError, TaskError
from admf_dask.resources import ResourceShortage
from admf_dask.runtime import FailedItemsWarning
from admf_dask.steps import FrameReader
from admf_dask.symbols import ParallelDataProcessor, SymbolResults
from admf_dask.text import format_bytes, format_count, format_seconds, plural


def run(parsed: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    function = load_function(parsed.function)
    options = dict(read_option(text) for text in parsed.option)
    reader = read_reader(parsed)
    symbols = None if parsed.symbols is None else _symbols(parsed.symbols)
    processor = ParallelDataProcessor(config=config_from(parsed, ParallelConfig()))
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FailedItemsWarning)
            if parsed.quiet:
                # A machine that is busy at night is no reason for cron to write a letter.
                warnings.simplefilter("ignore", ResourceShortage)
            results = processor.process_symbols(
                symbols, function, data=parsed.data, reader=reader, out=parsed.out, force=parsed.force, timeout=parsed.timeout,
                progress=not parsed.quiet, **options,
            )  # fmt: skip
    except KeyboardInterrupt as stop:
        done = getattr(stop, "partial", None)
        counted = "" if done is None else f"{format_count(len(done))} symbols are done; "
        print(
            f"interrupted: {counted}what was written is in {parsed.out}, and the same command goes on", file=sys.stderr
        )
        return INTERRUPTED
    except TaskError as error:
        if getattr(error, "partial", None) is not None:
            return _tell_failures(error.partial.failures, Path(parsed.out))  # type: ignore[attr-defined]
        print(f"admf-dask: {error}", file=sys.stderr)
        return SOME_FAILED
    if not parsed.quiet:
        out_loud(summary(results, parsed.out, time.perf_counter() - began))
    return _tell_failures(results.failures, Path(parsed.out))


def summary(results: SymbolResults, out: str, seconds: float) -> str:
    """What was done, in a line: `498 symbols (12 skipped as unchanged), 2 failed; 122,010 rows in, ...`."""
    written = results.written
    skipped = f" ({format_count(len(results.skipped))} skipped as unchanged)" if results.skipped else ""
    failed = f", {format_count(len(results.failures))} failed" if len(results.failures) else ""
    read = ""
    if written["rows_in"].notna().any():
        read = (
            f"{format_count(int(written['rows_in'].sum()))} rows ({format_bytes(int(written['bytes_in'].sum()))}) in, "
        )
    return (
        f"{plural(len(results), 'symbol')}{skipped}{failed}; {read}{format_count(int(written['rows'].sum()))} rows "
        f"({format_bytes(int(written['bytes'].sum()))}) out, in {out}; {format_seconds(seconds)}"
    )


def _tell_failures(failures: Any, out: Path) -> int:
    """Write them down and say so; without any, an older list goes away. Returns the exit code."""
    path = out / "failures.csv"
    if failures.empty:
        path.unlink(missing_ok=True)
        return OK
    try:
        failures.to_csv(path)
        where = f"all with their tracebacks in {path}"
    except OSError as error:
        where = f"{path} cannot be written ({error.strerror or error}), so here they are:\n" + "\n".join(
            failures["traceback"]
        )
    first = failures.iloc[0]
    print(
        f"{format_count(len(failures))} failed (first: {failures.index[0]}: {first['error_type']}: {first['message']}); {where}",
        file=sys.stderr,
    )
    return SOME_FAILED


def _symbols(given: str) -> Any:
    """A file, or names with commas between them. Raises DataError for what looks like a file and is none."""
    if os.path.isfile(given):
        return given
    if given.endswith((".txt", ".csv", ".json")) or os.sep in given:
        raise DataError(
            f"--symbols {given} does not exist; give a file (text, CSV with a column symbol, JSON), or names: A,B,C"
        )
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise DataError("--symbols names none; give names such as A,B,C or a file, or leave it out for all of --data")
    return names


def load_function(name: str) -> Any:
    """`package.module:function`, looked for in the folder of the call too. Raises ConfigError with what was found."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"--function must be package.module:function, but is {name!r}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--function {name} cannot be loaded: {error}") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if isinstance(error, SyntaxError) else f" ({where.filename}, line {where.lineno})"
        raise ConfigError(f"--function {name} cannot be loaded: {type(error).__name__}: {error}{at}") from error
    if not callable(found):
        raise ConfigError(f"--function {name} is {found!r:.60}, and no function")
    return found


def read_reader(parsed: argparse.Namespace) -> FrameReader | None:
    """The reader that the options describe, None without any. Raises ConfigError for one that fits no file."""
    columns = dict(_column(text) for text in parsed.column)
    given = {name: getattr(parsed, name) for name in ("date_column", "date_format", "timezone", "separator", "decimal")}
    options = {name: value for name, value in given.items() if value is not None}
    if not columns and not options:
        return None
    if len(columns) != len(parsed.column):
        raise ConfigError(f"--column must give each new name once, but has {' '.join(parsed.column)}")
    try:
        return FrameReader(columns=columns, **options)
    except ValueError as error:
        raise ConfigError(f"these files cannot be described: {error}") from error


def _column(text: str) -> tuple[str, str]:
    new, equals, old = text.partition("=")
    if not equals or not new or not old:
        raise ConfigError(f"--column must be new=old, such as 'close=Adj Close', but is {text!r}")
    return new, old


def read_option(text: str) -> tuple[str, Any]:
    """`key=value`, the value as YAML reads it. Raises ConfigError for anything else."""
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ConfigError(f"--option must be key=value, but is {text!r}")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the value of --option {text} cannot be read as YAML; for a text write {key}='\"...\"'"
        ) from error
