"""How much may be under way while a run goes on: facts of the machine in, a number and a sentence out."""

from __future__ import annotations

from dataclasses import dataclass

from admf_dask.machine import Machine
from admf_dask.text import format_bytes

RECOVERED = 3.0
"""Percent below the maximum at which more is fed again; in between nothing changes."""


@dataclass(slots=True)
class Throttle:
    """Halves what may be under way whenever a look finds the machine too full, down to one; doubles it when room returns."""

    max_memory_percent: float
    full: int
    """Chunks under way where nothing is short."""
    allowed: int = 0
    """Chunks that may be under way now."""

    def __post_init__(self) -> None:
        """Begin with all."""
        self.allowed = self.allowed or self.full

    def look(self, machine: Machine) -> str | None:
        """Learn how full the machine is. Returns a sentence when something begins or ends, else None."""
        if not machine.memory_total:
            return None
        percent = (machine.memory_total - machine.memory_available) / machine.memory_total * 100
        before = self.allowed
        if percent > self.max_memory_percent:
            self.allowed = max(1, self.allowed // 2)
            if before == self.full > 1:
                return (
                    f"memory is short: {percent:.0f} % of {format_bytes(machine.memory_total)} is in use and "
                    f"max_memory_percent is {self.max_memory_percent:g}; fewer chunks are under way until room returns"
                )
        elif percent < self.max_memory_percent - RECOVERED:
            self.allowed = min(self.full, 2 * self.allowed)
            if before < self.full == self.allowed:
                return f"memory has room again ({percent:.0f} % in use); all slots are fed"
        return None
