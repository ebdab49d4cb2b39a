"""What it costs that nothing is lost: the same sweeps plain, with a timeout, with a journal, with both and retries.

    python benchmarks/care.py            some minutes
    python benchmarks/care.py --quick    about a minute

Each round runs all variants on one open session, in turn; a variant's ratio is the median over rounds of its time to the
plain run's of the same round. The compiled sweep is an SMA crossover on real prices, about 100,000 evaluations a second, which
is where a record for each chunk shows most.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import work
from loads import calibrate

GOAL = 1.03


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
        runs = sweeps(optimizer, given.quick)
        for name in common.chosen(list(runs), given.only):
            run = runs[name]
            times = race(run, Path(folder), given.rounds)
            figures[name] = times
            report(name, times, given.markdown)
    common.write_json(given.json, figures)
    return 0


def sweeps(optimizer: Any, quick: bool) -> dict[str, Callable[..., Any]]:
    """Name -> a run that takes the options of `optimize`."""
    from admf_dask import ParameterSpace, backtest_objective, datasets

    light = {"fast": range(400 if quick else 1000), "slow": range(250), "loops": [calibrate(10e-6)]}
    heavy = {"fast": range(20 if quick else 40), "slow": range(10), "loops": [calibrate(20e-3)]}
    crossover = backtest_objective("sma_crossover", datasets.load_prices("GOOG"), commission=0.001)
    compiled = ParameterSpace({"fast": range(2, 302), "slow": range(2, 502 if quick else 3502)})

    def of(space: Any, objective: Any, **fixed: Any) -> Callable[..., Any]:
        return lambda **options: optimizer.optimize(space, objective, progress=False, **fixed, **options)

    return {
        f"light: {len(light['fast']) * 250:,} of 10 µs": of(light, work.objective),
        f"heavy: {len(heavy['fast']) * 10:,} of 20 ms": of(heavy, work.objective),
        f"compiled: {compiled.size:,} backtests": of(compiled, crossover, score="sharpe_ratio"),
    }


def race(run: Callable[..., Any], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant, round by round."""
    times: dict[str, list[float]] = {}
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
            began = time.perf_counter()
            run(**variants[name])
            times.setdefault(name, []).append(time.perf_counter() - began)
    return times


def report(name: str, times: dict[str, list[float]], markdown: bool) -> None:
    """One table, and whether the goal is met."""
    plain = times["plain"]
    rows = []
    for variant in ("plain", "timeout", "journal", "all"):
        ratios = [mine / theirs for mine, theirs in zip(times[variant], plain, strict=True)]
        row = [f"{statistics.median(times[variant]):.2f} s", f"{statistics.median(ratios):.3f}"]
        rows.append([variant, *row, f"{min(ratios):.2f} to {max(ratios):.2f}"])
    common.print_table(name, ("variant", "time", "to plain", "range"), rows, markdown=markdown)
    worst = max(float(row[2]) for row in rows)
    print(f"at most {GOAL:.2f}: {'met' if worst <= GOAL else 'MISSED'} ({worst:.3f})")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
