"""Who backtests in `backtests.py`, each at its best: jobs in, final equities out, with Sharpe ratio and drawdown worked out too.

A job is (symbol, fast, slow). A contender is opened once with the bars of all symbols, and called with columns of jobs. Run as a
program (by `backtests.py`) this is one contender in a fresh process that talks in lines of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

FEES = 0.001
CASH = 1e6
Jobs = tuple[Any, Any, Any]
"""Symbol, fast and slow: int64 arrays of one shape, or the axes of a grid."""
Call = Callable[[Jobs], Any]


def bars_of(load: str) -> list[Any]:
    """A DataFrame for each symbol of a load: `daily`, or `random:SYMBOLS:BARS`."""
    if load == "daily":
        import pandas as pd
        from bokeh_sampledata.stocks import GOOG

        index = pd.DatetimeIndex(pd.to_datetime(GOOG["date"]), name="date")
        return [pd.DataFrame({k: GOOG[k] for k in ("open", "high", "low", "close", "volume")}, index).astype(float)]
    symbols, bars = map(int, load.split(":")[1:])
    return [generated(bars, seed) for seed in range(symbols)]


def generated(bars: int, seed: int) -> Any:
    """A geometric random walk with an open near the last close; hundredths would make many ties, which rounding decides."""
    import pandas as pd

    chance = np.random.default_rng(seed)
    close = (100 * np.exp(np.cumsum(chance.normal(0, 0.002, bars)))).round(6)
    opens = (np.concatenate([[100.0], close[:-1]]) * np.exp(chance.normal(0, 0.0005, bars))).round(6)
    table = pd.DataFrame({"open": opens, "close": close}, index=pd.date_range("2020-01-01", periods=bars, freq="min"))
    return table.assign(high=table.max(axis=1), low=table.min(axis=1), volume=1.0)


# -- ours --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def optimizer(frames: list[Any], slots: int, **session: Any) -> Iterator[Call]:
    """`ParallelOptimizer` over a grid, whose axes it is given in place of its jobs; the best 1,000 are kept."""
    from admf_dask import ParallelOptimizer, ParameterSpace, Session, backtest_objective

    objective = backtest_objective("sma_crossover", frames[0], commission=FEES)
    with Session(workers=slots, dashboard=None, **session) as open_session:

        def call(jobs: Jobs) -> Any:
            fast, slow = (column.tolist() for column in jobs[1:])
            space, keep = ParameterSpace({"fast": fast, "slow": slow}), 1000
            result = ParallelOptimizer(session=open_session).optimize(
                space, objective, score="sharpe_ratio", keep=keep, progress=False
            )
            if space.size > keep:
                return None
            return result.frame["final_equity"].to_numpy()

        yield call


@contextlib.contextmanager
def many(frames: list[Any], slots: int) -> Iterator[Call]:
    """`run_parallel_backtests`: each job a config, each result with its fills."""
    from admf_dask import Session, run_parallel_backtests
    from admf_dask.engine import FrameDataHandler

    handler = FrameDataHandler({str(place): frame for place, frame in enumerate(frames)})
    with Session(mode="process", workers=slots, dashboard=None) as session:

        def call(jobs: Jobs) -> Any:
            configs = [
                {"class": "sma_crossover", "parameters": {"fast": a, "slow": b}, "symbol": str(s), "commission": FEES}
                for s, a, b in zip(*(column.tolist() for column in jobs))
            ]
            results = run_parallel_backtests(configs, handler, session=session, progress=False)
            return np.array([outcome.value.metrics["final_equity"] for outcome in results.outcomes])

        yield call


@contextlib.contextmanager
def event_engine(frames: list[Any], slots: int) -> Iterator[Call]:
    """The event-driven engine, one book after another in this process."""
    from admf_dask.engine import FrameDataHandler, run_event

    handler = FrameDataHandler({str(place): frame for place, frame in enumerate(frames)})

    def call(jobs: Jobs) -> Any:
        return np.array([
            run_event(
                {"class": "sma_crossover", "parameters": {"fast": a, "slow": b}, "symbol": str(s), "commission": FEES}, handler
            )["final_equity"]
            for s, a, b in zip(*(column.tolist() for column in jobs))
        ])  # fmt: skip

    yield call


# -- hand-written loops ------------------------------------------------------------------------------------------------


def loops(kind: str) -> Any:
    """A compiled loop on all cores by threads: without chunks, failures, progress or exact ties."""

    @contextlib.contextmanager
    def opened(frames: list[Any], slots: int) -> Iterator[Call]:
        import hand_loops

        loop = getattr(hand_loops, kind)
        arrays = [tuple(frame[name].to_numpy(np.float64) for name in ("open", "close")) for frame in frames]
        with ThreadPoolExecutor(slots) as pool:

            def call(jobs: Jobs) -> Any:
                symbol, fast, slow = jobs
                out = np.empty((len(fast), 3))
                # In runs of one symbol, cut so that the cores end together.
                cuts = np.union1d(
                    np.flatnonzero(np.diff(symbol)) + 1, np.linspace(0, len(fast), 4 * slots + 1).astype(int)
                )
                parts = [(arrays[symbol[i]], fast[i:j], slow[i:j], out[i:j]) for i, j in pairwise(cuts)]
                list(pool.map(lambda part: loop(*part[0], part[1], part[2], FEES, part[3]), parts))
                return out[:, 0]

            yield call

    return opened


# -- other people's engines --------------------------------------------------------------------------------------------


def pooled(evaluate: str, chunk: int) -> Any:
    """A function of (frame, fasts, slows) on all cores by a pool of processes that have the bars; chunks of one symbol."""

    @contextlib.contextmanager
    def opened(frames: list[Any], slots: int) -> Iterator[Call]:
        if slots == 1:
            _remember(frames)
            yield lambda jobs: np.concatenate(list(map(_evaluate, _chunks(evaluate, chunk, jobs))))
            return
        library = evaluate.partition("_")[0] if _eager else "time"
        with multiprocessing.get_context("spawn").Pool(slots, _remember, (frames, library)) as pool:
            yield lambda jobs: np.concatenate(pool.map(_evaluate, _chunks(evaluate, chunk, jobs), chunksize=1))

    return opened


_eager: list[bool] = []
"""Not empty: all processes of a pool import their library at once, and not when they get their first chunk."""
_frames: list[Any] = []


def _remember(frames: list[Any], library: str = "time") -> None:
    _frames[:] = frames
    with contextlib.suppress(ImportError):  # which the first chunk tells
        importlib.import_module(library)


def _chunks(evaluate: str, chunk: int, jobs: Jobs) -> list[Any]:
    symbol, fast, slow = jobs
    cuts = np.union1d(np.append(np.arange(0, len(fast), chunk), len(fast)), np.flatnonzero(np.diff(symbol)) + 1)
    return [(evaluate, int(symbol[i]), fast[i:j], slow[i:j]) for i, j in pairwise(cuts.tolist())]


def _evaluate(task: tuple[str, int, Any, Any]) -> Any:
    evaluate, symbol, fast, slow = task
    value = globals()[evaluate](_frames[symbol], fast, slow)
    gc.collect()  # cycles would keep the chunks of vectorbt alive
    return value


def vectorbt_chunk(frame: Any, fast: Any, slow: Any) -> Any:
    """Moving averages once for each window, a column for each pair, signals shifted by one, filled at the open."""
    import vectorbt

    close, windows = frame["close"], {"short_name": "a", "run_unique": True}
    mean_fast = vectorbt.MA.run(close, fast.tolist(), **windows).ma.to_numpy().reshape(len(close), -1)
    mean_slow = vectorbt.MA.run(close, slow.tolist(), **windows).ma.to_numpy().reshape(len(close), -1)
    wanted = np.zeros(mean_fast.shape, bool)
    wanted[1:] = (mean_fast > mean_slow)[:-1]
    book = vectorbt.Portfolio.from_signals(
        close, wanted, ~wanted, price=frame["open"], fees=FEES, init_cash=CASH, freq="D"
    )
    book.sharpe_ratio(), book.max_drawdown()
    return np.atleast_1d(np.asarray(book.final_value(), np.float64))


def backtesting_chunk(frame: Any, fast: Any, slow: Any) -> Any:
    """One run for each pair, the difference of the averages as its indicator, in units of a millionth share."""
    import warnings

    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    warnings.simplefilter("ignore")
    sys.modules["backtesting.backtesting"]._tqdm = lambda iterable, **_: iterable

    class Crossover(Strategy):  # type: ignore[misc]
        fast = 10
        slow = 50

        def init(self) -> None:
            close = self.data.Close.s
            ahead = close.rolling(self.fast).mean() - close.rolling(self.slow).mean()
            # Without the gap at the start, whose length it would skip and one bar more.
            self.ahead = self.I(lambda: ahead.fillna(0.0).to_numpy())

        def next(self) -> None:
            if self.ahead[-1] > 0:
                if not self.position:
                    self.buy(size=1 - 1e-16)
            elif self.position:
                self.position.close()

    book = FractionalBacktest(
        frame.rename(columns=str.capitalize), Crossover, cash=CASH, commission=FEES, fractional_unit=1e-6
    )
    return np.array([book.run(fast=a, slow=b)["Equity Final [$]"] for a, b in zip(fast.tolist(), slow.tolist())])


def backtrader_chunk(frame: Any, fast: Any, slow: Any) -> Any:
    """One Cerebro for each pair, with its own indicators, filled at the next open."""
    import backtrader

    class Crossover(backtrader.Strategy):  # type: ignore[misc]
        params = (("fast", 10), ("slow", 50))

        def __init__(self) -> None:
            self.a = backtrader.indicators.SMA(period=self.p.fast)
            self.b = backtrader.indicators.SMA(period=self.p.slow)

        def next_open(self) -> None:
            # The averages still end at the bar before.
            if self.a[0] > self.b[0]:
                if not self.position:
                    self.buy(size=self.broker.getcash() / (self.data.open[0] * (1 + FEES)) * (1 - 1e-13))
            elif self.position:
                self.order_target_size(target=0)

    equity = []
    for a, b in zip(fast.tolist(), slow.tolist()):
        cerebro = backtrader.Cerebro(stdstats=False, cheat_on_open=True)
        cerebro.adddata(backtrader.feeds.PandasData(dataname=frame))
        cerebro.addstrategy(Crossover, fast=a, slow=b)
        cerebro.broker.setcash(CASH)
        cerebro.broker.setcommission(FEES)
        cerebro.broker.set_checksubmit(False)
        cerebro.run()
        equity.append(cerebro.broker.getvalue())
    return np.array(equity)


@contextlib.contextmanager
def raptorbt(frames: list[Any], slots: int) -> Iterator[Call]:
    """Signals from running sums, handed in for chunks of jobs; its own threads."""
    import raptorbt as engine

    config = engine.BacktestConfig(initial_capital=CASH, fees=FEES, fill_timing="next_bar_open", periods_per_year=252)
    sets = []
    for frame in frames:
        columns = [frame[name].to_numpy(np.float64) for name in ("open", "high", "low", "close", "volume")]
        times = frame.index.to_numpy().astype("datetime64[ns]").astype(np.int64)
        sets.append((times, *columns, np.concatenate([[0.0], np.cumsum(columns[3])])))

    def wanted(sums: Any, a: int, b: int) -> Any:
        out, first = np.zeros(len(sums) - 1, bool), max(a, b)
        now = sums[first:]
        out[first - 1 :] = (now - sums[first - a : len(sums) - a]) * b > (now - sums[first - b : len(sums) - b]) * a
        return out

    def call(jobs: Jobs) -> Any:
        equity = []
        for _, symbol, fast, slow in _chunks("", max(1, 200_000 // len(frames[0])), jobs):
            *bars, sums = sets[symbol]
            signals = [wanted(sums, a, b) for a, b in zip(fast.tolist(), slow.tolist())]
            items = [engine.BatchSingleItem(str(place), one, ~one) for place, one in enumerate(signals)]
            equity += [result.metrics.end_value for _, result in engine.batch_single_backtest(*bars, items, config)]
        return np.array(equity)

    yield call


CONTENDERS: dict[str, Any] = {
    "admf_dask optimize": optimizer,
    "admf_dask optimize, thread": lambda frames, slots: optimizer(frames, slots, mode="thread"),
    "admf_dask backtests": many,
    "admf_dask event engine": event_engine,
    "numba loop, plain": loops("plain_loop"),
    "numba loop, tuned": loops("tuned_loop"),
    "raptorbt": raptorbt,
    "vectorbt": pooled("vectorbt_chunk", 250),
    "vectorbt, long": pooled("vectorbt_chunk", 2),
    "backtesting.py": pooled("backtesting_chunk", 4),
    "backtrader": pooled("backtrader_chunk", 1),
}


def main(name: str, load: str, slots: int, began: float, *eager: str) -> None:
    """Open, give the first result, then obey lines: a list of jobs to answer with equities, or a number of rounds to time."""
    _eager.extend(map(bool, eager))
    with contextlib.redirect_stdout(sys.stderr):
        frames = bars_of(load)
        with CONTENDERS[name](frames, slots) as call:
            call(tuple(np.array([value]) for value in (0, 10, 50)))
            _tell({"first": time.perf_counter() - began})
            for line in sys.stdin:
                order = json.loads(line)
                with np.load(order["jobs"]) as columns:
                    jobs = tuple(columns.values())
                spent, equity = [], None
                for _ in range(order["rounds"]):
                    start = time.perf_counter()
                    equity = call(jobs)
                    spent.append(time.perf_counter() - start)
                _tell(
                    {
                        "seconds": spent,
                        "equity": None if equity is None or len(equity) > 100 else list(map(float, equity)),
                    }
                )


def _tell(value: Any) -> None:
    print(json.dumps(value), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), *sys.argv[5:])
