"""What the benchmarks evaluate, in a module of its own so that workers import it as they would a user's.

Real CPU work with a closed form beside it, so that every contender's results can be checked exactly.

`objective` adds in C, as a strategy on NumPy or numba does its work: its time is the same whatever ran before it. `in_bytecode`
is the same sum in a loop of Python's own, and its time is not. After other code, even a single call of `statistics.median`, this
loop takes up to a tenth longer until the process has slept, because the CPU had learnt the jumps from one bytecode to the next
while nothing else ran (`after_other_code.py` shows it). The processes of the ideal run nothing else, those of a `Pool` little; a
Dask worker takes in tasks and tells how it is, and loses. So `spine.py` has both kinds: the goals are about the first.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat

MODULUS = 1_000_003.0
AT_ONCE = 1_000
"""Additions between two looks of the interpreter at what else there is to do, some microseconds."""
Item = Mapping[str, int]
Function = Callable[[Item], float]


def objective(params: Item) -> float:
    """`loops * step mod MODULUS`, the long way: `loops` additions."""
    step = float(params["fast"] * 31 + params["slow"])
    total = 0.0
    rounds, rest = divmod(params["loops"], AT_ONCE)
    for _ in repeat(None, rounds):
        total = sum(repeat(step, AT_ONCE), total)
    return sum(repeat(step, rest), total) % MODULUS


def in_bytecode(params: Item) -> float:
    """The same in a loop of bytecode, with a remainder in each round.

    It counts in floats and makes no numbers for the loop itself. Python takes each new int from a pool of memory; where the
    pool in use is all but full when a loop begins, each of its rounds fills and reopens it, in some processes for all their life.
    """
    step = float(params["fast"] * 31 + params["slow"])
    total = 0.0
    for _ in repeat(None, params["loops"]):
        total = (total + step) % MODULUS
    return total


def expected(params: Item) -> float:
    """The value of both by its closed form."""
    return float((params["fast"] * 31 + params["slow"]) * params["loops"] % int(MODULUS))


def evaluate_list(function: Function, items: Sequence[Item]) -> list[float]:
    """The batch that most people write for `client.map`: a list of dicts in, a list of floats out."""
    return [function(item) for item in items]


def evaluate_range(function: Function, sizes: tuple[int, int, int], start: int, stop: int) -> bytes:
    """The batch an expert writes: two integers in, one packed block out. `sizes`: the two axes, and the loop count."""
    _, slow, loops = sizes
    return array(
        "d", [function({"fast": i // slow, "slow": i % slow, "loops": loops}) for i in range(start, stop)]
    ).tobytes()
