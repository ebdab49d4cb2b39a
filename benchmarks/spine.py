"""100,000 evaluations of about 10 microseconds and 1,000 of about 20 ms: ours against what people use instead.

    python benchmarks/spine.py            a few rounds, some minutes
    python benchmarks/spine.py --quick    one round of smaller loads

Every contender runs in a fresh process with everything opened beforehand; before it is timed, all its values are checked
on a rehearsal, and after each timed run again. "of ideal" is (pure work / slots) / time, where the pure work is measured
just before and just after each run by the same calls in as many processes at once. The clock runs from the axes of the grid
to the best score known, for everybody; a peer's list of items is made meanwhile.

The goals are about items that work in C, as a strategy on NumPy or numba does. Both loads are there once more with a loop of
bytecode in each item: what that takes depends on what else its process runs (`work.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import common
import work
from contenders import AT_HAND, CONTENDERS, OURS
from gauge import Gauge
from loads import Grid, calibrate, describe
from race import BRIEF, COLD, COLUMNS, QUICK, WHOLE, Results, cold_rows, race, rows_of

GOAL = 0.90
OURS_OTHERWISE = ("admf_dask with a constraint", "admf_dask hybrid", "admf_dask thread", "admf_dask enabled: false")
"""The constraint lets all of the grid through, so that the work is the same."""
BY_HAND = "client.map ranges"
"""Our own technique written by hand for one grid, without failures as rows, progress or a page: a bound, not a peer."""
PEERS = (
    "Pool.map",
    "joblib",
    "dask.bag",
    "dask.bag tuned",
    "client.map",
    "client.map lists",
    "ray lists",
)
NAMES = (OURS, *PEERS, AT_HAND, BY_HAND, *OURS_OTHERWISE)
SLOW_ON_LIGHT = {"client.map": 0.02}
QUICK_ON_LIGHT = {"client.map": 0.01, "dask.bag": 0.1, "dask.bag tuned": 0.1}
"""Shares of the light load for those that need tens of times the ideal: compare the time of an item, which a full load of
theirs would not better much. (`dask.bag` spreads the cost of its hundred tasks over fewer items here; the full run is fair.)
"""
BRIEF_ON_LIGHT = {**QUICK_ON_LIGHT, "client.map lists": 0.25}
SLOW_ON_HEAVY = dict.fromkeys(("admf_dask thread", "admf_dask enabled: false"), 0.25)
NOT_IN_BYTECODE = frozenset(SLOW_ON_LIGHT) | frozenset(SLOW_ON_HEAVY)
"""The loads in C say about them what there is to say."""
LIGHT, HEAVY = "light", "heavy"
IN_BYTECODE = {name: f"{name}, a loop of bytecode" for name in (LIGHT, HEAVY)}


def make_loads(given: argparse.Namespace) -> list[Grid]:
    """The loads, those in C first, calibrated to this machine as it is with all slots busy."""
    light = Grid(LIGHT, calibrate(10e-6), 10e-6, fast=100 if given.brief else 250, slow=400)
    heavy = Grid(HEAVY, calibrate(20e-3), 20e-3, fast=common.of_form(given, 50, 10, 3), slow=20)
    in_bytecode = [
        replace(
            load,
            name=IN_BYTECODE[load.name],
            loops=calibrate(load.nominal, work.in_bytecode),
            function=work.in_bytecode,
        )
        for load in (light, heavy)
    ]
    with Gauge(given.slots, common.of_form(given, WHOLE, QUICK, BRIEF).window) as gauge:
        return [_corrected(load, gauge) for load in (light, heavy, *in_bytecode)]


def _corrected(load: Grid, gauge: Gauge) -> Grid:
    # One process alone, for some hundredths of a second, was a third too fast or too slow.
    each = gauge.seconds(load) * gauge.slots / len(load.items)
    return replace(load, loops=max(1, round(load.loops * load.nominal / each)))


def verdicts(results: Results) -> list[str]:
    """What was aimed at and what came out."""
    lines = []
    for load in (LIGHT, HEAVY):
        reached = results.efficiency(OURS, load)
        if reached is not None:
            words = f"the goal of {GOAL:.2f} is {_met(reached >= GOAL)}{results.doubt(OURS, load)}"
            lines.append(f"{load}: ours at {reached:.2f} of ideal; {words}")
    ours = results.efficiency(OURS, LIGHT)
    shares = {name: share for name in PEERS if (share := results.efficiency(name, LIGHT)) is not None}
    if ours is not None and shares:
        best = max(shares, key=lambda name: shares[name])
        lines.append(
            f"{LIGHT}: ahead of every peer is {_met(ours > shares[best])}; the best of them is {best} at {shares[best]:.2f}"
            f"{results.doubt(OURS, LIGHT)}{results.doubt(best, LIGHT)}"
        )
    head_start = results.efficiency(AT_HAND, LIGHT)
    if ours is not None and head_start is not None:
        words = "behind" if ours < head_start else "not behind"
        lines.append(
            f"{LIGHT}: {words} Pool.map where the list of its items is there already, at {head_start:.2f}; ours makes its items"
            f"{results.doubt(AT_HAND, LIGHT)}"
        )
    for load in IN_BYTECODE.values():
        there = {name: share for name in NAMES if (share := results.efficiency(name, load)) is not None}
        if there:
            lines.append(f"{load}, no goal: {', '.join(f'{name} {share:.2f}' for name, share in there.items())}")
    return lines


def _met(reached: bool) -> str:
    return "met" if reached else "MISSED"


def print_results(results: Results, names: Sequence[str], loads: Sequence[Grid], markdown: bool) -> None:
    """All tables and verdicts."""
    for load in loads:
        title = f"{load.name}: {len(load.items):,} evaluations of about {common.micro(load.nominal)}"
        there = [name for name in names if name in results.failed or results.of(name, load.name)]
        common.print_table(title, COLUMNS, rows_of(results, there, load.name, OURS), markdown=markdown)
    common.print_table("cold start", ["contender", *COLD.values()], cold_rows(results, names), markdown=markdown)
    print()
    for line in verdicts(results):
        print(line)
    for name, text in results.failed.items():
        print(f"\nfailed: {name}: {text.strip().splitlines()[-1]}")


def main() -> int:
    """Race, print, write. Returns 1 when a contender failed."""
    given = common.options("Light and heavy loads against the peers.", rounds=3, quick_rounds=1)
    names = common.chosen(NAMES, given.only)
    facts = common.describe_machine()
    common.print_machine(facts)
    rounds: list[list[Grid]] = []

    def loads_of(name: str) -> list[Grid]:
        if name == names[0] or not rounds:
            # Anew for each round: the speed of a shared machine drifts by a third within minutes, and with it what 10 us are.
            rounds.append(make_loads(given))
        light, heavy, *in_bytecode = rounds[-1]
        slow = common.of_form(given, SLOW_ON_LIGHT, QUICK_ON_LIGHT, BRIEF_ON_LIGHT)
        loads = [light.fewer(slow.get(name, 1.0)), heavy.fewer(SLOW_ON_HEAVY.get(name, 1.0))]
        return loads if name in NOT_IN_BYTECODE else [*loads, *in_bytecode]

    results = race(names, loads_of, given)
    loops = ", ".join(" / ".join(str(load.loops) for load in loads) for loads in rounds)
    print(f"{given.slots} slots, {given.rounds} rounds; loops for the loads, round by round: {loops}")
    print_results(results, names, rounds[-1], given.markdown)
    loads = [[describe(load) for load in loads] for loads in rounds]
    figures = {"machine": facts, "slots": given.slots, "loads": loads, **results.record()}
    common.write_json(given.json, figures)
    return 1 if results.failed else 0


if __name__ == "__main__":
    assert set(NAMES) <= set(CONTENDERS)
    raise SystemExit(main())
