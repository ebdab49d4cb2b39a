"""`Weights`: what items weigh, where they differ and it is known beforehand.

Files differ a hundredfold in size. Two numbers an item are enough for the rest: how much work it is against the others (chunks
and the time left are measured in it), and how many bytes it takes while it is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What each item weighs, by its position."""

    work: NDArray[np.int64]
    """Shape (n,), at least 1 each, in any unit: bytes of input, say."""
    memory: NDArray[np.int64]
    """Shape (n,): bytes that an item takes while it is evaluated; 0 where nothing is known."""
    _sums: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Add up. Raises ValueError for work below 1 or two lengths."""
        if len(self.work) != len(self.memory) or (len(self.work) and self.work.min() < 1):
            raise ValueError(
                f"each item weighs at least 1 in work and has one memory, but they are {self.work!r:.80} and {self.memory!r:.80}"
            )
        object.__setattr__(self, "_sums", np.concatenate([[0], np.cumsum(self.work, dtype=np.int64)]))

    def at(self, positions: NDArray[np.int64]) -> Weights:
        """The weights of some of the items, in that order."""
        return Weights(self.work[positions], self.memory[positions])

    def work_of(self, start: int, stop: int) -> int:
        """The work of the items in `[start, stop)` together."""
        return int(self._sums[stop] - self._sums[start])

    def memory_of(self, start: int, stop: int) -> int:
        """The most that an item in `[start, stop)` takes: a chunk evaluates one after the other."""
        return int(self.memory[start:stop].max(initial=0))

    def reach(self, start: int, stop: int, work: int) -> int:
        """Up to where items of `[start, stop)` are at most `work` together; the first is always in."""
        end = int(np.searchsorted(self._sums, self._sums[start] + work, side="right")) - 1
        return min(stop, max(start + 1, end))
