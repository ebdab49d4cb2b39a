"""What it costs that nothing is lost: the same sweeps plain, with a timeout, with a journal, with both and retries.

    python benchmarks/care.py            some minutes
    python benchmarks/care.py --quick    about a minute

Each round runs all variants on one open session, in turn; a variant's ratio is the median over rounds of its time to the
plain run's of the same round; "driver's CPU" is what more is spent there, as a share of the time of all slots. The compiled
sweeps are SMA crossovers: on as many generated bars as make 100,000 evaluations a second, which the goal names, and on real
prices as fast as it goes, where a record for each chunk shows most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import work
from books import generated
from foreign import LIMIT, foreign_share
from loads import calibrate

GOAL = 1.03
RATE = 100_000.0
"""Evaluations a second of the sweep that the goal names."""
FIRST_BARS = 20_000


def main() -> int:
    """Run, print, write. Returns 0: what is missed is printed."""
    given = common.options("The cost of timeouts and journals.", rounds=9, quick_rounds=5)
    facts = common.describe_machine()
    common.print_machine(facts)
    from admf_dask import ParallelOptimizer, Session

    figures: dict[str, Any] = {"machine": facts}
    with (
        tempfile.TemporaryDirectory() as folder,
        Session(mode="process", workers=given.slots, dashboard=None) as session,
    ):
        optimizer = ParallelOptimizer(session=session)
        runs = sweeps(optimizer, given)
        for name in common.chosen(list(runs), given.only):
            run = runs[name]
            laps = race(run, Path(folder), given.rounds)
            figures[name] = {variant: [asdict(lap) for lap in found] for variant, found in laps.items()}
            report(name, laps, given.slots, given.markdown)
    common.write_json(given.json, figures)
    return 0


def sweeps(optimizer: Any, given: argparse.Namespace) -> dict[str, Callable[..., Any]]:
    """Name -> a run that takes the options of `optimize`."""
    from admf_dask import ParameterSpace, backtest_objective, datasets

    def side(whole: int, quick: int, brief: int) -> range:
        return range(common.of_form(given, whole, quick, brief))

    light = {"fast": side(1000, 400, 200), "slow": range(250), "loops": [calibrate(10e-6)]}
    heavy = {"fast": side(40, 20, 6), "slow": range(10), "loops": [calibrate(20e-3)]}
    crossover = backtest_objective("sma_crossover", datasets.load_prices("GOOG"), commission=0.001)
    compiled = ParameterSpace({"fast": range(2, 302), "slow": side(3502, 502, 502)[2:]})

    def of(space: Any, objective: Any, **fixed: Any) -> Callable[..., Any]:
        return lambda **options: optimizer.optimize(space, objective, progress=False, **fixed, **options)

    some = ParameterSpace({"fast": range(2, 302), "slow": side(2002, 502, 152)[2:]})

    def on(bars: int) -> Callable[..., Any]:
        return of(
            some, backtest_objective("sma_crossover", generated(bars, seed=1), commission=0.001), score="sharpe_ratio"
        )

    bars = bars_for(RATE, lambda bars: on(bars)())
    return {
        f"light: {len(light['fast']) * 250:,} of 10 µs": of(light, work.objective),
        f"heavy: {len(heavy['fast']) * 10:,} of 20 ms": of(heavy, work.objective),
        f"at 100,000 a second: {some.size:,} backtests on {bars:,} bars": on(bars),
        f"compiled: {compiled.size:,} backtests": of(compiled, crossover, score="sharpe_ratio"),
    }


def bars_for(rate: float, run: Callable[[int], Any]) -> int:
    """Bars on which `run(bars)`, a compiled sweep, makes `rate` evaluations a second, as found by trying."""
    bars = FIRST_BARS
    run(bars)
    for _ in range(2):
        began = time.perf_counter()
        evaluated = run(bars).total_evaluations
        bars = int(bars * evaluated / (time.perf_counter() - began) / rate)
    return bars


@dataclass(frozen=True)
class Lap:
    """One timed run."""

    seconds: float
    cpu: float
    """CPU seconds of the driver. Workers do the same with and without a journal, and their own noise would hide it."""
    foreign: float
    """The share of the CPUs that others used."""


def race(run: Callable[..., Any], folder: Path, rounds: int) -> dict[str, list[Lap]]:
    """The laps of each variant, round by round."""
    laps: dict[str, list[Lap]] = {}
    run()
    for number in range(rounds):
        journal = iter(folder / f"{id(run)}-{number}-{which}" for which in range(9))
        variants: dict[str, dict[str, Any]] = {
            "plain": {},
            "timeout": {"timeout": 60.0},
            "journal": {"journal": next(journal)},
            "all": {"timeout": 60.0, "retries": 2, "on_error": "stop_after:10", "journal": next(journal)},
        }
        # Another order each round, so that what comes later is not always the same.
        names = list(variants)
        for name in names[number % 4 :] + names[: number % 4]:
            began, cpu = time.perf_counter(), time.process_time()
            with foreign_share() as foreign:
                run(**variants[name])
            laps.setdefault(name, []).append(Lap(time.perf_counter() - began, time.process_time() - cpu, foreign.share))
    return laps


def report(name: str, laps: dict[str, list[Lap]], slots: int, markdown: bool) -> None:
    """One table, and whether the goal is met: over the rounds that nobody disturbed, if there are some."""
    rows, worst, fewest = [], 1.0, len(laps["plain"])
    for variant, mine in laps.items():
        pairs = list(zip(mine, laps["plain"], strict=True))
        calm = [pair for pair in pairs if max(lap.foreign for lap in pair) <= LIMIT]
        time_ratios = [lap.seconds / plain.seconds for lap, plain in calm or pairs]
        share = statistics.median((lap.cpu - plain.cpu) / (slots * plain.seconds) for lap, plain in calm or pairs)
        ratio = statistics.median(time_ratios)
        worst = max(worst, ratio)
        fewest = min(fewest, len(calm))
        spread = f"{min(time_ratios):.2f} to {max(time_ratios):.2f}"
        spent = f"{statistics.median(lap.seconds for lap in mine):.2f} s"
        rows.append([variant, spent, f"{ratio:.3f}", spread, f"{share:+.1%}", f"{len(calm)} of {len(pairs)}"])
    header = ("variant", "time", "to plain", "range", "driver's CPU", "calm rounds")
    common.print_table(name, header, rows, markdown=markdown)
    words = "met" if worst <= GOAL else "MISSED"
    print(f"at most {GOAL:.2f}: {words} ({worst:.3f}, {fewest} of {len(laps['plain'])} rounds calm)")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
