"""What a worker does with a chunk of configs: what a compiled call can do together is done together."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic_ns, perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask import ranking
from admf_dask.engine import FrameDataHandler, StrategyConfig, run_event
from admf_dask.engine.batch import FIGURES, Families, Family, chosen_engine, run_together
from admf_dask.engine.coordinator import compiled_book, notes_of
from admf_dask.engine.prices import Prices
from admf_dask.engine.result import FILL_COLUMNS
from admf_dask.outcomes import Block, Curve
from admf_dask.runtime import Keep, MapEvaluator
from admf_dask.runtime.calls import BEGAN
from admf_dask.runtime.chunks import Budget
from admf_dask.runtime.evaluate import LARGEST_RESULT, Rows, Stretch, Watch

SCORE = "sharpe_ratio"
"""What ranks while they run."""
TOLD = (SCORE, "total_return", "max_drawdown", "final_equity", "n_trades")
"""What the page and the journal hear of each backtest, beside its result."""
FIRST = 256
"""Configs of the first compiled call of a chunk; each next one grows by what was measured."""
CURVES, POINTS = 5, 300
"""How many equity curves a chunk tells of, and their points."""


@dataclass(slots=True)
class Compact:
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

    def __init__(self, values: list[Compact]) -> None:
        kinds = [(value.engine, value.why) for value in values]
        self.kinds = list(dict.fromkeys(kinds))
        places = {kind: place for place, kind in enumerate(self.kinds)}
        self.codes = bytes(places[kind] for kind in kinds) if len(places) < 256 else [places[kind] for kind in kinds]
        self.figures = np.array([[value.metrics[name] for name in FIGURES] for value in values], np.float64)
        self.whole = {place: value for place, value in enumerate(values) if value.equity is not None}

    def __iter__(self) -> Iterator[Compact]:
        """The results, in order."""
        for place, (code, row) in enumerate(zip(self.codes, self.figures.tolist(), strict=True)):
            if place in self.whole:
                yield self.whole[place]
            else:
                yield _compact(dict(zip(FIGURES, row, strict=True)), *self.kinds[code])


def _compact(metrics: dict[str, float], engine: str, why: str) -> Compact:
    return Compact(metrics, engine, why, metrics["final_equity"] <= 0.0, notes_of(metrics))


@dataclass(frozen=True)
class Task:
    """One backtest on a worker."""

    engine: str
    rename: dict[str, str]

    def __call__(self, config: Mapping[str, Any], handler: FrameDataHandler) -> Compact:
        parsed = StrategyConfig.from_mapping(config, rename=self.rename)
        engine, why = chosen_engine(self.engine, parsed)
        if engine == "compiled":
            metrics, _, equity, _ = compiled_book(parsed, handler.prices(parsed.symbol))
            return replace(_compact(metrics, engine, why), curve=thinned(equity))
        result = run_event(parsed, handler, why)
        columns = [result.fills[name].to_numpy(np.float64) for name in FILL_COLUMNS[1:]]
        equity = result.equity.to_numpy()
        return Compact(
            dict(result.metrics), engine, why, result.ruined, result.notes, np.stack(columns, axis=1), equity,
            thinned(equity),
        )  # fmt: skip


@dataclass(frozen=True)
class Backtests(MapEvaluator):
    """The chunk of a worker: as any map, but what a compiled call can do together is done together.

    Each result goes with its metrics as columns, and the equity curves of the best few.
    """

    function: Task
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
            high = watch.claim(low + len(configs))
            if high <= low:
                break
            configs, of = configs[: high - low], of[: high - low]
            if of and self._together(configs, of, low, rows, watch):
                low = high
            else:
                unlimited = Budget(inf, low, high, began)
                low = self._loop(Stretch.of(range(low, high), configs), low, high, rows, unlimited, watch)
            spent = max(perf_counter() - began, 1e-9)
            if spent > budget or self._fails(rows, low):
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
        rows.add(range(start, start + len(configs)))
        rows.seconds.append(((perf_counter() - before) / len(configs), len(configs)))
        return True

    def _payload(self, rows: Rows) -> bytes:
        packed = pickle.dumps(_Packed(rows.values), protocol=5)
        return packed if len(packed) <= LARGEST_RESULT else self._payload_singly(rows)

    def _pack(self, start: int, reached: int, rows: Rows, began: float) -> Block:
        curves = self._curves(*rows.table(), rows.values)
        block = super()._pack(start, reached, rows, began)
        found: list[Compact] = rows.values
        columns = {name: np.array([value.metrics[name] for value in found], np.float64) for name in TOLD if found}
        return replace(block, columns=columns, curves=curves)

    def _curves(self, indices: NDArray[np.int64], seconds: Any, values: list[Compact]) -> tuple[Curve, ...]:
        scores = np.array([value.metrics[SCORE] for value in values], np.float64)
        best = ranking.best(scores, indices, CURVES, maximize=True).tolist() if values else []
        found = [self._curve(int(indices[place]), values[place]) for place in best]
        for value in values:
            value.curve = None
        return tuple(found)

    def _curve(self, index: int, value: Compact) -> Curve:
        config = StrategyConfig.from_mapping(self.items[index], rename=self.function.rename)
        prices = self.given[0].prices(config.symbol)
        return drawn(index, prices, thinned(compiled_book(config, prices)[2]) if value.curve is None else value.curve)


def drawn(index: int, prices: Prices, y: NDArray[np.float32]) -> Curve:
    """A `thinned` equity over the times of its bars."""
    x, dates = prices.times.axis(_places(len(prices)))
    return Curve(index, x, y, dates)


def thinned(equity: NDArray[np.float64]) -> NDArray[np.float32]:
    """At most `POINTS` values of it, the last one among them."""
    return equity[_places(len(equity))].astype(np.float32)


def _places(count: int) -> slice:
    """Evenly spread."""
    step = max(1, -(-count // POINTS))
    return slice((count - 1) % step, None, step)
