"""`Admission`: which items may be under way together, so that they fit into memory. A pure decision."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from admf_dask.resources import Layout

USABLE = 0.85
"""The part of a process's memory limit that is counted on; at 0.95 the process is ended."""
BARE_PROCESS = 150 * 2**20
"""Bytes that a worker process holds with pandas loaded, before it does any work."""


@dataclass(slots=True)
class Admission:
    """Lets chunks begin so that those which meet in one process fit into its memory.

    Which process takes a chunk is the scheduler's choice, so the worst is assumed: that the heaviest `threads` of all that
    are under way meet in one. An item that does not fit at all is let in when nothing else is under way.
    """

    threads: int
    """Items that are evaluated at the same time in one process."""
    room: int
    """Bytes that they may take together."""
    under_way: list[int] = field(default_factory=list)
    """Bytes of each chunk that began and did not end."""
    soft: bool = False
    """Whether `room` is a wish that no slot idles for, nor the end comes later for."""

    @classmethod
    def of(cls, layout: Layout) -> Admission | None:
        """For a layout; None where it has nothing to decide: one item in a process at a time, or no limit known."""
        if layout.threads_per_process < 2 or not layout.memory_limit:
            return None
        held = 0 if layout.mode == "thread" else BARE_PROCESS
        return cls(layout.threads_per_process, max(1, int(layout.memory_limit * USABLE) - held))

    @property
    def allowance(self) -> float:
        """Bytes that a chunk may take to begin now; below 0 nothing may."""
        if not self.under_way:
            return float("inf")
        return self.room - sum(heapq.nlargest(self.threads - 1, self.under_way))

    def waits_for_lighter(self, memory: int) -> bool:
        """Whether all that is under way takes less than `memory`: then it is soon over, and nothing more should begin before."""
        return all(other < memory for other in self.under_way)

    def begin(self, memory: int) -> None:
        """A chunk begins."""
        self.under_way.append(memory)

    def end(self, memory: int) -> None:
        """A chunk that began with this is over."""
        self.under_way.remove(memory)
