"""Backtests a second: ours end to end against hand-written loops and other people's engines, parity checked before timing.

    python benchmarks/backtests.py            about half an hour
    python benchmarks/backtests.py --quick    about two minutes

SMA crossovers, next-open fill, 0.1 % commission; each contender gives final equity, maximum drawdown and Sharpe ratio. W1: daily
GOOG, 2,148 bars, grids of 10^4 to 10^6. W2: 1,000 combinations on 500,000 generated one-minute bars. W3: 500 generated symbols x
2,500 bars x 20 combinations, ours with fills. "a bar": one strategy, bar by bar, on one core.

Each contender runs in a process of its own, and does as many jobs of the same distribution as it can in seconds: the rate is
what counts. Jobs of the peers are drawn from the grid that ours sweeps whole. Equities of a handful of jobs are compared with
our event engine to 1e-9 first. "first" is from the start of the interpreter to the first backtest, with an empty cache of
compiled code and then with a full one. Memory is the peak of the PSS of all processes, driver included, over the untimed
rehearsal of the same jobs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import books
import common
import numpy as np
import psutil
from memory import peak_of_tree
from trial import HERE, environment

OURS = "admf_dask"
COMPILED = ("admf_dask optimize", "numba loop, plain", "numba loop, tuned", "admf_dask backtests")
GRID = (1000, 1000)
"""Windows 2 to 1,001 and 3 to 1,002: 10^6 pairs."""


@dataclass(frozen=True)
class Entry:
    """A contender with what it is given, for `--quick` and else: the sides of a grid, or a number of jobs."""

    name: str
    quick: Any
    whole: Any
    brief: Any = None
    """For `--brief`, where that is less than for `--quick`."""

    def size(self, given: argparse.Namespace) -> Any:
        """What it is given; None leaves it out."""
        return common.of_form(given, self.whole, self.quick, self.brief or self.quick)


W1 = [
    Entry("admf_dask optimize", (100, 100), (100, 100)),
    Entry("admf_dask optimize", (200, 500), (200, 500)),
    Entry("admf_dask optimize", None, (1000, 1000)),
    Entry("admf_dask optimize, thread", None, (1000, 1000)),
    Entry("numba loop, plain", 20_000, 200_000),
    Entry("numba loop, tuned", 20_000, 200_000),
    Entry("raptorbt", 2_000, 10_000),
    Entry("vectorbt", 1_000, 4_000, brief=500),
    Entry("backtesting.py", 24, 100, brief=8),
    Entry("backtrader", 4, 16, brief=2),
]
W2 = [
    Entry("admf_dask optimize", (20, 50), (20, 50)),
    Entry("admf_dask optimize, thread", (20, 50), (20, 50)),
    Entry("numba loop, plain", 200, 1_000),
    Entry("numba loop, tuned", 200, 1_000),
    Entry("raptorbt", 8, 32),
    Entry("vectorbt, long", 4, 16),
    Entry("backtesting.py", None, 2),
]
W3 = [
    Entry("admf_dask backtests", 2_000, 10_000),
    Entry("numba loop, plain", 2_000, 10_000),
    Entry("numba loop, tuned", 2_000, 10_000),
    Entry("raptorbt", 1_000, 10_000),
    Entry("vectorbt", 400, 2_000, brief=80),
    Entry("backtesting.py", 20, 100, brief=8),
    Entry("backtrader", 4, 16, brief=2),
]
BAR = [
    Entry("admf_dask event engine", 2, 5),
    Entry("backtesting.py", 1, 2),
    Entry("backtrader", 1, 1),
]


def main() -> int:
    """Run, print, write."""
    given = common.options("Backtests a second.", rounds=3, quick_rounds=1)
    facts = common.describe_machine()
    common.print_machine(facts)
    minute, symbols = (100_000, 100) if given.quick else (500_000, 500)
    bars = 5_000 if given.brief else 20_000
    loads = {
        "W1": ("daily GOOG, 2,148 bars", "daily", W1, GRID),
        "W2": (f"{minute:,} one-minute bars", f"random:1:{minute}", W2, (500, 1000)),
        "W3": (f"{symbols} symbols x 2,500 bars x 20 combinations", f"random:{symbols}:2500", W3, (50, 200)),
        "a bar": (f"one strategy over {bars:,} bars, one core", f"random:1:{bars}", BAR, (100, 200)),
    }
    figures: dict[str, Any] = {"machine": facts}
    entries_of = {f"{name}: {entry.name}": (name, entry) for name, (_, _, all_, _) in loads.items() for entry in all_}
    wanted: dict[str, list[Entry]] = {}
    for name, entry in map(entries_of.__getitem__, common.chosen(list(entries_of), given.only)):
        # One name may stand for several sizes.
        wanted[name] = [one for one in loads[name][2] if one.name == entry.name or one in wanted.get(name, [])]
    given.cache = compiled(given.slots, wanted.values()) if given.brief else None
    for name, entries in wanted.items():
        title, load, _, grid = loads[name]
        rows = [
            row
            for entry in entries
            if entry.size(given) is not None
            and (row := measured(entry, load, grid, 1 if name == "a bar" else given.slots, given)) is not None
        ]
        figures[name] = rows
        table = bars_table if name == "a bar" else sweep_table
        common.print_table(f"{name}: {title}", *table(rows), markdown=given.markdown)
        sys.stdout.flush()
    print("\n" + "\n".join(verdicts({name: figures[name] for name in wanted})))
    common.write_json(given.json, figures)
    return 0


FACTORS = {"numba loop, plain": 1, "raptorbt": 20, "vectorbt": 50, "backtesting.py": 3_000}
"""How many times their rate on W1 we aim at."""
FLAT = 1.1
"""Memory over the grids of W1, the largest to the smallest, that still counts as flat."""
MOST_BYTES, MOST_SECONDS_A_BAR = 400e6, 15e-6


def verdicts(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What was aimed at and what came out; of contenders that did not run nothing is said."""

    def of(load: str, name: str) -> list[dict[str, Any]]:
        return [row for row in found.get(load, ()) if row["contender"] == name]

    def line(words: str, met: bool) -> str:
        return f"{words}: {'met' if met else 'MISSED'}"

    lines = []
    ours = of("W1", "admf_dask optimize")
    for name, factor in FACTORS.items():
        for peer in of("W1", name) if ours else ():
            ratio = min(row["rate"] for row in ours) / peer["rate"]
            lines.append(
                line(f"W1: at the slowest size {ratio:,.1f} x {name}, the goal is {factor:,}", ratio >= factor)
            )
    if len(ours) > 1:
        growth = max(row["memory"] for row in ours) / min(row["memory"] for row in ours)
        lines.append(
            line(f"W1: memory of the largest grid to the smallest {growth:.2f}, the goal is {FLAT}", growth <= FLAT)
        )
    for row in of("W2", "admf_dask optimize"):
        lines.append(line(f"W2: {row['memory'] / 1e6:.0f} MB, the goal is 400", row["memory"] < MOST_BYTES))
    for row in of("a bar", "admf_dask event engine"):
        each = 1 / row["rate"] / row["bars"]
        lines.append(line(f"{common.micro(each)} a bar, the goal is 15", each <= MOST_SECONDS_A_BAR))
    return lines


