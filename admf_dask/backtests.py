"""`run_parallel_backtests`: many strategy configs, each one backtest, through the one motion of the runtime."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from admf_dask import ranking
from admf_dask.engine import BacktestResult, FrameDataHandler, StrategyConfig, choose_engine, run_compiled, run_event
from admf_dask.engine.coordinator import compiled_book, notes_of
from admf_dask.engine.result import FILL_COLUMNS
from admf_dask.errors import EngineError, TaskError
from admf_dask.events import Observer
from admf_dask.journal import Journal
from admf_dask.outcomes import Block, Curve, EqualResultsWarning, Outcome, error_words
from admf_dask.policy import Policy
from admf_dask.progress import observers_for
from admf_dask.runtime import Keep, MapEvaluator, Outcomes, Session, Title, session_for, settings_of
from admf_dask.runtime.evaluate import Rows
from admf_dask.space.items import Combinable
from admf_dask.text import did_you_mean, format_count, join_words
from admf_dask.yamlfile import read_yaml

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

ENGINES = ("auto", "event", "compiled")
SCORE = "sharpe_ratio"
"""What ranks while they run."""
TOLD = (SCORE, "total_return", "max_drawdown", "final_equity", "n_trades")
"""What the page and the journal hear of each backtest, beside its result."""
CURVES, POINTS = 5, 300
"""How many equity curves a chunk tells of, and their points."""


def run_parallel_backtests(
    strategy_configs: Any,
    data_handler: Any,
    workers: int | None = None,
    *,
    mode: str = "process",
    engine: str = "auto",
    session: Session | Client | None = None,
    rename: Mapping[str, str] | None = None,
    on_error: str = "record",
    timeout: float | None = None,
    journal: Journal | str | os.PathLike[str] | None = None,
    progress: bool | str | Observer = "auto",
) -> BacktestResults:
    """Do a backtest for each config, in parallel; results in the order of the configs.

    Parameters
    ----------
    strategy_configs
        A list of configs (`class, parameters, symbol, direction, fill, commission, slippage, initial_cash, lot_size,
        periods_per_year`), the path of a YAML file with such a list, or one config whose `parameters` is a `ParameterSpace`
        and whose `symbols` is a list, or "all": then one backtest for each combination and symbol.
    data_handler
        A `FrameDataHandler`, a DataFrame, or a mapping symbol -> DataFrame. Sent to each worker once.
    workers, mode, session
        As for `ParallelOptimizer`.
    engine
        `event`, `compiled`, or `auto`: compiled where the strategy states its targets over arrays, event elsewhere; each
        result says which and why.
    rename
        Maps parameter names of the configs to those of the strategies, such as `{"fast_window": "fast"}`.
    on_error, timeout, journal, progress
        As in `Session.map`. A config that fails is a failed row.

    Raises EngineError or DataError for what concerns all configs, TaskError when every config failed. Warns when all of
    several backtests gave the same. A compiled backtest of 2,000 bars costs about 0.1 ms, an event-driven one 5 microseconds
    a bar.
    """
    if engine not in ENGINES:
        raise EngineError(
            f"engine must be {join_words(ENGINES, 'or')}, but is {engine!r}{did_you_mean(engine, ENGINES)}"
        )
    handler = data_handler if isinstance(data_handler, FrameDataHandler) else FrameDataHandler(data_handler)
    configs = expand(strategy_configs, handler.symbols)
    evaluator = _Backtests(
        _Task(engine, dict(rename or {})), configs, (handler,), Policy.of(on_error=on_error, timeout=timeout)
    )
    with session_for(session, settings_of(None, workers, mode)) as open_session:
        run = open_session.run(evaluator, Title("backtest", "backtests"), observers_for(progress), journal)
        outcomes = Outcomes.gather(run, configs)
    results = BacktestResults(outcomes, handler, dict(rename or {}))
    results.warn_if_all_equal()
    return results


def expand(given: Any, symbols: Sequence[str]) -> list[dict[str, Any]]:
    """Configs as a list of mappings. Raises EngineError or ConfigError for what is neither a config nor a list of them."""
    if isinstance(given, (str, os.PathLike)):
        given = read_yaml(given)
        if isinstance(given, Mapping) and isinstance(given.get("configs"), list):
            given = given["configs"]
    many = [given] if isinstance(given, Mapping) else list(given) if isinstance(given, Sequence) else None
    if many is None or isinstance(given, (bytes, str)):
        raise EngineError(
            f"strategy_configs must be a list of mappings such as {{'class': 'sma_crossover', 'parameters': {{...}}}}, or a YAML "
            f"file with such a list, but is {given!r:.80}"
        )
    if not many:
        raise EngineError("strategy_configs is empty. Nothing to run.")
    return [one for config in many for one in _expand_one(config, symbols)]


def _expand_one(config: Any, symbols: Sequence[str]) -> Iterator[dict[str, Any]]:
    if isinstance(config, StrategyConfig):
        yield config.to_mapping()
        return
    if not isinstance(config, Mapping):
        raise EngineError(f"a strategy config must be a mapping with `class` and `parameters`, but is {config!r:.80}")
    plain = {key: value for key, value in config.items() if key != "symbols"}
    over = symbols if config.get("symbols") == "all" else config.get("symbols") or [config.get("symbol")]
    space = config.get("parameters")
    combinations = space.get_combinations() if isinstance(space, Combinable) else [space]
    for symbol in over:
        for parameters in combinations:
            yield {**plain, **({} if parameters is None else {"parameters": parameters}), "symbol": symbol}


@dataclass
class _Compact:
    """A result as it travels: what can be made again from the config and the bars stays behind."""

    metrics: dict[str, float]
    fills: NDArray[np.float64]
    equity: NDArray[np.float64] | None
    engine: str
    why: str
    ruined: bool
    notes: tuple[str, ...]
    curve: NDArray[np.float32] | None = None
    """The equity, thinned; it stays on the worker, unless it is one of the best."""


@dataclass(frozen=True)
class _Task:
    """One backtest on a worker."""

    engine: str
    rename: dict[str, str]

    def __call__(self, config: Mapping[str, Any], handler: FrameDataHandler) -> _Compact:
        parsed = StrategyConfig.from_mapping(config, rename=self.rename)
        engine, why = choose_engine(parsed) if self.engine == "auto" else (self.engine, f"engine={self.engine!r}")
        if engine == "compiled":
            metrics, fills, equity, ruined = compiled_book(parsed, handler.prices(parsed.symbol))
            return _Compact(metrics, fills, None, engine, why, ruined, notes_of(metrics), _thinned(equity))
        result = run_event(parsed, handler, why)
        columns = [result.fills[name].to_numpy(np.float64) for name in FILL_COLUMNS[1:]]
        equity = result.equity.to_numpy()
        return _Compact(
            dict(result.metrics),
            np.stack(columns, axis=1),
            equity,
            engine,
            why,
            result.ruined,
            result.notes,
            _thinned(equity),
        )


@dataclass(frozen=True)
class _Backtests(MapEvaluator):
    """The chunk of a worker: values as of any map, with their metrics as columns and the curves of the best few."""

    keep: Keep = field(default_factory=lambda: Keep(SCORE))

    def _pack(self, start: int, reached: int, rows: Rows, began: float) -> Block:
        curves = self._curves(*rows.table(), rows.values)
        block = super()._pack(start, reached, rows, began)
        found: list[_Compact] = rows.values
        columns = {name: np.array([value.metrics[name] for value in found], np.float64) for name in TOLD if found}
        return replace(block, columns=columns, curves=curves)

    def _curves(self, indices: NDArray[np.int64], seconds: Any, values: list[_Compact]) -> tuple[Curve, ...]:
        scores = np.array([value.metrics[SCORE] for value in values], np.float64)
        best = ranking.best(scores, indices, CURVES, maximize=True).tolist() if values else []
        found = [self._curve(int(indices[place]), values[place]) for place in best]
        for value in values:
            value.curve = None
        return tuple(found)

    def _curve(self, index: int, value: _Compact) -> Curve:
        assert value.curve is not None
        handler: FrameDataHandler = self.given[0]
        times: Any = handler.prices(StrategyConfig.from_mapping(self.items[index]).symbol).index
        dates = getattr(times, "dtype", None) is not None and times.dtype.kind == "M"
        thinned = times[_places(len(times))]
        x = thinned.tz_localize(None).as_unit("ms").asi8 if dates else np.arange(len(times))[_places(len(times))]
        return Curve(index, np.asarray(x, np.float64), value.curve, dates)


def _thinned(equity: NDArray[np.float64]) -> NDArray[np.float32]:
    return equity[_places(len(equity))].astype(np.float32)


def _places(count: int) -> slice:
    """At most `POINTS` places, evenly spread, the last one among them."""
    step = max(1, -(-count // POINTS))
    return slice((count - 1) % step, None, step)


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

        compact: _Compact = outcome.value
        parsed = StrategyConfig.from_mapping(outcome.item, rename=self._rename)
        if compact.equity is None:
            return run_compiled(parsed, self._handler, compact.why)
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
            item = outcome.item
            row = {
                "class": _class_name(item.get("class")),
                "symbol": item.get("symbol"),
                **(item.get("parameters") or {}),
            }
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

    def warn_if_all_equal(self) -> None:
        """A sweep whose results are all equal varied something that has no effect; say so."""
        done = [outcome.value.metrics for outcome in self.outcomes if outcome.ok]
        keys = ("final_equity", "n_fills", "max_drawdown")
        if len(done) > 1 and len({tuple(one[key] for key in keys) for one in done}) == 1:
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
    if not isinstance(strategy, (str, type)):
        raise TaskError(f"a strategy is a name or a class, but is {strategy!r:.80}")
    return strategy if isinstance(strategy, str) else strategy.__qualname__
