"""What the driver and whoever runs its chunks say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from admf_dask.endings import Ending
from admf_dask.outcomes import Block
from admf_dask.runtime.evaluate import MapEvaluator

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended, as far as anybody knows."""

    ending: Ending = field(default_factory=Ending)
    overdue: tuple[Range, ...] = ()
    """What took longer than its timeout, if that is why we ended the process."""
    for_another: bool = False
    """Whether it was ended on purpose, for an item of another run."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a chunk: a block, the death of its worker, or neither yet, but a part of it was taken away."""

    chunk: Range
    block: Block | None = None
    death: Death | None = None
    executing: tuple[Range, ...] | None = None
    others: int = 0
    """Items of other runs that were executing in the same process."""
    goes_on: Range | None = None
    """What the worker is at now, if it is not done with the chunk: the rest of it, or some of that."""


class Executor(Protocol):
    """Runs chunks of one run."""

    @property
    def slots(self) -> int:
        """Items that can be evaluated at the same time."""

    @property
    def in_flight_limit(self) -> int:
        """Chunks that may be submitted and not yet answered."""

    @property
    def can_cut(self) -> bool:
        """Whether chunks that are under way can be cut."""

    def start(self, run: str, kind: str, evaluator: MapEvaluator) -> None:
        """Make the evaluator known. Raises TaskError if it cannot travel."""

    def submit(self, chunks: Sequence[Range], budget: float, *, alone: bool = False) -> None:
        """Begin chunks, `alone` with no other run beside them; their replies come through `wait`."""

    def even_out(self, idle: int, seconds_per_item: float | None) -> None:
        """So many slots have nothing to do, 0 to end that: of chunks with much to do a part comes back, if they can be cut."""

    def wait(self) -> list[Reply]:
        """Block until there is a reply; return all there are. Raises ClusterLost, or CallError for a wrong call."""

    def stop(self) -> None:
        """Forget what is in flight and free what the run held; returns at once, also after an interrupt."""
