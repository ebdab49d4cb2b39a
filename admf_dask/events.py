"""Frozen records of what happens in a run, and the observer protocol.

Journal, progress and page all live on this one stream:

    RunStarted, BlockRecalled*, (BlockFinished | Notice)*, RunFinished

Events are delivered in order, from the thread that drives the run. An observer that raises is reported once and left out
from then on; it cannot stop the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from admf_dask.outcomes import Block
from admf_dask.weights import Weights


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first event of a run."""

    run: str
    """Unique for ever: 32 hexadecimal digits."""
    kind: str
    """`optimize`, `map`, `backtest` or `process`."""
    name: str
    """What the user called it."""
    total: int
    """Items before constraints."""
    slots: int
    """Items that can be evaluated at the same time."""
    score: str | None
    """The column that ranks, if any."""
    maximize: bool
    at: float
    """Seconds since the epoch."""
    recalled: int = 0
    """Items that an earlier run settled; their blocks follow."""
    weights: Weights | None = None
    """What each item weighs, where that is known beforehand."""


@dataclass(frozen=True, slots=True)
class BlockRecalled:
    """A block that an earlier run had written into the journal."""

    run: str
    block: Block
    at: float


@dataclass(frozen=True, slots=True)
class BlockFinished:
    """`block.stop - block.start` more items are done; `block.indices` say which have rows."""

    run: str
    block: Block
    at: float


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know: a worker lost, memory short. One sentence."""

    run: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last event of a run."""

    run: str
    state: str
    """`finished`, `interrupted` or `failed`."""
    at: float


Event = RunStarted | BlockRecalled | BlockFinished | Notice | RunFinished


class Observer(Protocol):
    """Anything that wants to hear of a run."""

    def on_event(self, event: Event) -> None:
        """Take note, and return at once: the run waits."""
