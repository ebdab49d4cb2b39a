"""`admf-dask optimize`: run a study, print what was found, save the tables and the heatmap."""

from __future__ import annotations

import argparse
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from admf_dask.cli.codes import INTERRUPTED, OK, SOME_FAILED
from admf_dask.cli.output import not_saved
from admf_dask.cli.output import say as out_loud
from admf_dask.cli.settings import config_from
from admf_dask.errors import JournalMismatch
from admf_dask.journal import Journal
from admf_dask.optimize import OptimizationResult, ParallelOptimizer
from admf_dask.runtime import FailedItemsWarning, Session
from admf_dask.study import Study, builtin_study, load_study
from admf_dask.text import format_bytes, format_count, plural, short

_COLUMNS = (
    ("sharpe_ratio", "Sharpe ratio", "{:.3f}"),
    ("final_equity", "final equity", "{:,.0f}"),
    ("max_drawdown", "max drawdown", "{:.1%}"),
    ("n_trades", "trades", "{:.0f}"),
)


def run(parsed: argparse.Namespace) -> int:
    """Run the study; returns the exit code."""
    study = builtin_study() if parsed.study is None else load_study(parsed.study)
    config = config_from(parsed, study.parallel)
    objective = study.make_objective()
    say = (lambda text: None) if parsed.quiet else out_loud
    for note in study.notes:
        say(f"note: {note}")
    out = Path(parsed.out) if parsed.out else Path("admf-dask-results", f"{study.name}-{datetime.now():%Y%m%d-%H%M%S}")
    journal = Journal(out / "journal", changed=parsed.changed, retry_failed=parsed.retry_failed)
    with Session(config) as session:
        _say_where(say, study, session, len(objective.prices.close))
        optimizer = ParallelOptimizer(session=session)
        try:
            with warnings.catch_warnings():
                # The same words are printed below, with the path of the table.
                warnings.simplefilter("ignore", FailedItemsWarning)
                result = optimizer.optimize(
                    study.space, objective, score=study.objective, maximize=study.maximize, keep=study.keep,
                    progress=not parsed.quiet, name=study.name, journal=journal,
                )  # fmt: skip
        except JournalMismatch as error:
            raise JournalMismatch(
                f"{error}. On the command line: --changed anew, --changed keep, or another --out"
            ) from error
        except KeyboardInterrupt as stop:
            partial = getattr(stop, "partial", None)
            if not (isinstance(partial, OptimizationResult) and partial.total_evaluations):
                raise
            result = partial
    return _report(say, result, out)


def _say_where(say: Any, study: Study, session: Session, bars: int) -> None:
    config, layout = session.config, session.layout
    where = (
        f"scheduler {config.scheduler}" if config.scheduler else "calling thread" if not config.enabled else str(layout)
    )
    say(f"study      {study.name}: {study.strategy} on {study.data.symbol}, {format_count(bars)} bars")
    say(f"space      {format_count(study.space.size)} combinations of {', '.join(study.space.names)}")
    say(f"workers    {plural(layout.workers, 'slot')}: {where}")
    if layout.mode == "thread" and layout.memory_limit:
        say(f"memory     {format_bytes(layout.memory_limit)} left for this process")
    if session.dashboard_link:
        say(f"dashboard  {session.dashboard_link}")
        if session.tunnel:
            say(f"           on your own machine first: {session.tunnel}")


def _report(say: Any, result: OptimizationResult, out: Path) -> int:
    say("")
    say(_table(result))
    say("")
    say(result.summary())
    try:
        saved = result.save(out)
    except OSError as error:
        raise not_saved(error, out) from error
    for name, path in saved.items():
        out_loud(f"{name:<10} {path}")
    if result.state == "interrupted":
        print(
            f"interrupted: what was done until then is saved; the same command with --out {out} goes on",
            file=sys.stderr,
        )
        return INTERRUPTED
    if result.failed:
        first = result.first_failure
        params = ", ".join(f"{name}={short(value)}" for name, value in result.space[first.index].items())
        print(f"{format_count(result.failed)} failed (first: {params}: {first.failure.summary})", file=sys.stderr)
        return SOME_FAILED
    return OK


def _table(result: OptimizationResult) -> str:
    """The ten best, aligned."""
    top = result.top(10)
    rows = [[*result.space.names, *(label for _, label, _ in _COLUMNS)]]
    for _, row in top.iterrows():
        rows.append(
            [f"{row[name]:g}" if isinstance(row[name], (int, float)) else str(row[name]) for name in result.space.names]
        )
        rows[-1] += [pattern.format(row[column]) for column, _, pattern in _COLUMNS]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
