"""`BacktestResults`: what became of many backtests, as results, tables and a report."""

from __future__ import annotations

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
from admf_dask.outcomes import Curve, EqualResultsWarning, Outcome, error_words
from admf_dask.progress.afterwards import told_of
from admf_dask.rich import box
from admf_dask.runtime import Outcomes
from admf_dask.text import format_count, format_seconds, join_words

if TYPE_CHECKING:
    import pandas as pd


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
        outcome = self.outcomes[index]
        if outcome.error is not None:
            raise outcome.error
        return self._whole(outcome)

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

    def equity_of(self, configs: Sequence[int]) -> pd.DataFrame:
        """The equity curves of some configs, such as the best ten: `results.frame.nlargest(10, "sharpe_ratio").index`."""
        import pandas as pd

        columns = {place: self[place].equity for place in configs if self.outcomes[place].ok}
        return pd.DataFrame(columns).rename_axis(columns="config")

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens without a network: Sharpe ratios, heatmaps, equity of the best, the failures.

        Returns the path. About 4 MB, most of them the library that draws; costs a second. Raises OSError where it cannot be
        written.
        """
        from admf_dask.page.report import save_report

        configs = [outcome.item for outcome in self.outcomes]
        scores = np.array([outcome.value.metrics[SCORE] for outcome in self.outcomes if outcome.ok], np.float64)
        indices = np.array([outcome.index for outcome in self.outcomes if outcome.ok], np.int64)
        best = indices[ranking.best(scores, indices, CURVES, maximize=True)] if len(scores) else ()
        told = told_of(
            configs, self.outcomes, kind="backtest", name="Backtests", elapsed=self.outcomes.elapsed,
            total=self.outcomes.total, score=SCORE, scores=scores,
            curves=tuple(self._curve(int(index)) for index in best),
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
        hidden = [name for name in ("seconds", "engine", "ruined", "error") if name in frame]
        table = frame.drop(columns=hidden if len(self) > failed else hidden[:-1])
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
