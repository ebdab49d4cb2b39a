"""`run_parallel_backtests`: many strategy configs, each one backtest, through the one motion of the runtime."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from time import monotonic_ns, perf_counter
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from admf_dask import ranking
from admf_dask.engine import BacktestResult, FrameDataHandler, StrategyConfig, run_compiled, run_event
from admf_dask.engine.batch import FIGURES, Families, Family, chosen_engine, run_together
from admf_dask.engine.coordinator import compiled_book, notes_of
from admf_dask.engine.result import FILL_COLUMNS
from admf_dask.errors import EngineError
from admf_dask.events import Observer
from admf_dask.journal import Journal
from admf_dask.outcomes import Block, Curve, EqualResultsWarning, Outcome, error_words
from admf_dask.policy import Policy
from admf_dask.progress import observers_for
from admf_dask.progress.afterwards import told_of
from admf_dask.rich import box
from admf_dask.runtime import Keep, MapEvaluator, Outcomes, Session, Title, session_for, settings_of
from admf_dask.runtime.calls import BEGAN
from admf_dask.runtime.evaluate import LARGEST_RESULT, Rows, Watch
from admf_dask.space.items import Combinable
from admf_dask.text import did_you_mean, format_count, format_seconds, join_words
from admf_dask.yamlfile import read_yaml

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

ENGINES = ("auto", "event", "compiled")
SCORE = "sharpe_ratio"
"""What ranks while they run."""
TOLD = (SCORE, "total_return", "max_drawdown", "final_equity", "n_trades")
"""What the page and the journal hear of each backtest, beside its result."""
FIRST = 256
"""Configs of the first compiled call of a chunk; each next one grows by what was measured."""
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


@dataclass(slots=True)
class _Compact:
    """A result as it travels: what can be made again from the config and the bars stays behind."""

    metrics: dict[str, float]
    engine: str
    why: str
    ruined: bool
    notes: tuple[str, ...]
    fills: NDArray[np.float64] | None = None
    """With the equity, of a book that the event engine did; compiled ones are done again when they are asked for."""
    equity: NDArray[np.float64] | None = None
    curve: NDArray[np.float32] | None = None
    """The equity, thinned; it stays on the worker, unless it is one of the best."""


class _Packed:
    """Many results: figures as one array, and what else there is of those that are more than figures."""

    def __init__(self, values: list[_Compact]) -> None:
        kinds = [(value.engine, value.why) for value in values]
        self.kinds = list(dict.fromkeys(kinds))
        places = {kind: place for place, kind in enumerate(self.kinds)}
        self.codes = bytes(places[kind] for kind in kinds) if len(places) < 256 else [places[kind] for kind in kinds]
        self.figures = np.array([[value.metrics[name] for name in FIGURES] for value in values], np.float64)
        self.whole = {place: value for place, value in enumerate(values) if value.equity is not None}

    def __iter__(self) -> Iterator[_Compact]:
        """The results, in order."""
        for place, (code, row) in enumerate(zip(self.codes, self.figures.tolist(), strict=True)):
            if place in self.whole:
                yield self.whole[place]
            else:
                yield _compact(dict(zip(FIGURES, row, strict=True)), *self.kinds[code])


def _compact(metrics: dict[str, float], engine: str, why: str) -> _Compact:
    return _Compact(metrics, engine, why, metrics["final_equity"] <= 0.0, notes_of(metrics))


@dataclass(frozen=True)
class _Task:
    """One backtest on a worker."""

    engine: str
    rename: dict[str, str]

    def __call__(self, config: Mapping[str, Any], handler: FrameDataHandler) -> _Compact:
        parsed = StrategyConfig.from_mapping(config, rename=self.rename)
        engine, why = chosen_engine(self.engine, parsed)
        if engine == "compiled":
            metrics, _, equity, _ = compiled_book(parsed, handler.prices(parsed.symbol))
            return replace(_compact(metrics, engine, why), curve=_thinned(equity))
        result = run_event(parsed, handler, why)
        columns = [result.fills[name].to_numpy(np.float64) for name in FILL_COLUMNS[1:]]
        equity = result.equity.to_numpy()
        return _Compact(
            dict(result.metrics), engine, why, result.ruined, result.notes, np.stack(columns, axis=1), equity,
            _thinned(equity),
        )  # fmt: skip


@dataclass(frozen=True)
class _Backtests(MapEvaluator):
    """The chunk of a worker: as any map, but what a compiled call can do together is done together.

    Each result goes with its metrics as columns, and the equity curves of the best few.
    """

    function: _Task
    keep: Keep = field(default_factory=lambda: Keep(SCORE))

    def __call__(self, start: int, stop: int, budget: float, watch: Watch) -> Block:
        """Evaluate `[start, stop)`, or the part of it that fits in `budget` seconds."""
        if self.policy.timeout is not None or self.function.engine == "event":
            # A timeout is for one backtest.
            return super().__call__(start, stop, budget, watch)
        began, rows = perf_counter(), Rows()
        families = Families(self.function.engine, self.function.rename, self.given[0])
        low, size = start, FIRST
        while low < stop:
            configs, of = self._alike(families, low, min(stop, low + size))
            if of and self._together(configs, of, low, rows, watch):
                low += len(configs)
            else:
                low = self._loop(range(low, low + len(configs)), configs, rows, inf, watch)
            spent = max(perf_counter() - began, 1e-9)
            if spent > budget or watch.cancelled.is_set():
                break
            size = max(64, min(4 * size, int((low - start) / spent * (budget - spent)))) if of else FIRST
        return self._pack(start, low, rows, began)

    def _alike(self, families: Families, start: int, stop: int) -> tuple[list[Any], list[Family]]:
        """Configs from `start` on that can be done together, with their families; or one that cannot, without."""
        configs: list[Any] = []
        found: list[Family] = []
        for index in range(start, stop):
            config = self.items[index]
            family = families.of(config)
            if family is None:
                return (configs, found) if configs else ([config], [])
            configs.append(config)
            found.append(family)
        return configs, found

    def _together(self, configs: list[Any], of: list[Family], start: int, rows: Rows, watch: Watch) -> bool:
        """Do them in few compiled calls; False if that failed, and each has to say for itself why."""
        cells, at = watch.note(start, len(configs))
        before = perf_counter()
        try:
            cells[at + BEGAN] = monotonic_ns()
            figures = run_together(configs, of, self.given[0]).tolist()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self.interruptible:
                raise
            return False
        finally:
            cells[at + BEGAN] = 0
        rows.values += [
            _compact(dict(zip(FIGURES, row, strict=True)), one.engine, one.why)
            for row, one in zip(figures, of, strict=True)
        ]
        rows.spans.append(range(start, start + len(configs)))
        rows.seconds.append(((perf_counter() - before) / len(configs), len(configs)))
        return True

    def _payload(self, rows: Rows) -> bytes:
        packed = pickle.dumps(_Packed(rows.values), protocol=5)
        return packed if len(packed) <= LARGEST_RESULT else self._payload_singly(rows)

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
        config = StrategyConfig.from_mapping(self.items[index], rename=self.function.rename)
        prices = self.given[0].prices(config.symbol)
        y = _thinned(compiled_book(config, prices)[2]) if value.curve is None else value.curve
        x, dates = prices.times.axis(_places(len(prices)))
        return Curve(index, x, y, dates)


def _drawn(index: int, times: Any, thinned: NDArray[np.float32]) -> Curve:
    places, dates = _places(len(times)), getattr(times, "dtype", None) is not None and times.dtype.kind == "M"
    x = times[places].tz_localize(None).as_unit("ms").asi8 if dates else np.arange(len(times))[places]
    return Curve(index, np.asarray(x, np.float64), thinned, dates)


def _curve_of(index: int, equity: pd.Series) -> Curve:
    return _drawn(index, equity.index, _thinned(equity.to_numpy()))


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
            curves=tuple(_curve_of(int(index), self[int(index)].equity) for index in best),
        )  # fmt: skip
        return save_report(told, Path(path))

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
