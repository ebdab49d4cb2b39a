"""Skewed work: 5 % of the items take 50 times longer, and stand last, first or anywhere; or thousands of quick items turn slow.

    python benchmarks/tail.py            a few rounds, some minutes
    python benchmarks/tail.py --quick    one round of a smaller load

Whoever hands out work in large pieces idles at the end, whoever hands out single items pays for each. "of ideal" is (pure
work / slots) / time, as in `spine.py`; with the last item of 50 times the length, the ideal itself cannot quite be reached.

Quick items that turn slow are a grid whose invalid corner returns at once: who hands out hundreds of items, by the pace of those
before, gives one worker all that is slow.
"""

from __future__ import annotations

import common
from contenders import CONTENDERS
from loads import Skew, calibrate, describe
from race import COLUMNS, race, rows_of

OURS = "admf_dask Session.map"
NAMES = (OURS, "admf_dask process", "Pool.map", "Pool.map chunksize=1", "joblib", "client.map", "client.map lists")
SLOW_IN_BRIEF = {"client.map": 1 / 3}
"""The share of the items for those that need several times the ideal; compare the time of an item."""
ORDERS = ("last", "shuffled", "first")
QUICK, TURNED = 5e-6, 4_000
"""Seconds of a quick item, and how many times longer the slow ones are: 20 ms."""


def main() -> int:
    """Race, print, write. Returns 1 when a contender failed."""
    given = common.options("Skewed items against the peers.", rounds=3, quick_rounds=1)
    names = common.chosen(NAMES, given.only)
    facts = common.describe_machine()
    common.print_machine(facts)
    nominal, count = common.of_form(given, (1e-3, 2_000), (0.5e-3, 1_000), (0.5e-3, 500))
    loops = calibrate(nominal)
    loads = [Skew(order, loops, nominal, count=count, order=order) for order in ORDERS]
    items, share = common.of_form(given, (10_000, 0.03), (10_000, 0.015), (2_000, 0.01))
    loads.append(Skew("turned slow", calibrate(QUICK), QUICK, count=items, share=share, factor=TURNED))
    print(
        f"{given.slots} slots, {given.rounds} rounds, {loops} loops in a short item, {loads[-1].loops} in a quick one"
    )

    def loads_of(name: str) -> list[Skew]:
        return [load.fewer(SLOW_IN_BRIEF.get(name, 1.0) if given.brief else 1.0) for load in loads]

    results = race(names, loads_of, given)
    for load in loads:
        kind = f"{load.share * 100:g} % of them {load.factor:,} times longer"
        title = f"{load.count:,} items of {common.micro(load.nominal)}, {kind}: {load.name}"
        common.print_table(title, COLUMNS, rows_of(results, names, load.name, OURS), markdown=given.markdown)
    for name, text in results.failed.items():
        print(f"\nfailed: {name}: {text.strip().splitlines()[-1]}")
    figures = {"machine": facts, "slots": given.slots, "loads": [describe(load) for load in loads], **results.record()}
    common.write_json(given.json, figures)
    return 1 if results.failed else 0


if __name__ == "__main__":
    assert set(NAMES) <= set(CONTENDERS)
    raise SystemExit(main())
