"""The loads: what is evaluated, as small values that travel to a contender's process and are unfolded there."""

from __future__ import annotations

import math
import random
import statistics
import time
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Self

import work

Items = list[dict[str, int]]


@dataclass(frozen=True)
class Load:
    """Items, and the function of `work` that they are for."""

    name: str
    loops: int
    nominal: float
    """Seconds of an item of `loops` loops, about."""
    function: work.Function = work.objective

    @cached_property
    def items(self) -> Items:
        """The items in order, as the dicts a caller would hand to `map`."""
        raise NotImplementedError

    def unfold(self) -> Items:
        """The items, made now where a caller begins with less than them."""
        return self.items

    @cached_property
    def expected(self) -> list[float]:
        """The right results, in item order."""
        return [work.expected(item) for item in self.unfold()]

    @property
    def seconds(self) -> float:
        """About how long the pure work takes, by the nominal durations; for planning only."""
        raise NotImplementedError

    @property
    def weight(self) -> int:
        """All loops of the load."""
        return sum(item["loops"] for item in self.items)

    def fresh(self) -> Self:
        """The same load without its unfolded items, to send."""
        return replace(self)

    def rehearsal(self, most: float) -> Self:
        """A load of the same shape and the same number of items that takes about `most` seconds at most."""
        shrink = max(1, math.ceil(self.seconds / most))
        return replace(self, loops=max(1, self.loops // shrink), nominal=self.nominal / shrink)

    def fewer(self, share: float) -> Self:
        """The load with about this share of its items, for contenders that would take minutes over all of them."""
        raise NotImplementedError

    def sample(self, share: float) -> Items:
        """About this share of the items, drawn evenly over all kinds of item."""
        by_weight = sorted(self.items, key=lambda item: item["loops"])
        step = max(1, round(1 / share))
        return by_weight[step // 2 :: step]


@dataclass(frozen=True)
class Grid(Load):
    """A grid of `fast` x `slow` points, all of the same length."""

    fast: int = 1
    slow: int = 1

    @property
    def axes(self) -> dict[str, list[int]]:
        """The grid as the axes of a parameter space."""
        return {"fast": list(range(self.fast)), "slow": list(range(self.slow)), "loops": [self.loops]}

    def fewer(self, share: float) -> Self:
        """The grid with about this share of its points."""
        return replace(self, fast=max(1, round(self.fast * share)))

    @cached_property
    def items(self) -> Items:
        """Every point, the last axis fastest."""
        return self.unfold()

    def unfold(self) -> Items:
        """The quickest way there is for these axes; one for any axes, `dict(zip(names, values))`, takes twice as long."""
        return [{"fast": fast, "slow": slow, "loops": loops} for fast, slow, loops in product(*self.axes.values())]

    @property
    def seconds(self) -> float:
        """Points times their nominal duration."""
        return self.fast * self.slow * self.nominal


@dataclass(frozen=True)
class Skew(Load):
    """`count` items, of which `share` are `factor` times longer; those come `last`, `first` or `shuffled`."""

    count: int = 1
    order: str = "last"
    share: float = 0.05
    factor: int = 50

    def fewer(self, share: float) -> Self:
        """About this share of the items, and as large a part of them long."""
        return replace(self, count=round(self.count * share))

    @cached_property
    def items(self) -> Items:
        """The items in the order asked for; `shuffled` is the same for everybody."""
        long = round(self.count * self.share)
        loops = [self.loops] * (self.count - long) + [self.loops * self.factor] * long
        if self.order == "first":
            loops.reverse()
        elif self.order == "shuffled":
            random.Random(7).shuffle(loops)
        return [{"fast": i % 97, "slow": i, "loops": each} for i, each in enumerate(loops)]

    @property
    def seconds(self) -> float:
        """Short and long items together."""
        return self.count * self.nominal * (1 - self.share + self.share * self.factor)


def calibrate(seconds: float, function: work.Function = work.objective) -> int:
    """The `loops` with which one call of `function` takes about `seconds` here and now."""

    def spent(loops: int, calls: int) -> float:
        params = {"fast": 3, "slow": 5, "loops": loops}
        began = time.perf_counter()
        for _ in range(calls):
            function(params)
        return (time.perf_counter() - began) / calls

    base = statistics.median(spent(0, 2_000) for _ in range(5))
    each = statistics.median((spent(1_000, 200) - base) / 1_000 for _ in range(9))
    return max(1, round((seconds - base) / each))


def describe(load: Load) -> dict[str, Any]:
    """The fields of a load, for `--json`."""
    fields = {name: getattr(load, name) for name in load.__dataclass_fields__}
    return {"kind": type(load).__name__, **fields, "function": load.function.__name__}
