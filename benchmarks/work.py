"""What the benchmarks evaluate, in a module of its own so that workers import it as they would a user's.

Real CPU work in pure Python, with a closed form beside it so that every contender's results can be checked exactly.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

MODULUS = 1_000_003


def objective(params: Mapping[str, int]) -> float:
    """`loops * step mod MODULUS`, the long way: `loops` rounds of an addition and a remainder."""
    step = params["fast"] * 31 + params["slow"]
    total = 0
    for _ in range(params["loops"]):
        total = (total + step) % MODULUS
    return float(total)


def expected(params: Mapping[str, int]) -> float:
    """The value of `objective` by its closed form."""
    return float((params["fast"] * 31 + params["slow"]) * params["loops"] % MODULUS)


def evaluate_list(items: Sequence[Mapping[str, int]]) -> list[float]:
    """The batch that most people write for `client.map`: a list of dicts in, a list of floats out."""
    return [objective(item) for item in items]


def evaluate_range(sizes: tuple[int, int, int], start: int, stop: int) -> bytes:
    """The batch an expert writes: two integers in, one packed block out. `sizes`: the two axes, and the loop count."""
    _, slow, loops = sizes
    return array(
        "d", [objective({"fast": i // slow, "slow": i % slow, "loops": loops}) for i in range(start, stop)]
    ).tobytes()