def sweep_table(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Rates as multiples of the plain loop; the first results where they were looked at."""
    plain = next((row["rate"] for row in rows if row["contender"] == "numba loop, plain"), float("nan"))
    head = ("contender", "backtests", "time", "a second", "x plain loop", "memory")
    firsts = ("first, cold", "warm") if all(row["cold"] for row in rows) else ()
    return head + firsts, [
        [
            row["contender"], f"{row['jobs']:,}", common.seconds(row["seconds"]), f"{row['rate']:,.0f}" if row["rate"] > 99
            else f"{row['rate']:.1f}", f"{row['rate'] / plain:.3g}", common.mib(row["memory"]),
            *(common.seconds(row[name]) for name in ("cold", "warm") if firsts),
        ]
        for row in rows
    ]  # fmt: skip


def bars_table(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Microseconds a bar."""
    return ("contender", "backtests", "a bar"), [
        [row["contender"], f"{row['jobs']:,}", common.micro(1 / row["rate"] / row["bars"])] for row in rows
    ]


def measured(entry: Entry, load: str, grid: tuple[int, int], slots: int, given: Any) -> dict[str, Any] | None:
    """One row; None, with a word on why, for a contender that is not installed or failed."""
    size = entry.size(given)
    jobs = axes_of(*size, grid) if isinstance(size, tuple) else drawn_jobs(size, load, grid)
    count = math.prod(size) if isinstance(size, tuple) else size
    common.say(f"{load}: {entry.name}, {count:,} backtests")
    cold = None
    try:
        with contextlib.nullcontext(given.cache.name) if given.cache else tempfile.TemporaryDirectory() as cache:
            if not given.cache:
                with Child(entry.name, load, slots, cache) as child:
                    cold = child.first
            with Child(entry.name, load, slots, cache, *(["eager"] if given.cache else [])) as child:
                check(child, load, axes=isinstance(size, tuple))
                with peak_of_tree(child.pid) as peak:
                    child.ask(jobs, 1)
                spent = child.ask(jobs, given.rounds)["seconds"]
    except ChildFailed as failure:
        print(f"left out: {entry.name} on {load}: {failure}", flush=True)
        return None
    seconds = statistics.median(spent)
    return {
        "contender": entry.name, "jobs": count, "bars": int(load.split(":")[2]) if ":" in load else 2_148, "memory": peak.bytes,
        "seconds": seconds, "rate": count / seconds, "cold": cold, "warm": child.first, "all": spent,
    }  # fmt: skip


def compiled(slots: int, wanted: Iterable[list[Entry]]) -> tempfile.TemporaryDirectory[str]:
    """One cache of compiled code for all, filled beforehand: one for each is what "first, cold" is about, and takes minutes."""
    cache = tempfile.TemporaryDirectory()

    def fill(name: str) -> None:
        with contextlib.suppress(ChildFailed), Child(name, "daily", slots, cache.name):
            common.say(f"compiled: {name}")

    names = {entry.name for entries in wanted for entry in entries}
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(fill, [name for name in COMPILED if name in names]))
    return cache


