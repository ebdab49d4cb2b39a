"""The one loop: feed chunks, take blocks, tell observers. Every job of the toolkit goes through here.

    Supply of ranges --chunk--> Executor --Reply--> Block --> events --> the caller
            ^--- what a worker did not reach, or a death threw back ---'

The caller iterates over blocks as they finish, in any order, each item in exactly one of them.
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from admf_dask.admission import Admission
from admf_dask.errors import JournalError, TaskError
from admf_dask.events import BlockFinished, BlockRecalled, Event, Notice, Observer, RunFinished, RunStarted
from admf_dask.journal import Call, Journal, Record
from admf_dask.machine import Machine
from admf_dask.outcomes import Block, FailedItem, Failure
from admf_dask.runtime.evaluate import Keep, MapEvaluator
from admf_dask.runtime.replies import Death, Executor, Range, Reply
from admf_dask.runtime.supply import Supply
from admf_dask.runtime.suspects import Suspects
from admf_dask.space.part import Ranges, part_of
from admf_dask.text import format_count
from admf_dask.throttle import Throttle
from admf_dask.weights import Weights

LOOK_SECONDS = 1.0
"""Between two looks at the machine's memory; one costs a few milliseconds."""
logger = logging.getLogger("admf_dask")


class JournalWarning(UserWarning):
    """A run could not be recorded to its end."""


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
    journal: Journal | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    recalled: int = 0
    """Items that the journal had."""
    _supply: Supply = field(init=False)
    _left: Ranges | None = None
    """The positions still to do, where that is not all of them; chunks count the places among those."""
    _record: Record | None = None
    throttle: Throttle | None = None
    """Watches the machine's memory, where the workers are on this one."""
    weights: Weights | None = None
    """What each item weighs, where they differ and it is known."""
    admission: Admission | None = None
    """Keeps heavy items apart; it needs weights."""
    _looked: float = field(default_factory=time.monotonic)
    _suspects: Suspects = field(default_factory=Suspects)
    _in_flight: int = 0
    _alone: bool = False
    _failed: int = 0
    _evaluated: int = 0
    _silenced: set[int] = field(default_factory=set)

    def __iter__(self) -> Generator[Block, None, None]:
        """Blocks as they finish, those of the journal first.

        Raises what concerns the call (TaskError, ClusterLost, JournalError), never what concerns an item, unless `on_error`
        says so.
        """
        recalled = self._open_journal()
        state = "failed"
        try:
            self._tell(self._started())
            for block in recalled:
                yield block
                self._tell(BlockRecalled(self.id, block, time.time()))
            if self._supply.pending.count:
                self.executor.start(self.id, self.title.kind, self._working_evaluator())
                self._feed()
            while self._in_flight:
                for block in self._finished():
                    # The caller first: what an observer shows is then also in hand if Ctrl-C comes now.
                    yield block
                    self._tell(BlockFinished(self.id, block, time.time()))
                    self._count_failures(block)
            state = "finished"
        except (KeyboardInterrupt, GeneratorExit):
            state = "interrupted"
            raise
        finally:
            self.executor.stop()
            self._close_journal(state)
            self._tell(RunFinished(self.id, state, time.time()))

    def _open_journal(self) -> list[Block]:
        """What was recorded before; leaves in `_supply` what was not."""
        recalled: list[Block] = []
        if self.journal is not None:
            self._record = self.journal.begin(self._call(), self.id)
            recalled, left = self._record.recalled, self._record.left
            self.recalled = self.total - left.size
            self._left = left if self.recalled else None
        weights = self.weights
        if weights is not None and self._left is not None:
            weights = weights.at(self._left.positions(np.arange(self._left.size)))
        executor = self.executor
        self._supply = Supply.of(
            self.total - self.recalled, executor.slots, weights, self.admission, can_cut=executor.can_cut
        )
        return recalled

    def _call(self) -> Call:
        evaluator, keep = self.evaluator, self.evaluator.keep or Keep()
        settings: dict[str, Any] = {"seed": evaluator.policy.seed, "keep": keep.count}
        if keep.count is not None:
            # Which rows are recorded at all depends on how they rank.
            settings |= {"score": keep.score, "maximize": keep.maximize}
        return Call.of(
            self.title.kind, self.title.name, evaluator.function, evaluator.given, evaluator.items,
            total=self.total, settings=settings, score=keep.score, maximize=keep.maximize,
        )  # fmt: skip

    def _close_journal(self, state: str) -> None:
        record, self._record = self._record, None
        if record is None:
            return
        try:
            record.close(state)
        except JournalError as error:
            warnings.warn(f"{error}", JournalWarning, stacklevel=3)

    def _working_evaluator(self) -> MapEvaluator:
        if self._left is None:
            return self.evaluator
        return replace(self.evaluator, items=part_of(self.evaluator.items, self._left))

    def _finished(self) -> list[Block]:
        """Wait for what finished next; feed the workers, then write it down."""
        blocks: list[Block] = []
        for reply in self.executor.wait():
            self._in_flight -= reply.goes_on is None
            self._supply.end(reply.chunk)
            blocks += self._take(reply)
        self._feed()
        return self._write_down(blocks)

    def _write_down(self, blocks: list[Block]) -> list[Block]:
        """The blocks at their positions among all items, durable if there is a journal."""
        if self._record is None and self._left is None:
            return blocks
        if self._left is None:
            # Places are positions.
            settled = [Ranges.of([(block.start, block.stop)]) for block in blocks]
        else:
            settled = [self._left.spans(block.start, block.stop) for block in blocks]
            blocks = [moved(block, self._left) for block in blocks]
        if self._record is not None:
            try:
                self._record.write(list(zip(blocks, settled, strict=True)))
            except JournalError as error:
                words = f"{error}. The run goes on; what finishes from now on is in memory only"
                self._tell(Notice(self.id, words, time.time()))
                warnings.warn(words, JournalWarning, stacklevel=4)
                self._close_journal("failed")
        return blocks

    def _feed(self) -> None:
        if self._alone and self._in_flight:
            return
        self._alone = False
        chunks: list[Range] = []
        while self._supply.pending.count and self._in_flight < self._most_in_flight():
            chunk = self._supply.next(self._in_flight)
            if chunk is None:
                break
            self._in_flight += 1
            chunks.append(chunk)
        if not self._in_flight and (suspect := self._suspects.next()):
            self._alone = True
            self._supply.begin(suspect)
            self._in_flight += 1
            chunks.append(suspect)
        if chunks:
            self.executor.submit(chunks, self._supply.sizer.budget, alone=self._alone)
        if self.executor.can_cut:
            nothing_to_do = not (self._alone or self._supply.pending.count)
            idle = min(self.executor.slots, self._most_in_flight()) - self._in_flight if nothing_to_do else 0
            self.executor.even_out(max(0, idle), self._supply.seconds_per_item)

    def _most_in_flight(self) -> int:
        limit, throttle = self.executor.in_flight_limit, self.throttle
        if throttle is None:
            return limit
        if time.monotonic() > self._looked + LOOK_SECONDS:
            self._looked = time.monotonic()
            if words := throttle.look(Machine.probe(interval=0)):
                self._tell(Notice(self.id, words, time.time()))
        return min(limit, throttle.allowed)

    def _take(self, reply: Reply) -> Iterable[Block]:
        if reply.block is not None and reply.block.stop <= reply.chunk[1]:
            block = self._with_deaths(reply.block)
            self._supply.reached(reply.chunk, block.stop, block.busy, reply.goes_on)
            return (block,)
        if reply.block is not None or reply.goes_on is not None:
            # It was taken from its worker; or its worker began some of what had just been taken: then all of it is done again.
            self._supply.settle(reply.chunk, reply.goes_on)
            return ()
        death = reply.death or Death()
        if death.for_another:
            verdict = self._suspects.spared(reply.chunk, alone=self._alone)
        elif death.overdue:
            shared = len(reply.executing or ()) + reply.others > 1
            verdict = self._suspects.worker_overdue(reply.chunk, death.overdue, shared=shared)
        else:
            verdict = self._suspects.worker_died(reply.chunk, reply.executing, alone=self._alone, others=reply.others)
        for start, stop in verdict.again:
            self._supply.pending.put_back(start, stop)
        if verdict.guilty is None:
            return ()
        return (self._condemned(verdict.guilty, death),)

    def _condemned(self, index: int, death: Death) -> Block:
        deaths, timeout = self._suspects.deaths[index], self.evaluator.policy.timeout
        if death.overdue:
            message = (
                f"took longer than timeout={timeout:g} seconds and did not return to the interpreter, so its worker "
                "process was ended"
            )
            failure, seconds = Failure("timeout", "TaskTimeout", message, ""), timeout or 0.0
        else:
            message = (
                f"its worker process {death.ending} while it evaluated this item, {deaths} times, the last time alone"
            )
            if death.ending.outgrew:
                message += "; give each process more with memory_limit= or fewer workers=, or let the item need less"
            packed = pickle.dumps(death.ending.error(message, attempts=deaths))
            failure, seconds = Failure("died", "WorkerDied", message, "", packed), 0.0
        self._tell(Notice(self.id, f"{self._item(index)!r:.100} ended its worker: {message}", time.time()))
        return Block(
            start=index, stop=index + 1, indices=np.empty(0, np.int64),
            columns=None if self.evaluator.keep is None else {}, payload=None, seconds=np.empty(0, np.float32),
            failures=(FailedItem(index, seconds, failure, attempts=deaths),),
            evaluated=1, rejected=0, busy=0.0, worker="", failed=1,
        )  # fmt: skip

    def _count_failures(self, block: Block) -> None:
        """Raise what `on_error` asks for when there were too many failures."""
        self._failed += block.failed
        self._evaluated += block.evaluated
        policy = self.evaluator.policy
        if not block.failed or not policy.limit.reached(self._failed, self._evaluated):
            return
        first = min(block.failures, key=lambda failed: failed.index)
        item = self.evaluator.items[first.index]
        error = first.failure.exception(item)
        error.add_note(f"item {first.index}: {item!r:.200}\nWhat had finished is in `.partial` of this error")
        if policy.on_error == "raise":
            raise error
        raise TaskError(
            f"stopped by on_error={policy.on_error!r}: {format_count(self._failed)} of {format_count(self._evaluated)} "
            f"evaluations failed (the last: {item!r:.200}: {first.failure.summary}). What had finished is in `.partial` of this "
            "error",
            item=item,
        ) from error

    def _item(self, place: int) -> Any:
        at = place if self._left is None else int(self._left.positions(np.array([place], np.int64))[0])
        return self.evaluator.items[at]

    def _with_deaths(self, block: Block) -> Block:
        """An item that took a worker along once, and passed when it was run alone, needed more than one call."""
        again = {i: n + 1 for i, n in self._suspects.deaths.items() if block.start <= i < block.stop}
        return replace(block, attempts={**again, **block.attempts}) if again else block

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
            self.recalled,
            self.weights,
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


def moved(block: Block, whole: Ranges) -> Block:
    """A block over places among some positions, as one over the positions."""

    def at(places: Any) -> NDArray[np.int64]:
        return whole.positions(np.asarray(places, np.int64))

    failed_at = at([failed.index for failed in block.failures]).tolist()
    attempted_at = at(list(block.attempts)).tolist()
    example = block.rejected_example
    return replace(
        block,
        indices=at(block.indices),
        failures=tuple(replace(f, index=i) for f, i in zip(block.failures, failed_at, strict=True)),
        rejected_example=None if example is None else int(at([example])[0]),
        curves=tuple(replace(c, index=int(at([c.index])[0])) for c in block.curves),
        attempts=dict(zip(attempted_at, block.attempts.values(), strict=True)),
    )
