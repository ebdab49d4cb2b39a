"""`admf-dask backtest CONFIGS.yaml`: the backtests of a file, printed and saved.

data: {AAPL: null, X: {file: x.csv, date_column: day, sort: true}}   # null: installed prices; left out: all of those named below;
                                                                     # files are looked for beside this one
configs:
- {class: sma_crossover, parameters: {fast: 10, slow: 50}, symbol: AAPL, commission: 0.001}
parallel: {mode: process}

or a file of ADMF-Trader: `strategy: {name, parameters}`, `backtest: {initial_capital, symbols}`, `data: {sources: [...]}`, with a
word on each key that has no meaning here.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from admf_dask.backtests import expand, run_parallel_backtests
from admf_dask.cli.codes import INTERRUPTED, OK, SOME_FAILED
from admf_dask.cli.output import not_saved
from admf_dask.cli.output import say as out_loud
from admf_dask.cli.settings import config_from
from admf_dask.config import ParallelConfig
from admf_dask.engine import FrameDataHandler
from admf_dask.errors import ConfigError, TaskError
from admf_dask.journal import Journal
from admf_dask.runtime import FailedItemsWarning, Session
from admf_dask.study import admf_backtests
from admf_dask.study.data import PriceSource
from admf_dask.text import did_you_mean, format_count
from admf_dask.yamlfile import read_yaml

_KEYS = ("configs", "data", "parallel", "rename")
_SOURCE = ("file", "date_column", "date_format", "separator", "decimal", "price_column", "sort", "start", "end")
_SHOWN = ["sharpe_ratio", "final_equity", "max_drawdown", "n_trades", "engine"]


def run(parsed: argparse.Namespace) -> int:
    """Run the file; returns the exit code."""
    content = read_file(parsed.configs)
    for note in content.pop("notes", ()):
        print(f"note: {note}", file=sys.stderr)
    given = content.get("data") or dict.fromkeys(_named(content["configs"]))
    if not given:
        raise ConfigError(
            f"{parsed.configs} names no symbol; write `symbol: AAPL` in each config, or `data: {{AAPL: null}}`"
        )
    folder = Path(parsed.configs).parent
    handler = FrameDataHandler({symbol: source_of(symbol, facts, folder).load() for symbol, facts in given.items()})
    configs = expand(content["configs"], handler.symbols)
    parallel = ParallelConfig.from_mapping({"parallel": content.get("parallel") or {}})
    out = Path(parsed.out or Path("admf-dask-results", f"backtests-{datetime.now():%Y%m%d-%H%M%S}"))
    try:
        with Session(config_from(parsed, parallel)) as session, warnings.catch_warnings():
            warnings.simplefilter("ignore", FailedItemsWarning)
            results = run_parallel_backtests(
                configs, handler, session=session, rename=content.get("rename"), progress=not parsed.quiet,
                journal=Journal(out / "journal", changed="anew"),
            )  # fmt: skip
    except KeyboardInterrupt:
        print(f"interrupted: the same command with --out {out} goes on", file=sys.stderr)
        return INTERRUPTED
    except TaskError as error:
        print(f"admf-dask: {error}", file=sys.stderr)
        return SOME_FAILED
    return _report(parsed, results, out)


def _named(configs: list[Any]) -> list[str]:
    """The symbols that configs name, each once."""
    mappings = [one for one in configs if isinstance(one, Mapping)]
    given = [one.get(key) for one in mappings for key in ("symbol", "symbols")]
    names = [name for one in given for name in (one if isinstance(one, list) else [one]) if name not in (None, "all")]
    return list(dict.fromkeys(map(str, names)))


def _report(parsed: argparse.Namespace, results: Any, out: Path) -> int:
    frame = results.frame
    if not parsed.quiet:
        names = [
            name for name in frame.columns if name not in (*_SHOWN, "error", "seconds", "ruined", "periods_per_year")
        ]
        kept = [name for name in names if name not in ("total_return", "n_entries", "n_fills")]
        best = frame[frame["error"].isna()].nlargest(10, "sharpe_ratio")
        out_loud(best[[*kept, *_SHOWN]].to_string(float_format=lambda value: f"{value:,.3f}"))
    failures = results.failures
    try:
        frame.to_parquet(out / "backtests.parquet")
        frame.to_csv(out / "backtests.csv")
        if not failures.empty:
            failures.drop(columns="item").to_csv(out / "failures.csv")
    except OSError as error:
        raise not_saved(error, out) from error
    out_loud(f"tables     {out / 'backtests.parquet'}, {out / 'backtests.csv'}")
    if failures.empty:
        return OK
    first = failures.iloc[0]
    words = f"{first['error_type']}: {first['message']}"
    print(
        f"{format_count(len(failures))} failed (first: config {failures.index[0]}: {words}); {out / 'failures.csv'}",
        file=sys.stderr,
    )
    return SOME_FAILED


def read_file(path: str) -> dict[str, Any]:
    """The content with its keys checked. Raises ConfigError naming the key."""
    content = read_yaml(path)
    if isinstance(content, list):
        content = {"configs": content}
    if isinstance(content, dict) and "configs" not in content and ("strategy" in content or "strategies" in content):
        configs, prices, notes = admf_backtests(content, path)
        kept = {key: content[key] for key in ("parallel", "rename") if key in content}
        return {"configs": configs, "data": prices, "notes": notes, **kept}
    if not isinstance(content, dict) or not isinstance(content.get("configs"), list):
        raise ConfigError(f"{path} must be a list of strategy configs, or a mapping with `configs: [...]`")
    if not isinstance(content.get("data") or {}, Mapping):
        raise ConfigError(
            f"`data` in {path} must be a mapping such as {{AAPL: null, X: {{file: x.csv}}}}, but is {content['data']!r:.60}"
        )
    for key in content:
        if key not in _KEYS:
            raise ConfigError(f"{key!r} in {path} is not a key of a file of backtests{did_you_mean(str(key), _KEYS)}")
    return content


def source_of(symbol: str, facts: Any, folder: Path) -> PriceSource:
    """Where the prices of a symbol come from: a mapping with `file`, the path of a file, or nothing for installed ones.

    A relative path begins at `folder`, as in a study.
    """
    if isinstance(facts, PriceSource):
        return facts
    given = {"file": facts} if isinstance(facts, str) else facts or {}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"the prices of {symbol} must be a file, a mapping with `file`, or null, but are {given!r:.60}"
        )
    for key in given:
        if key not in _SOURCE:
            raise ConfigError(f"{key!r} of {symbol} is not a key of a price source{did_you_mean(str(key), _SOURCE)}")
    fields: dict[str, Any] = {
        key: value if key == "sort" else str(value) for key, value in given.items() if value is not None
    }
    if "file" in fields:
        fields["file"] = str(folder / fields["file"])
    return PriceSource(str(symbol), **fields)
