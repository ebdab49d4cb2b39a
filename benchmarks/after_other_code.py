"""What a single call of other Python code costs all evaluations after it: where they work in C, and in a loop of bytecode.

    python benchmarks/after_other_code.py            about two minutes
    python benchmarks/after_other_code.py --quick    about one

One process, nothing else. It sleeps, evaluates for a fifth of a second, does one thing, and evaluates on. The thing is nothing,
the median of 60 numbers (some microseconds of bytecode), or that followed by 65,536 jumps in machine code, each to the next,
which leave a CPU nothing of the jumps it had learnt (Linux on x86-64 only, where the system lets a program run what it wrote).
An item whose loop runs in bytecode takes longer from then on, and does not where the jumps followed: so it is what the CPU had
learnt of the interpreter's jumps. An item that works in C takes the same throughout.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import random
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import common
import work
from loads import calibrate

ITEM = 10e-6
ITEMS, LAPS = 1_000, 20
"""Items in a lap, and laps before as well as after."""
SLEEP = 0.7
"""Seconds; 0.05 are not always enough."""
JUMPS, APART = 65_536, 32
"""Jumps, and bytes from one to the next: more than any CPU remembers."""
NUMBERS = [random.Random(60).random() for _ in range(60)]


@dataclass(frozen=True)
class Pair:
    """Seconds of an item before and after."""

    before: float
    after: float


def jumps() -> Callable[[], None] | None:
    """A function that jumps `JUMPS` times and returns; None where that cannot be."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    step = b"\xe9" + struct.pack("<i", APART - 5)  # jmp, relative to the instruction after it
    code = step.ljust(APART, b"\x90") * JUMPS + b"\xc3"
    try:
        memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except PermissionError:
        return None
    memory.write(code)
    first = ctypes.c_char.from_buffer(memory)
    run = ctypes.CFUNCTYPE(None)(ctypes.addressof(first))

    def jump(_held: ctypes.c_char = first) -> None:
        run()

    return jump


def measure(function: work.Function, item: dict[str, int], between: Callable[[], object]) -> Pair:
    """Sleep, evaluate, `between`, evaluate: medians over the laps."""
    spent = [0.0] * (2 * LAPS)

    def laps(start: int) -> None:
        for lap in range(start, start + LAPS):
            began = time.perf_counter()
            for _ in range(ITEMS):
                function(item)
            spent[lap] = time.perf_counter() - began

    time.sleep(SLEEP)
    laps(0)
    between()
    laps(LAPS)
    return Pair(statistics.median(spent[:LAPS]) / ITEMS, statistics.median(spent[LAPS:]) / ITEMS)


def main() -> int:
    """Measure, print, write."""
    given = common.options("What other code costs the evaluations after it.", rounds=20, quick_rounds=10)
    facts = common.describe_machine()
    common.print_machine(facts)
    found: dict[str, dict[str, list[Pair]]] = {}
    flush = jumps()
    ways: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "a median": lambda: statistics.median(NUMBERS),
    }
    if flush is not None:
        ways["a median, then jumps"] = lambda: (statistics.median(NUMBERS), flush())
    names = common.chosen(ways, given.only)
    functions = {"in C": work.objective, "in bytecode": work.in_bytecode}
    items = {kind: {"fast": 3, "slow": 5, "loops": calibrate(ITEM, each)} for kind, each in functions.items()}
    for _ in range(given.rounds):
        for kind, function in functions.items():
            for name in names:
                pair = measure(function, items[kind], ways[name])
                found.setdefault(kind, {}).setdefault(name, []).append(pair)
    for kind, pairs in found.items():
        rows = [[name, *cells(pairs[name])] for name in names]
        title = f"items that work {kind}"
        columns = ("in between", "an item before", "and after", "after / before", "lowest", "highest")
        common.print_table(title, columns, rows, markdown=given.markdown)
    if flush is None:
        print(
            "\nno jumps: they are written for Linux on x86-64, and for a system that lets a program run what it wrote"
        )
    pairs = {
        kind: {name: [asdict(pair) for pair in each] for name, each in all_.items()} for kind, all_ in found.items()
    }
    common.write_json(given.json, {"machine": facts, "rounds": given.rounds, "pairs": pairs})
    return 0


def cells(pairs: list[Pair]) -> list[str]:
    """A row of the table, without its name."""
    ratios = [pair.after / pair.before for pair in pairs]
    times = (common.median_of(pairs, lambda pair: pair.before), common.median_of(pairs, lambda pair: pair.after))
    shown = (statistics.median(ratios), min(ratios), max(ratios))
    return [*(f"{1e6 * each:.2f} µs" for each in times), *(f"{ratio:.3f}" for ratio in shown)]


if __name__ == "__main__":
    raise SystemExit(main())
