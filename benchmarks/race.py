"""Rounds of trials: every contender once, then every contender again, so that a drift of the machine hits all alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common import median_of, mib, micro, of_form, say, seconds
from gauge import Gauge
from loads import Load
from trial import ContenderFailed, Lap, Trial


@dataclass(frozen=True)
class Timing:
    """One timed run of a contender."""

    round: int
    contender: str
    load: str
    items: int
    lap: Lap
    peak_memory: int | None
    """Bytes, all processes of the contender, in the untimed rehearsal."""


@dataclass
class Results:
    """All timings, the cold starts and what failed."""

    timings: list[Timing] = field(default_factory=list)
    cold: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, contender: str, load: str) -> list[Timing]:
        """The timings of a contender on a load, a round each."""
        return [timing for timing in self.timings if (timing.contender, timing.load) == (contender, load)]

    def trusted(self, contender: str, load: str) -> list[Timing]:
        """Those that nobody disturbed; all of them if there are none."""
        found = self.of(contender, load)
        return [timing for timing in found if timing.lap.calm] or found

    def doubt(self, contender: str, load: str) -> str:
        """What to add to a verdict that rests on disturbed runs only, or on one."""
        calm = sum(timing.lap.calm for timing in self.of(contender, load))
        return f" ({'one' if calm else 'no'} calm run of {contender})" if calm < 2 else ""

    def efficiency(self, contender: str, load: str) -> float | None:
        """The median of ideal / time; None if it did not run."""
        found = self.trusted(contender, load)
        return median_of(found, lambda timing: timing.lap.efficiency) if found else None

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        return {"timings": [asdict(timing) for timing in self.timings], "cold": self.cold, "failed": self.failed}


Loads = Callable[[str], Sequence[Load]]


@dataclass(frozen=True)
class Pace:
    """How long things may take, in seconds."""

    rehearsal: float
    """The most pure work in a rehearsal."""
    window: float
    """The stretch over which the ideal is measured."""
    lap: float
    """Loads shorter than this are timed several times in a round."""
    patience: float
    """The wait for a calm machine before timing goes on regardless."""


WHOLE, QUICK, BRIEF = Pace(1.0, 1.5, 5.0, 4.0), Pace(1.0, 0.5, 1.5, 4.0), Pace(0.3, 0.2, 0.25, 0.0)


def race(names: Sequence[str], loads_of: Loads, given: argparse.Namespace) -> Results:
    """Run the rounds over the contenders; one that fails is reported, left out afterwards, and stops nobody.

    The processes that measure the ideal are new ones for each contender: where things happen to lie in its memory may make a
    process faster or slower for all its life, and with the same ones for everybody that luck would be in every ratio.
    """
    results, pace = Results(), of_form(given, WHOLE, QUICK, BRIEF)
    for number in range(given.rounds):
        for name in names:
            if name not in results.failed:
                say(f"round {number + 1} of {given.rounds}: {name}")
                try:
                    with Gauge(given.slots, pace.window) as gauge:
                        _trial(results, number, name, loads_of(name), gauge, pace)
                except ContenderFailed as failure:
                    results.failed[name] = str(failure)
                    say(str(failure))
    return results


def _trial(results: Results, number: int, name: str, loads: Sequence[Load], gauge: Gauge, pace: Pace) -> None:
    with Trial(name, gauge.slots, gauge) as trial:
        for load in loads:
            peak = trial.rehearse(load.rehearsal(pace.rehearsal))
            for lap in trial.time(load, repeats(load, pace.lap), 3 * pace.lap, pace.patience):
                results.timings.append(Timing(number, name, load.name, len(load.items), lap, peak.bytes))
    results.cold.setdefault(name, []).append(trial.cold)


def repeats(load: Load, lap_seconds: float) -> int:
    """How often a load is timed in one trial: short ones several times, because they are as noisy as they are short."""
    return max(1, min(5, round(lap_seconds / load.seconds)))


COLUMNS = (
    "contender",
    "items",
    "time",
    "an item",
    "of ideal",
    "lowest",
    "highest",
    "x ours",
    "peak memory",
    "calm runs",
)


def rows_of(results: Results, names: Sequence[str], load: str, ours: str) -> list[list[str]]:
    """The table of one load: medians over the calm runs (over all where none was calm); `x ours` compares the time of an
    item with ours, each relative to the ideal of its own moment.
    """
    return [_row(results, name, load, results.efficiency(ours, load)) for name in names]


def _row(results: Results, name: str, load: str, reference: float | None) -> list[str]:
    found = results.trusted(name, load)
    if not found:
        return [name, "", "failed" if name in results.failed else "not run", *[""] * (len(COLUMNS) - 3)]
    spent = median_of(found, lambda timing: timing.lap.seconds)
    shares = [timing.lap.efficiency for timing in found]
    middle = median_of(found, lambda timing: timing.lap.efficiency)
    weights = [timing.peak_memory for timing in found if timing.peak_memory is not None]
    calm = sum(timing.lap.calm for timing in found)
    return [
        name,
        f"{found[0].items:,}",
        seconds(spent),
        micro(spent / found[0].items),
        *(f"{share:.2f}" if share >= 0.1 else f"{share:.4f}" for share in (middle, min(shares), max(shares))),
        "" if reference is None else f"{reference / middle:.2f}",
        mib(max(weights, default=None)),
        f"{calm} of {len(results.of(name, load))}",
    ]


def cold_rows(results: Results, names: Sequence[str]) -> list[list[str]]:
    """Fresh interpreter to first result, and the parts of it: medians over the rounds."""

    def part(name: str, key: str) -> str:
        return seconds(median_of(results.cold[name], lambda cold: cold[key]))

    return [[name, *(part(name, key) for key in COLD)] for name in names if name in results.cold]


COLD: Mapping[str, str] = {
    "total": "interpreter to first result",
    "open": "import and open",
    "first": "first result",
    "close": "close",
}
