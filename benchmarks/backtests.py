"""Backtests a second: ours end to end against a plain numba loop, with parity checked before timing.

    python benchmarks/backtests.py            some minutes
    python benchmarks/backtests.py --quick    about two

W1: SMA crossovers on daily GOOG (2,148 bars, next-open fill, 0.1 %), many combinations. W2: 1,000 combinations on 500,000
generated one-minute bars. W3: 500 generated symbols x 2,500 bars x 20 combinations, each a backtest with its fills and metrics.
The plain loop is what a good programmer writes in an afternoon: one pass with running sums and the same three figures, on the
same cores by threads, without chunks, failures, progress or ties. Other people's engines are not run here yet.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import common
import numba
import numpy as np

FEES = 0.001


def main() -> int:
    """Run, print, write."""
    given = common.options("Backtests a second.", rounds=5, quick_rounds=3)
    facts = common.describe_machine()
    common.print_machine(facts)
    from admf_dask import Session

    figures: dict[str, Any] = {"machine": facts}
    with Session(mode="process", workers=given.slots, dashboard=None) as session:
        for name, work in (("W1", w1), ("W2", w2), ("W3", w3)):
            if common.chosen(["W1", "W2", "W3"], given.only).count(name):
                title, rows = work(session, given.slots, given.quick, given.rounds)
                figures[name] = rows
                common.print_table(
                    title,
                    ("contender", "backtests", "time", "a second", "x ours"),
                    table(rows),
                    markdown=given.markdown,
                )
                sys.stdout.flush()
    common.write_json(given.json, figures)
    return 0


def table(rows: dict[str, tuple[int, float]]) -> list[list[str]]:
    """Ours first; "x ours" below 1 is slower than ours."""
    count, seconds = next(iter(rows.values()))
    ours = count / seconds
    return [[n, f"{c:,}", f"{s:.2f} s", f"{c / s:,.0f}", f"{c / s / ours:.2f}"] for n, (c, s) in rows.items()]


@numba.njit(nogil=True)
def plain_loop(opens, closes, fast, slow, fees, out):  # type: ignore[no-untyped-def]
    """Final equity, maximum drawdown and Sharpe ratio of each pair of windows."""
    for k in range(len(fast)):
        a, b, cash, quantity, target = fast[k], slow[k], 1e6, 0.0, 0
        sum_a = sum_b = total = squares = worst = 0.0
        equity = peak = 1e6
        for t in range(len(closes)):
            if target == 1 and quantity == 0.0:
                quantity = cash / (opens[t] * (1 + fees))
                cash = 0.0
            elif target == 0 and quantity > 0.0:
                cash += quantity * opens[t] * (1 - fees)
                quantity = 0.0
            sum_a += closes[t] - (closes[t - a] if t >= a else 0.0)
            sum_b += closes[t] - (closes[t - b] if t >= b else 0.0)
            target = 1 if t >= max(a, b) - 1 and sum_a / a > sum_b / b else 0
            before, equity = equity, cash + quantity * closes[t]
            change = equity / before - 1
            total += change
            squares += change * change
            peak = max(peak, equity)
            worst = max(worst, 1 - equity / peak)
        mean = total / (len(closes) - 1)
        deviation = np.sqrt(max(0.0, (squares / (len(closes) - 1) - mean * mean)))
        out[k] = equity, worst, mean / deviation * np.sqrt(252.0) if deviation > 0 else np.nan


def loop_on(slots: int, opens: Any, closes: Any, fast: Any, slow: Any) -> Any:
    """The plain loop on all cores, by threads."""
    out = np.empty((len(fast), 3))
    cuts = np.linspace(0, len(fast), 4 * slots + 1).astype(int)
    with ThreadPoolExecutor(slots) as pool:
        parts = [(fast[i:j], slow[i:j], FEES, out[i:j]) for i, j in pairwise(cuts)]
        for one in [pool.submit(plain_loop, opens, closes, *part) for part in parts]:
            one.result()
    return out


def timed(rounds: int, call: Callable[[], Any]) -> tuple[float, Any]:
    """Median seconds after one call to warm up, and what the last call returned."""
    value, seconds = call(), []
    for _ in range(rounds):
        began = time.perf_counter()
        value = call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), value


def sweep(session: Any, slots: int, rounds: int, prices: Any, fast: range, slow: range) -> dict[str, tuple[int, float]]:
    """Ours and the plain loop over a grid, equal to 1e-9 but for ties that rounding decides."""
    from admf_dask import ParallelOptimizer, ParameterSpace, backtest_objective

    space = ParameterSpace({"fast": fast, "slow": slow})
    objective = backtest_objective("sma_crossover", prices, commission=FEES)
    optimizer = ParallelOptimizer(session=session)
    ours, result = timed(rounds, lambda: optimizer.optimize(space, objective, score="sharpe_ratio", progress=False))
    columns = space.columns(0, space.size)
    arrays = [prices[name].to_numpy(np.float64) for name in ("open", "close")]
    windows = [columns[name].astype(np.int64) for name in ("fast", "slow")]
    theirs, equity = timed(rounds, lambda: loop_on(slots, *arrays, *windows))
    same = np.isclose(result.columns["final_equity"], equity[:, 0], rtol=1e-9).mean()
    assert same > 0.97, f"only {same:.1%} of the combinations agree"
    print(f"\nparity with the plain loop: {same:.2%} of {space.size:,} (the others differ in exact ties)")
    return {"admf_dask optimize": (space.size, ours), "plain numba loop": (space.size, theirs)}


def w1(session: Any, slots: int, quick: bool, rounds: int) -> tuple[str, dict[str, tuple[int, float]]]:
    """Daily prices."""
    from admf_dask import datasets

    prices = datasets.load_prices("GOOG")
    rows = sweep(session, slots, rounds, prices, range(2, 102 if quick else 502), range(3, 1003 if quick else 2003))
    return "W1: daily GOOG, 2,148 bars", rows


def w2(session: Any, slots: int, quick: bool, rounds: int) -> tuple[str, dict[str, tuple[int, float]]]:
    """Minute bars."""
    prices = generated(100_000 if quick else 500_000, seed=1)
    rows = sweep(session, slots, max(1, rounds // 2), prices, range(10, 510, 25), range(20, 1020, 20))
    return f"W2: {len(prices):,} one-minute bars", rows


def w3(session: Any, slots: int, quick: bool, rounds: int) -> tuple[str, dict[str, tuple[int, float]]]:
    """Many symbols."""
    from admf_dask import ParameterSpace, run_parallel_backtests
    from admf_dask.engine import FrameDataHandler

    frames = {f"S{number:03d}": generated(2_500, seed=number) for number in range(100 if quick else 500)}
    handler = FrameDataHandler(frames)
    space = ParameterSpace({"fast": [5, 10, 15, 20], "slow": [30, 50, 100, 150, 200]})
    config = {"class": "sma_crossover", "parameters": space, "symbols": "all", "commission": FEES}
    seconds, results = timed(
        max(1, rounds // 2), lambda: run_parallel_backtests(config, handler, session=session, progress=False)
    )
    return f"W3: {len(frames)} symbols x 2,500 bars x 20", {"admf_dask run_parallel_backtests": (len(results), seconds)}


def generated(bars: int, seed: int) -> Any:
    """A geometric random walk, with an open near the last close."""
    import pandas as pd

    chance = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(chance.normal(0, 0.002, bars)))
    opens = np.concatenate([[100.0], close[:-1]]) * np.exp(chance.normal(0, 0.0005, bars))
    table = pd.DataFrame({"open": opens, "close": close}, index=pd.date_range("2020-01-01", periods=bars, freq="min"))
    return table.assign(high=table.max(axis=1), low=table.min(axis=1))


if __name__ == "__main__":
    raise SystemExit(main())
