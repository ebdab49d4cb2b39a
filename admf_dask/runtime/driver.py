"""The one loop: feed chunks, take blocks, tell observers. Every job of the toolkit goes through here.

    Pending ranges --size by ChunkSizer--> Executor --Reply--> Block --> events --> the caller
                       ^--- what a worker did not reach, or a death threw back ---'

The caller iterates over blocks as they finish, in any order, each item in exactly one of them.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from admf_dask.events import BlockFinished, Event, Notice, Observer, RunFinished, RunStarted
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.runtime.chunks import ChunkSizer, Pending
from admf_dask.runtime.evaluate import Keep, MapEvaluator
from admf_dask.runtime.executors import Executor, Range, Reply
from admf_dask.runtime.suspects import Suspects

logger = logging.getLogger("admf_dask")


@dataclass(frozen=True, slots=True)
class Title:
    """What a run is called."""

    kind: str
    """Short and fixed (`optimize`, `map`): it becomes a key prefix, which the scheduler keeps for ever."""
    name: str


@dataclass(slots=True)
class Run:
    """One run over `total` items. Iterate over it once; leaving the loop early stops it."""

    evaluator: MapEvaluator
    total: int
    executor: Executor
    title: Title
    observers: Sequence[Observer] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _pending: Pending = field(init=False)
    _sizer: ChunkSizer = field(init=False)
    _suspects: Suspects = field(default_factory=Suspects)
    _in_flight: int = 0
    _alone: bool = False
    _silenced: set[int] = field(default_factory=set)

    def __iter__(self) -> Generator[Block, None, None]:
        """Blocks as they finish. Raises what concerns the call (TaskError, ClusterLost), never what concerns an item."""
        self._pending = Pending.of(self.total)
        self._sizer = ChunkSizer(self.executor.slots)
        state = "failed"
        self._tell(self._started())
        try:
            self.executor.start(self.id, self.title.kind, self.evaluator)
            self._feed()
            while self._in_flight:
                for reply in self.executor.wait():
                    self._in_flight -= 1
                    for block in self._take(reply):
                        # The caller first: what an observer shows is then also in hand if Ctrl-C comes now.
                        yield block
                        self._tell(BlockFinished(self.id, block, time.time()))
                self._feed()
            state = "finished"
        except (KeyboardInterrupt, GeneratorExit):
            state = "interrupted"
            raise
        finally:
            self.executor.stop()
            self._tell(RunFinished(self.id, state, time.time()))

    def _feed(self) -> None:
        if self._alone and self._in_flight:
            return
        self._alone = False
        while self._pending.count and self._in_flight < self.executor.in_flight_limit:
            self._submit(self._pending.take(self._sizer.size(self._pending.count)))
        if not self._in_flight and (suspect := self._suspects.next()):
            self._alone = True
            self._submit(suspect)

    def _submit(self, chunk: Range) -> None:
        self._in_flight += 1
        self.executor.submit(chunk, self._sizer.budget)

    def _take(self, reply: Reply) -> Iterable[Block]:
        if reply.block is not None:
            block = reply.block
            self._sizer.record(block.stop - block.start, block.busy)
            self._pending.put_back(block.stop, reply.chunk[1])
            return (block,)
        verdict = self._suspects.worker_died(reply.chunk, reply.executing, alone=self._alone)
        for start, stop in verdict.again:
            self._pending.put_back(start, stop)
        words = reply.death.words if reply.death else ""
        if verdict.guilty is None:
            return ()
        self._tell(Notice(self.id, f"item {verdict.guilty} ended its worker: {words}", time.time()))
        return (self._condemned(verdict.guilty, words),)

    def _condemned(self, index: int, words: str) -> Block:
        deaths = self._suspects.deaths[index]
        message = f"{words} while it evaluated this item, {deaths} times, the last time alone"
        failed = FailedItem(index, 0.0, Failure("died", "WorkerDied", message, ""), attempts=deaths)
        return Block(
            start=index, stop=index + 1, indices=np.empty(0, np.int64),
            columns=None if self.evaluator.keep is None else {}, payload=None,
            seconds=np.empty(0, np.float32), failures=(failed,), evaluated=1, rejected=0, busy=0.0, worker="", failed=1,
        )  # fmt: skip

    def _started(self) -> RunStarted:
        keep = self.evaluator.keep or Keep()
        return RunStarted(
            self.id,
            self.title.kind,
            self.title.name,
            self.total,
            self.executor.slots,
            keep.score,
            keep.maximize,
            time.time(),
        )

    def _tell(self, event: Event) -> None:
        for observer in self.observers:
            if id(observer) in self._silenced:
                continue
            try:
                observer.on_event(event)
            except Exception:
                self._silenced.add(id(observer))
                logger.exception("an observer of the run failed and is left out from now on: %r", observer)
