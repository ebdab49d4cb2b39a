"""`BacktestResults`: what became of many backtests, as results, tables and a report."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from admf_dask import ranking
from admf_dask.backtests.work import CURVES, SCORE, Compact, drawn, thinned
from admf_dask.engine import BacktestResult, FrameDataHandler, StrategyConfig, run_compiled
from admf_dask.engine.result import FILL_COLUMNS
from admf_dask.errors import EngineError
from admf_dask.outcomes import Curve, EqualResultsWarning, Outcome, error_words
from admf_dask.progress.afterwards import told_of
from admf_dask.rich import box
from admf_dask.runtime import Outcomes
from admf_dask.text import format_count, format_seconds, join_words, plural

if TYPE_CHECKING:
    import pandas as pd
    from bokeh.models import Column

HIDDEN = ("seconds", "engine", "ruined", "error", "periods_per_year", "n_entries", "n_fills")
"""Columns of `.frame` that the box of a notebook leaves out; errors only where there are none."""


class BacktestResults(Sequence[BacktestResult]):
    """The results of many backtests, in the order of their configs.

    `results[i]` is a `BacktestResult`; for a config that failed it raises that config's error, so that nothing is silently
    missing (`results.ok` are those without). Tables: `.frame`, `.failures`, `.equity`. Immutable.
    """

    def __init__(self, outcomes: Outcomes, handler: FrameDataHandler, rename: Mapping[str, str]) -> None:
        """Made by `run_parallel_backtests`."""
        self.outcomes, self._handler, self._rename = outcomes, handler, rename

    def __len__(self) -> int:
        """How many configs."""
        return len(self.outcomes)

    @overload
    def __getitem__(self, index: int) -> BacktestResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[BacktestResult]: ...
    def __getitem__(self, index: int | slice) -> BacktestResult | Sequence[BacktestResult]:
        """One result, made when it is asked for."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        outcome = self.outcomes[self._place(index)]
        if outcome.error is not None:
            raise outcome.error
        return self._whole(outcome)

    def _place(self, index: Any) -> int:
        """A position from 0 on. Raises TypeError for what is none, and IndexError where no config has it."""
        if isinstance(index, (bool, np.bool_)) or not hasattr(index, "__index__"):
            raise TypeError(
                f"a config is named by its position, such as 0, but got {index!r:.60}; `results.frame` has them as its index, so "
                "that results.frame.index[condition] are those where something holds"
            )
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(
                f"there are {plural(len(self), 'config')}, 0 to {len(self) - 1}, but {place} was asked for"
            )
        return place % len(self)

    def _places(self, given: Any) -> list[int]:
        """Positions of one or many."""
        if isinstance(given, slice):
            return list(range(*given.indices(len(self))))
        return [self._place(one) for one in (given if np.ndim(given) or isinstance(given, range) else [given])]

    def _whole(self, outcome: Outcome) -> BacktestResult:
        import pandas as pd

        compact: Compact = outcome.value
        parsed = StrategyConfig.from_mapping(outcome.item, rename=self._rename)
        if compact.equity is None or compact.fills is None:
            return replace(run_compiled(parsed, self._handler, compact.why), metrics=compact.metrics)
        index = self._handler.prices(parsed.symbol).index
        bars = compact.fills[:, 0].astype(np.int64)
        columns = ([index[bar] for bar in bars.tolist()], bars, *compact.fills[:, 1:].T)
        fills = pd.DataFrame(dict(zip(FILL_COLUMNS, columns, strict=True)))
        equity = pd.Series(compact.equity, index, name="equity")
        return BacktestResult(
            parsed.to_mapping(),
            equity,
            fills,
            compact.metrics,
            compact.engine,
            compact.why,
            compact.ruined,
            compact.notes,
        )

    @property
    def ok(self) -> list[BacktestResult]:
        """The results of the configs that did not fail."""
        return [self._whole(outcome) for outcome in self.outcomes if outcome.ok]

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each config, in order: class, symbol, the parameters, the metrics, engine, ruined, error, seconds."""
        import pandas as pd

        rows = []
        for outcome in self.outcomes:
            item, parameters = outcome.item, outcome.item.get("parameters")
            # A failed config may have anything there.
            row = {
                "class": _class_name(item.get("class")), "symbol": item.get("symbol"),
                **(parameters if isinstance(parameters, Mapping) else {}),
            }  # fmt: skip
            if outcome.ok:
                row |= {**outcome.value.metrics, "engine": outcome.value.engine, "ruined": outcome.value.ruined}
            row |= {"error": None if outcome.ok else error_words(outcome.error), "seconds": outcome.seconds}
            rows.append(row)
        return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="config"))

    @property
    def failures(self) -> pd.DataFrame:
        """One row for each config that failed: item, error_type, message, traceback, seconds, attempts."""
        return self.outcomes.failures

    @property
    def equity(self) -> pd.DataFrame:
        """The equity curves, a column for each config that did not fail, named by its position."""
        return self.equity_of(range(len(self)))

    def equity_of(self, configs: int | slice | Sequence[int]) -> pd.DataFrame:
        """The equity curves of some configs, such as the best ten: `results.frame.nlargest(10, "sharpe_ratio").index`."""
        import pandas as pd

        columns = {place: self[place].equity for place in self._places(configs) if self.outcomes[place].ok}
        return pd.DataFrame(columns).rename_axis(columns="config")

    def plot(
        self,
        configs: int | slice | Sequence[int] | None = None,
        *,
        benchmark: str | Mapping[str, Any] | pd.Series | None = "buy_and_hold",
        log: bool = True,
    ) -> Column:
        """Equity curves in one figure, as multiples of the initial cash, with their drawdowns below and a benchmark beside.

        Parameters
        ----------
        configs
            Positions of the configs, such as `results.frame.nlargest(8, "sharpe_ratio").index`; `None` takes the best five
            by Sharpe ratio. Names in the legend hold what differs between them; a click on one hides its curve.
        benchmark
            A strategy, as a name or a config, that trades each symbol in the figure as the first config of that symbol does
            (cash, costs, fills); or a Series of prices, such as an index, bought at the start; or `None`.
        log
            Equal distances are equal percentages; `False`, or a book that was ruined, gives a plain axis.

        Returns a Bokeh layout for `show` or `save`. Of a curve of more than 4,000 bars the extremes of 1,000 parts are drawn.
        Raises the error of a config that failed, IndexError for one that is not there, and EngineError for a benchmark that
        is none. Costs a backtest for each curve that the compiled engine did, as those are done again.
        """
        from admf_dask.backtests.plots import curves_figure, lines_of

        places = self._best() if configs is None else self._places(configs)
        if not places:
            raise EngineError(
                "a figure needs a config that did not fail; `results.failures` says what became of the others"
            )
        return curves_figure(*lines_of([self[place] for place in places], self._handler, benchmark), log=log)

    def _best(self) -> list[int]:
        """The positions of the best few that did not fail."""
        scores = np.array([outcome.value.metrics[SCORE] for outcome in self.outcomes if outcome.ok], np.float64)
        indices = np.array([outcome.index for outcome in self.outcomes if outcome.ok], np.int64)
        return (
            [int(place) for place in indices[ranking.best(scores, indices, CURVES, maximize=True)]]
            if len(scores)
            else []
        )

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens without a network: Sharpe ratios, heatmaps, equity of the best, the failures.

        Returns the path; its folder is made where it is missing. About 4 MB, most of them the library that draws; costs a second.
        Raises OSError where it cannot be written.
        """
        from admf_dask.page.report import save_report

        configs = [outcome.item for outcome in self.outcomes]
        scores = np.array([outcome.value.metrics[SCORE] for outcome in self.outcomes if outcome.ok], np.float64)
        told = told_of(
            configs, self.outcomes, kind="backtest", name="Backtests", elapsed=self.outcomes.elapsed,
            total=self.outcomes.total, score=SCORE, scores=scores,
            curves=tuple(self._curve(place) for place in self._best()),
        )  # fmt: skip
        return save_report(told, Path(path))

    def _curve(self, index: int) -> Curve:
        config = StrategyConfig.from_mapping(self.outcomes[index].item, rename=self._rename)
        return drawn(index, self._handler.prices(config.symbol), thinned(self[index].equity.to_numpy()))

    def _repr_html_(self) -> str:
        failed = sum(not outcome.ok for outcome in self.outcomes)
        words = f"{format_count(len(self) - failed)} ok, {format_count(failed)} failed"
        frame = self.frame
        if SCORE in frame:
            frame = frame.sort_values(SCORE, ascending=False, kind="stable")
        named = [self.outcomes[place].item.get("parameters") for place in frame.index]
        if len({tuple(one) if isinstance(one, Mapping) else () for one in named}) > 1:
            # A column for each would be empty in most rows.
            names = {name for one in named if isinstance(one, Mapping) for name in one} - {"class", "symbol"}
            frame = frame.drop(columns=[name for name in frame if name in names])
            frame.insert(2, "parameters", [_parameter_words(one) for one in named])
        hidden = [name for name in HIDDEN if name in frame and not (name == "error" and failed)]
        table = frame.drop(columns=hidden)
        return box("BacktestResults", words, f"took {format_seconds(self.outcomes.elapsed)}", table=table)

    def warn_if_all_equal(self) -> None:
        """A sweep whose results are all equal varied something that has no effect; say so."""
        done = [outcome.value.metrics for outcome in self.outcomes if outcome.ok]
        keys = ("final_equity", "n_fills", "max_drawdown")
        if len(done) > 1 and all(one[key] == done[0][key] for one in done for key in keys):
            warnings.warn(
                f"all {format_count(len(done))} backtests gave the same result ({join_words(keys)} are equal): what the configs "
                "vary has no effect on these bars",
                EqualResultsWarning,
                stacklevel=3,
            )

    def __repr__(self) -> str:
        """Counts."""
        failed = sum(not outcome.ok for outcome in self.outcomes)
        return f"<BacktestResults: {format_count(len(self) - failed)} ok, {format_count(failed)} failed>"


def _class_name(strategy: Any) -> str:
    return strategy.__qualname__ if isinstance(strategy, type) else str(strategy)


def _parameter_words(parameters: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) if isinstance(parameters, Mapping) else ""
