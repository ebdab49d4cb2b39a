"""What the benchmarks evaluate, in a module of its own so that workers import it as they would a user's.

Real CPU work in pure Python, with a closed form beside it so that every contender's results can be checked exactly.

It counts in floats, and in a loop that makes no numbers of its own. Python takes each new int from a pool of memory; where the
pool in use is all but full when a loop begins, each of its rounds fills and reopens it. With ints some processes were much slower
than others for all their life, and that luck was in every ratio.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import repeat

MODULUS = 1_000_003.0


def objective(params: Mapping[str, int]) -> float:
    """`loops * step mod MODULUS`, the long way: `loops` rounds of an addition and a remainder."""
    step = float(params["fast"] * 31 + params["slow"])
    total = 0.0
    for _ in repeat(None, params["loops"]):
        total = (total + step) % MODULUS
    return total


def expected(params: Mapping[str, int]) -> float:
    """The value of `objective` by its closed form."""
    return float((params["fast"] * 31 + params["slow"]) * params["loops"] % int(MODULUS))


def evaluate_list(items: Sequence[Mapping[str, int]]) -> list[float]:
    """The batch that most people write for `client.map`: a list of dicts in, a list of floats out."""
    return [objective(item) for item in items]


def evaluate_range(sizes: tuple[int, int, int], start: int, stop: int) -> bytes:
    """The batch an expert writes: two integers in, one packed block out. `sizes`: the two axes, and the loop count."""
    _, slow, loops = sizes
    return array(
        "d", [objective({"fast": i // slow, "slow": i % slow, "loops": loops}) for i in range(start, stop)]
    ).tobytes()
