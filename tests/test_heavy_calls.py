"""A big object that a function takes along is answered with one sentence that shows what to write; by nothing else."""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shared_work as work

from admf_dask import (
    ParallelDataProcessor,
    ParallelOptimizer,
    ParameterSpace,
    Session,
    backtest_objective,
    datasets,
    run_parallel_backtests,
)
from admf_dask.runtime.pack import HeavyCallWarning

pytestmark = pytest.mark.cluster
ROWS = 400_000
FRAME = pd.DataFrame(np.arange(4.0 * ROWS).reshape(ROWS, 4), columns=list("abcd"))
MIB = 2**20


class Model:
    """Something that holds a frame."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def total(self, i: int) -> float:
        """Of one column."""
        return float(self.frame.iloc[:, i].sum())

    __call__ = total


def as_default() -> Callable[[int], float]:
    def by_default(i: int, frame: pd.DataFrame = FRAME) -> float:
        return float(frame.iloc[:, i].sum())

    return by_default


def in_closure() -> Callable[[int], float]:
    frame = FRAME

    def closed(i: int) -> float:
        return float(frame.iloc[:, i].sum())

    return closed


def in_what_it_calls() -> Callable[[int], float]:
    inner = in_closure()

    def outer(i: int) -> float:
        return inner(i)

    return outer


def as_global() -> Callable[[int], float]:
    # As in a script or a notebook: there a function takes its globals along.
    names: dict[str, Any] = {"prices": FRAME, "__name__": "__main__"}
    exec("def of_global(i):\n    return float(prices.iloc[:, i].sum())", names)
    found: Callable[[int], float] = names["of_global"]
    return found


HEAVY: dict[str, tuple[Callable[[], Callable[[int], float]], str]] = {
    "closure": (
        in_closure,
        r"`closed` carries .* as `frame`; give it as data=frame and write `def closed\(item, frame\)`",
    ),
    "closure of what it calls": (in_what_it_calls, r"as `frame`; give it as data=frame"),
    "default": (as_default, r"as `frame`; give it as data=frame and write `def by_default\(item, frame\)`"),
    "global": (as_global, r"as `prices`; give it as data=prices and write `def of_global\(item, prices\)`"),
    "partial": (
        lambda: functools.partial(work.total, frame=FRAME),
        r"as `frame`; give it as data=frame and write `def total\(",
    ),
    "partial by place": (lambda: functools.partial(work.of_frame, FRAME), r"as `frame`; give it as data=frame"),
    "method": (
        lambda: Model(FRAME).total,
        r"as `self\.frame`; give it as data=frame and write `def total\(item, frame\)`",
    ),
    "callable object": (lambda: Model(FRAME), r"`Model` carries .* as `self\.frame`; give it as data=frame"),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_one_sentence_shows_what_to_write_and_nobody_scolds(
    process_session: Session, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, words = HEAVY[kind]
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = process_session.map(make(), range(4), progress=False).values()
    assert found == [float(FRAME.iloc[:, i].sum()) for i in range(4)]
    assert [warning.category for warning in caught] == [HeavyCallWarning]
    sentence = str(caught[0].message)
    assert re.search(words, sentence), sentence
    assert "\n" not in sentence
    assert __file__ == caught[0].filename
    assert "large" not in sentence + caplog.text.lower()


def test_items_that_are_heavy_are_answered_too(process_session: Session) -> None:
    frames = [FRAME[["a", "b"]], FRAME[["c", "d"]]]
    with pytest.warns(HeavyCallWarning, match=r"give what is large as data= \(a mapping, say\)"):
        found = process_session.map(work.sum_of, frames, progress=False)
    assert found.values() == [float(frame.to_numpy().sum()) for frame in frames]


# -- what is shared without being asked for ----------------------------------------------------------------------------


def long_prices(rows: int = 300_000) -> pd.DataFrame:
    close = 100 + np.random.default_rng(0).normal(size=rows).cumsum() * 0.01
    columns = {"open": close, "high": close + 1, "low": close - 1, "close": close}
    return pd.DataFrame(columns, index=pd.date_range("2000", periods=rows, freq="min"))


class Watch:
    """What the workers hold of their own, and what is shared, before and now."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.before = self.look()

    def look(self) -> tuple[int, int]:
        table = self.session.memory()
        private = table.loc[table.index.str.startswith("worker"), "private"].sum()
        return int(private), int(table.loc["shared data", "total"])

    def grown(self) -> tuple[int, int]:
        return tuple(now - was for now, was in zip(self.look(), self.before, strict=True))  # type: ignore[return-value]


def test_symbols_share_their_frames(process_session: Session) -> None:
    tables = {f"S{i}": pd.DataFrame({"close": np.full(2_000_000, float(i))}) for i in range(6)}
    process_session.map(abs, range(4), progress=False)
    watch = Watch(process_session)
    found = ParallelDataProcessor(session=process_session).process_symbols(
        list(tables), work.sum_of_symbol, data=tables, progress=False
    )
    assert [found[name] for name in tables] == [2_000_000.0 * i for i in range(6)]
    private, shared = watch.grown()
    assert shared >= 6 * 16_000_000
    assert private < 40 * MIB


def test_backtests_share_their_bars(process_session: Session) -> None:
    prices = long_prices()
    tables = {f"S{i}": prices * (i + 1) for i in range(4)}
    configs = [{"class": "sma_crossover", "parameters": {"fast": 5, "slow": 50}, "symbol": name} for name in tables]
    short = {name: table[:1000] for name, table in tables.items()}
    run_parallel_backtests(configs, short, session=process_session, engine="compiled", progress=False)
    watch = Watch(process_session)
    results = run_parallel_backtests(configs, tables, session=process_session, engine="compiled", progress=False)
    assert len(results.ok) == 4
    private, shared = watch.grown()
    assert shared >= 4 * 300_000 * 4 * 8
    # The book of a run has some arrays of a symbol's length; copies of the bars would be 73 MiB.
    assert private < 40 * MIB, private / MIB


def test_an_objective_shares_its_prices_and_nobody_is_warned(process_session: Session) -> None:
    space = ParameterSpace({"fast": [3, 5], "slow": [20, 50]})
    optimizer = ParallelOptimizer(session=process_session)
    optimizer.optimize(
        space, backtest_objective("sma_crossover", datasets.load_prices("AAPL")), score="sharpe_ratio", progress=False
    )
    watch = Watch(process_session)
    prices = long_prices(1_500_000)
    objective = backtest_objective("sma_crossover", prices)
    result = optimizer.optimize(space, objective, score="sharpe_ratio", progress=False)
    assert len(result.frame) == 4
    assert watch.grown()[1] >= 1_500_000 * 4 * 8