def axes_of(fast: int, slow: int, grid: tuple[int, int]) -> books.Jobs:
    """The axes of a grid of `fast` x `slow` windows, evenly over the whole one: a million pairs would weigh on it."""
    a, b = (np.linspace(first, first + size - 1, n).astype(int) for first, size, n in zip((2, 3), grid, (fast, slow)))
    return np.zeros(1, int), a, b


def drawn_jobs(count: int, load: str, grid: tuple[int, int]) -> books.Jobs:
    """Jobs from the whole grid, by a fixed seed, in the order of the symbols."""
    chance = np.random.default_rng(0)
    # Few symbols with twenty jobs each rather than many with less: a chunk of a peer has one symbol.
    symbols = 1 if load == "daily" else min(int(load.split(":")[1]), max(1, count // 20))
    fast, slow = chance.integers(2, 2 + grid[0], count), chance.integers(3, 3 + grid[1], count)
    return np.arange(count) * symbols // count, fast, slow


def check(child: Child, load: str, *, axes: bool) -> None:
    """Final equities of four jobs against our event engine, to 1e-9. Raises ChildFailed with both."""
    from admf_dask.engine import run_event

    pairs = tuple(itertools.product((10, 20), (55, 90)))
    jobs = ([0], [10, 20], [55, 90]) if axes else ([0] * 4, *zip(*pairs))
    expected = reference(load, run_event, pairs)
    got = child.ask(jobs, 1)["equity"]
    if not np.allclose(got, expected, rtol=1e-9, atol=0):
        raise ChildFailed(f"final equities are {got}, and not {expected}")


_known: dict[str, list[float]] = {}


def reference(load: str, run_event: Any, pairs: Any) -> list[float]:
    """Worked out once for each load."""
    if load not in _known:
        prices = books.bars_of("random:1:" + load.split(":")[2] if ":" in load else load)[0]
        config = partial(dict, {"class": "sma_crossover", "commission": books.FEES})
        runs = [run_event(config(parameters={"fast": a, "slow": b}), prices) for a, b in pairs]
        _known[load] = [run["final_equity"] for run in runs]
    return _known[load]


class ChildFailed(Exception):
    """A contender is not installed, died, or gave a wrong result."""


class Child:
    """A contender in a fresh process, ready when its first backtest is done; a context manager that leaves nothing behind."""

    def __init__(self, name: str, load: str, slots: int, cache: str, *eager: str) -> None:
        """`cache`: where compiled code goes."""
        self._argv, self._eager = [sys.executable, str(HERE / "books.py"), name, load, str(slots)], eager
        self._cache = cache
        self.first = float("nan")

    def __enter__(self) -> Self:
        """Start it and wait for its first result."""
        clock = str(time.perf_counter())
        self._process = subprocess.Popen(
            [*self._argv, clock, *self._eager], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**environment(), "NUMBA_CACHE_DIR": self._cache, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        self.pid = self._process.pid
        try:
            self.first = self._read()["first"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def ask(self, jobs: books.Jobs, rounds: int) -> dict[str, Any]:
        """Seconds of each round, and the equities of a short list of jobs."""
        assert self._process.stdin is not None
        # As a file of numbers: as text they would weigh more in the measured process than what it does with them.
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            np.savez(file, *(np.asarray(column, np.int64) for column in jobs))
            file.flush()
            self._process.stdin.write(json.dumps({"jobs": file.name, "rounds": rounds}) + "\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed((self._process.stderr.read().strip().splitlines() or ["it ended without a word"])[-1])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __exit__(self, *_: Any) -> None:
        """Let it end; after ten seconds, end it and its children."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                for process in [*psutil.Process(self.pid).children(recursive=True), self._process]:
                    process.kill()


if __name__ == "__main__":
    raise SystemExit(main())
