"""How much memory is enough for items that differ a hundredfold: giants one after the other, small ones beside. Pure.

"Largest first" keeps the end short, and is the worst there is for memory: the giants all run at the same time. But one slot can
work through the giants while the others do small ones, as long as the giants take no longer than all the rest together.
`enough` finds the least that does not make the run longer, by trying it on a clock that counts work.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from admf_dask.weights import Weights

WORTH = 16 * 2**20
"""Bytes that must be at stake before the order of things is changed for them."""
LONGER = 1.005
"""How much longer a run may become for it."""
MOST_ITEMS = 2_000
"""Items that the trial counts singly; more are counted in bundles. A trial of so many costs 3 ms, and about eight are made."""
STEPS = 7


def enough(weights: Weights, slots: int) -> int | None:
    """Bytes that items under way on `slots` slots should take together at most; None where it matters little.

    Whoever hands them out so takes the heaviest that fits, and the heaviest whatever it takes when it is urgent.
    """
    order = np.argsort(-weights.memory, kind="stable")
    memory, work = weights.memory[order], weights.work[order]
    if slots < 2 or len(memory) < 2:
        return None
    most, least = int(memory[:slots].sum()), int(memory[0])
    if most - least < WORTH:
        return None
    memory, work = _bundled(memory, work)
    limit = makespan(memory, work, slots, most) * LONGER
    for _ in range(STEPS):
        middle = (most + least) // 2
        if makespan(memory, work, slots, middle) <= limit:
            most = middle
        else:
            least = middle
    return most


def is_urgent(work: int, left: int, slots: int) -> bool:
    """Whether an item of this work must begin now: of the work that is left to all slots it would be the last to end."""
    return work * slots >= left


def makespan(memory: NDArray[np.int64], work: NDArray[np.int64], slots: int, room: int) -> int:
    """Work until the last item ends, for items with the heaviest first. Costs 1.5 microseconds an item."""
    weighs, takes = memory.tolist(), work.tolist()
    lighter = [-bytes_ for bytes_ in weighs]
    after = list(range(len(takes) + 1))
    """Where to look for the next that is pending from a place on; shortened as it is walked."""
    flying = [(0, 0)] * slots
    left, used, first, last, end = sum(takes), 0, 0, len(takes) - 1, 0

    def pending_from(place: int) -> int:
        while after[place] != place:
            after[place] = after[after[place]]
            place = after[place]
        return place

    for _ in range(len(takes)):
        now, freed = heapq.heappop(flying)
        used -= freed
        first = pending_from(first)
        chosen = first
        if used + weighs[first] > room and not is_urgent(takes[first], left, slots):
            chosen = pending_from(bisect_left(lighter, used - room))
            if chosen == len(takes):
                while after[last] != last:
                    last -= 1
                chosen = last
        after[chosen] = chosen + 1
        left, used = left - takes[chosen], used + weighs[chosen]
        heapq.heappush(flying, (now + takes[chosen], weighs[chosen]))
        end = max(end, now + takes[chosen])
    return end


def _bundled(memory: NDArray[np.int64], work: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The heavier half of `MOST_ITEMS` singly, what is lighter in bundles of neighbours."""
    single = MOST_ITEMS // 2
    if len(memory) <= MOST_ITEMS:
        return memory, work
    starts = np.concatenate([np.arange(single), np.unique(np.linspace(single, len(memory) - 1, single).astype(int))])
    return memory[starts], np.add.reduceat(work, starts)
