"""`ClusterExecutor`: chunks run on any Dask cluster.

An executor knows nothing of items. It takes ranges, and answers with `Reply` records through one queue that the driver
can wait on and that Ctrl-C can interrupt.

The class is long because sending a chunk, cutting it, ending its process, telling why that died and giving the run up all
turn on the same few tables (tasks, chunks under way, what was overdue), which belong to one event loop; what decides is elsewhere
(`cuts`, `suspects`, `company`, `alarm`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import queue
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from admf_dask.errors import ClusterLost, SchedulerUnreachable, SessionError
from admf_dask.runtime.alarm import GRACE, Ages, interval
from admf_dask.runtime.blackbox import cut, read_executing
from admf_dask.runtime.cluster import OwnCluster
from admf_dask.runtime.company import Company
from admf_dask.runtime.cuts import LONGEST_LOOK_SECONDS, LOOK_SECONDS, ROOM_SECONDS, Cutter, UnderWay
from admf_dask.runtime.evaluate import CallError, MapEvaluator
from admf_dask.runtime.farewells import PAUSE, Farewells
from admf_dask.runtime.job import (
    LACKS,
    NO_JOB,
    POSTED,
    Job,
    evaluate_chunk,
    evaluators_here,
    plugin_name,
    unpack_lacking,
    unpack_reply,
)
from admf_dask.runtime.pack import pack_evaluator
from admf_dask.runtime.replies import Death, Range, Reply
from admf_dask.runtime.shared import SharedStore
from admf_dask.runtime.shared.arrival import is_here, pieces, receive
from admf_dask.runtime.shared.data import let_go

Post = Callable[[int, bytes, int | None], None]
Posted = tuple[Range, bytes, Range | None]
"""A chunk, its answer, and what of it the worker goes on with."""
WAITS_ON_THE_SCHEDULER = {"_data_producer": True}
"""How Dask marks tasks of which many may wait: they stand in line on the scheduler, for the slot that is free first. It finds out
by itself only when a run has more than two for each slot; till then each goes to some worker at once, behind a long chunk too.
"""
logger = logging.getLogger("admf_dask")


@dataclass(slots=True, eq=False)
class Sent:
    """A chunk on its way."""

    rest: Range
    """What has no answer yet."""
    budget: float
    future: Any = None
    """Of the task that it was sent as last."""

    def release(self) -> None:
        """The scheduler may forget it."""
        if self.future is not None:
            self.future.release()
            self.future = None


@dataclass(slots=True)
class ClusterExecutor:
    """Chunks as Dask tasks with keys `("optimize-<run>", n)`; each result is taken and released as it finishes.

    `cluster` is our own, None where the scheduler is somebody else's. `in_process` says that its workers are threads of this
    process, so that nothing need be pickled. `black_boxes` is a folder that driver and worker processes share, else None.
    """

    client: Client
    slots: int
    cluster: OwnCluster | None = None
    in_process: bool = False
    black_boxes: str | None = None
    farewells: Farewells = field(default_factory=Farewells)
    """What is still being wound down when `stop` returns."""
    store: SharedStore | None = None
    """Where large data goes; None where the workers share this process's memory."""
    company: Company = field(default_factory=lambda: Company(crowded=True))
    """The other runs of the session."""
    _replies: queue.SimpleQueue[Reply | Posted | BaseException] = field(default_factory=queue.SimpleQueue)
    _sent: set[Sent] = field(default_factory=set)
    _count: int = 0
    """Tasks so far."""
    _run: str = ""
    _kind: str = ""
    _stopped: bool = False
    _deliveries: dict[str, asyncio.Lock] = field(default_factory=dict)
    _unsent: list[tuple[int, Sent, asyncio.Future[None]]] = field(default_factory=list)
    """What goes to the scheduler at the end of this turn of the loop, and who waits for that."""
    _under_way: dict[int, Sent] = field(default_factory=dict)
    """By the number of their task, until it has ended or its last answer is there."""
    _cutter: Cutter = field(init=False)
    _cuts: dict[int, int] = field(default_factory=dict)
    """Where chunks are to end that were not seen since, by number."""
    _idle: int = 0
    _seconds_per_item: float | None = None
    _look: int = 0
    """Counts the times that slots had nothing to do after they all had."""
    _overdue: dict[int | str, tuple[Range, ...]] = field(default_factory=dict)
    """What was overdue in processes that were ended for it: by process id here, by address on other machines."""

    def __post_init__(self) -> None:
        """Nothing is seen of its chunks yet."""
        self._cutter = Cutter(self.slots)

    @property
    def in_flight_limit(self) -> int:
        """Two for each slot: one under way, one waiting on the scheduler, so that no worker waits for the driver."""
        return 2 * self.slots

    @property
    def can_cut(self) -> bool:
        """Where the driver and the workers share a machine, and so the black boxes."""
        return self.black_boxes is not None

    def start(self, run: str, kind: str, evaluator: MapEvaluator) -> None:
        """Register the job with the scheduler, which hands it to every worker, present and future."""
        self._run, self._kind = run, kind
        if self.in_process:
            evaluators_here[run] = evaluator
        packed, needed = (b"", ()) if self.in_process else pack_evaluator(evaluator, self.store, run)
        if self.store is not None and (dropped := self.store.take_dropped()):
            self.client.loop.add_callback(self._let_go, [handle.path for handle in dropped])
        job = Job(run, packed, self.black_boxes, needed, self._posts is not None)
        if self.cluster is not None and self._posts is not None:
            self._posts[run] = self._on_post
            self.client.loop.add_callback(self.cluster.announce, job.name, pickle.dumps(job))
        else:
            self._register(job)
        if self.can_cut and self.cluster is not None:
            self.client.loop.add_callback(self._make_room, self.cluster)
        if evaluator.policy.timeout is not None and self.black_boxes is not None:
            self.client.loop.add_callback(self._patrol, evaluator.policy.timeout)

    def _register(self, job: Job) -> None:
        try:
            self.client.register_plugin(job)
        except OSError as error:
            # A worker died as it was told; the scheduler knows the job all the same, and gives it to who comes next.
            if self.client.status != "running":
                raise _lost("the connection to the scheduler was closed") from error

    @property
    def _posts(self) -> dict[str, Post] | None:
        """By run: what takes the answers that workers post to a scheduler in this process; None where it is elsewhere."""
        return None if self.cluster is None or self.in_process else self.cluster.posts

    @property
    def _tasks(self) -> str:
        """What its tasks are called."""
        return f"{self._kind}-{self._run}"

    def _pids(self) -> list[int]:
        return [] if self.cluster is None else self.cluster.pids()

    def _why_died(self, pid: int) -> Death | None:
        """What the nannies of our own cluster saw, None as long as they saw nothing; elsewhere nobody tells."""
        return Death() if self.cluster is None else self.cluster.why_died(pid)

    async def _let_go(self, paths: list[str]) -> None:
        """Tell all workers what was removed; who cannot be reached has nothing any more, or finds out when it closes."""
        with contextlib.suppress(OSError):
            await self.client._run(let_go, paths, on_error="ignore")

    def submit(self, chunks: Sequence[Range], budget: float, *, alone: bool = False) -> None:
        """A task for each, all in one graph; costs the event loop's thread, where no Ctrl-C can leave a future half made, about
        0.8 ms for each in all.
        """
        self.client.loop.add_callback(self._follow_all, [Sent(chunk, budget) for chunk in chunks], alone)

    async def _follow_all(self, chunks: Sequence[Sent], alone: bool) -> None:
        await asyncio.gather(*(self._follow(sent, alone) for sent in chunks))

    async def _follow(self, sent: Sent, alone: bool) -> None:
        """On the client's event loop: wait for a place, and give the driver what became of the chunk there."""
        async with self.company.place(alone=alone, given_up=lambda: self._stopped):
            if self._stopped:
                return
            self._sent.add(sent)
            reply = await self._reply(sent)
            sent.release()
            self._sent.discard(sent)
            if reply is not None and not self._stopped:
                self._replies.put(reply)

    def _on_post(self, number: int, packed: bytes, goes_on_at: int | None) -> None:
        """On the same loop: a part of a chunk, or the last a moment before the task itself ends. The driver can begin to read."""
        if self._stopped or (sent := self._under_way.get(number)) is None:
            return
        goes_on = None if goes_on_at is None or goes_on_at >= sent.rest[1] else (goes_on_at, sent.rest[1])
        self._replies.put((sent.rest, packed, goes_on))
        if goes_on is None:
            del self._under_way[number]
        else:
            sent.rest = goes_on

    async def _reply(self, sent: Sent) -> Reply | BaseException | None:
        """Send the task, wait for it, fetch its bytes, None if they are posted; the scheduler forgets it when it is released."""
        try:
            packed = await self._task(sent)
            tries = 0
            while packed is not None and packed[:1] in (NO_JOB, LACKS, POSTED):
                if (tries := tries + 1) > 600:
                    raise CallError("a worker was never told of the run, or its data; look into its log for why")
                if packed in (NO_JOB, POSTED):
                    # Not yet heard of the run; or an answer that was posted got lost.
                    await asyncio.sleep(0.05)
                else:
                    await self._deliver(packed)
                packed = await self._task(sent)
            return None if packed is None else Reply(sent.rest, block=unpack_reply(packed))
        except KilledWorker as death:
            return await self._obituary(sent.rest, death.last_worker.pid, death.last_worker.address)
        except FutureCancelledError as error:
            return _lost(f"the scheduler gave the tasks of this run up ({error.reason})")
        except OSError as error:
            # What is asked of the scheduler in these words is where results lie; a worker that is gone is no such error.
            return _lost(f"the connection to the scheduler was closed ({type(error).__name__})")
        except BaseException as error:  # noqa: BLE001 - raised again in the driver's thread
            return error

    async def _task(self, sent: Sent) -> bytes | None:
        sent.release()
        if self._stopped:
            raise asyncio.CancelledError
        self._count += 1
        number = self._count
        if self._posts is None:
            await self._sending(number, sent)
        else:
            self._under_way[number] = sent
            try:
                await self._sending(number, sent)
                await sent.future.exception()
            finally:
                answered = self._under_way.pop(number, None) is None
            if answered:
                # What came before its worker died counts.
                return None
        packed: bytes = await self.client.gather(sent.future, asynchronous=True)
        return packed

    def _sending(self, number: int, sent: Sent) -> asyncio.Future[None]:
        """Done when a chunk is sent. Those of one turn of the loop go as one graph: each costs client and scheduler half a
        millisecond, and a run begins with one or two chunks for each slot.
        """
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._unsent.append((number, sent, done))
        if len(self._unsent) == 1:
            loop.call_soon(self._send)
        return done

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        numbers, chunks, done = zip(*unsent, strict=True)
        starts, stops = zip(*(sent.rest for sent in chunks), strict=True)
        try:
            if self._stopped:
                raise asyncio.CancelledError
            futures = self.client.map(
                evaluate_chunk, [self._run] * len(unsent), starts, stops, [sent.budget for sent in chunks], numbers,
                key=[(self._tasks, number) for number in numbers], pure=False, **WAITS_ON_THE_SCHEDULER,
            )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            for one in done:
                one.set_exception(error)
            return
        for sent, future, one in zip(chunks, futures, done, strict=True):
            sent.future = future
            one.set_result(None)

    async def _deliver(self, lacking: bytes) -> None:
        """Send a machine the shared data that it lacks, once, whichever of its workers asks."""
        address, place, handles = unpack_lacking(lacking)
        async with self._deliveries.setdefault(place, asyncio.Lock()):
            for handle in handles:
                facts = (handle.path, handle.size)
                try:
                    if (await self._call(address, is_here, *facts)) is not False:
                        continue
                    for offset, piece in pieces(handle.path):
                        await self._call(address, receive, *facts, offset, piece)
                except OSError as error:
                    # Without room there the run cannot go on; a worker that died meanwhile only means: ask again.
                    if error.errno is not None and not isinstance(error, ConnectionError):
                        raise CallError(f"shared data cannot be sent to {address}: {error}") from error
                    return
                finally:
                    if self.store is not None:
                        self.store.sent_away = True

    async def _call(self, address: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on one worker, beside its tasks; None if it is gone."""
        answers = await self.client._run(function, *args, workers=[address], wait=True, on_error="raise")
        return answers.get(address)

    def even_out(self, idle: int, seconds_per_item: float | None) -> None:
        """Look at what the workers are at, as long as there are idle slots; costs a few microseconds a process and look."""
        had, self._idle, self._seconds_per_item = self._idle, idle, seconds_per_item
        if idle and not had:
            self._look += 1
            self.client.loop.add_callback(self._even_out, self._look)

    async def _even_out(self, look: int) -> None:
        """Until all slots are busy. That may be noticed only when some are idle again: then the next look has begun."""
        pause = LOOK_SECONDS
        while self._idle and look == self._look and not self._stopped:
            seen = self._seen()
            self._cut(seen, self._cutter.choose(seen, self._idle, time.monotonic(), self._seconds_per_item))
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, LONGEST_LOOK_SECONDS)

    async def _make_room(self, cluster: OwnCluster) -> None:
        """While others want a slot (runs of this session, tasks of the user) none of its chunks is long.

        Each look takes a CPU from some item, so without others there are two a second.
        """
        while not self._stopped:
            if not cluster.has_others(self._tasks):
                await cluster.next_graph(LONGEST_LOOK_SECONDS)
            await asyncio.sleep(ROOM_SECONDS / 4)
            if cluster.others_wait(self._tasks):
                seen = self._seen()
                self._cut(seen, self._cutter.shorten(seen, time.monotonic(), self._seconds_per_item))

    def _cut(self, seen: dict[UnderWay, tuple[int, int]], chosen: list[tuple[UnderWay, int]]) -> None:
        for chunk, end in chosen:
            cut(str(self.black_boxes), *seen[chunk], chunk.number, end)
            self._cuts[chunk.number] = end
        if self._cuts:
            self._take_cuts()

    def _take_cuts(self) -> None:
        """What a worker will not begin goes back to the driver, without its answer; who is not seen now is looked at again."""
        for chunk in self._seen():
            if (end := self._cuts.pop(chunk.number, None)) is not None:
                self._take_away(chunk.number, max(end, chunk.until))
        self._cuts = {number: end for number, end in self._cuts.items() if number in self._under_way}

    def _take_away(self, number: int, end: int) -> None:
        sent = self._under_way[number]
        if end < sent.rest[1]:
            rest, sent.rest = sent.rest, (sent.rest[0], end)
            self._replies.put(Reply(rest, goes_on=sent.rest))

    def _seen(self) -> dict[UnderWay, tuple[int, int]]:
        """What chunks are at, and in which process and thread."""
        return {
            UnderWay(number, span.start, sent.rest[1] - span.stop, sent.rest[1], span.until): (pid, span.slot)
            for pid in self._pids()
            for span in read_executing(str(self.black_boxes), pid, self._run) or ()
            for number, sent in self._under_way.items()
            if sent.rest[0] <= span.start < sent.rest[1]
        }

    async def _patrol(self, timeout: float) -> None:
        """End the worker processes in which an item is overdue and the soft stop had no effect."""
        ages = Ages()
        while not self._stopped:
            await asyncio.sleep(interval(timeout))
            now = time.monotonic()
            for pid in self._pids():
                spans = read_executing(str(self.black_boxes), pid, self._run) or ()
                overdue = [
                    span for span in spans
                    if span.began and now - ages.since((pid, span.slot), span, now) > timeout + GRACE
                ]  # fmt: skip
                if overdue:
                    # Again as long as it is listed: the system may give its number to another one in time.
                    self._overdue[pid] = tuple((span.start, span.stop) for span in overdue)
                    self._end(pid)

    def _end(self, pid: int) -> None:
        """End a process for this run; others that have chunks there are told that it was not their doing."""
        self.company.ended[pid] = self._run
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def _obituary(self, chunk: Range, pid: int, address: str) -> Reply:
        """What black box and nanny say; the nanny may hear of the death a moment after the scheduler."""
        noted = read_executing(self.black_boxes, pid, self._run) if self.black_boxes else None
        executing = None if noted is None else tuple((span.start, span.stop) for span in noted)
        others = 0 if noted is None else len(read_executing(str(self.black_boxes), pid) or ()) - len(noted)
        if self.black_boxes is None:
            await self._read_last_words()
        if overdue := self._overdue.get(pid if self.black_boxes else address):
            return Reply(chunk, death=Death(overdue=overdue), executing=executing, others=others)
        if self.black_boxes is not None and self.company.ended_for_another(pid, self._run):
            return Reply(chunk, death=Death(for_another=True), executing=executing, others=others)
        death = self._why_died(pid)
        for _ in range(40):
            if death is not None:
                break
            await asyncio.sleep(0.05)
            death = self._why_died(pid)
        return Reply(chunk, death=death or Death(), executing=executing, others=others)

    async def _read_last_words(self) -> None:
        """What workers of other machines told before they ended themselves."""
        for _, words in await self.client.scheduler.events(topic=plugin_name(self._run)):
            self._overdue[words["worker"]] = ((words["start"], words["stop"]),)

    def wait(self) -> list[Reply]:
        """Block for the first reply, then take all that are there."""
        replies: list[Reply] = []
        while not replies or not self._replies.empty():
            reply = _opened(self._replies.get() if replies else self._next())
            if not isinstance(reply, BaseException):
                replies.append(reply)
            elif replies:
                # What came before what ends the run is in hand first.
                self._replies.put(reply)
                break
            else:
                raise reply
        return replies

    def _next(self) -> Reply | Posted | BaseException:
        while True:
            try:
                return self._replies.get(timeout=1.0)
            except queue.Empty:
                if self.client.status in ("closed", "closing"):
                    return _lost("the connection to the scheduler was closed")

    def stop(self) -> None:
        """Take the job away: what is under way is ended, softly and then with its process; what waits never begins."""
        self._stopped = True
        evaluators_here.pop(self._run, None)
        if (posts := self._posts) is not None:
            posts.pop(self._run, None)
        if self.store is not None:
            self.store.end(self._run)
        if self.client.status == "running":
            self.farewells.add(self._wind_down(), self.client.loop.asyncio_loop)

    async def _wind_down(self) -> None:
        self.company.stir()
        if self.cluster is not None:
            self.cluster.stir()
        if not (self._sent if self._posts is None else self._under_way):
            # All is answered. Meanwhile tasks whose answers were posted end, and need not be taken back.
            await asyncio.sleep(PAUSE)
        futures = [sent.future for sent in self._sent if sent.future is not None]
        forgotten = asyncio.Event()
        if futures and self.black_boxes is not None:
            self.client.loop.add_callback(self._evict, forgotten)
        try:
            if futures:
                await self.client.cancel(futures, asynchronous=True, force=True, msg="the run was stopped")
            if self.cluster is not None:
                await self.cluster.retract(plugin_name(self._run))
            else:
                await self.client.scheduler.unregister_worker_plugin(name=plugin_name(self._run))
        except (OSError, RuntimeError):
            # The scheduler is gone, and with it the plugin.
            return
        finally:
            forgotten.set()

    async def _evict(self, forgotten: asyncio.Event) -> None:
        """End the processes in which an item of a run that was stopped goes on: the next run needs them.

        A chunk that was on its way may begin even now, until every worker has `forgotten` the run.
        """
        since: dict[int, float] = {}
        ended: set[int] = set()
        while self.client.status == "running":
            now = time.monotonic()
            busy = [pid for pid in self._pids() if read_executing(str(self.black_boxes), pid, self._run)]
            since = {pid: since.get(pid, now) for pid in busy}
            for pid in busy:
                if now > since[pid] + GRACE and pid not in ended:
                    ended.add(pid)
                    self._end(pid)
            if forgotten.is_set() and not busy:
                return
            await asyncio.sleep(0.05)
        # The session closes, and ends them itself.


def _opened(answer: Reply | Posted | BaseException) -> Reply | BaseException:
    if not isinstance(answer, tuple):
        return answer
    chunk, packed, goes_on = answer
    try:
        return Reply(chunk, block=unpack_reply(packed), goes_on=goes_on)
    except CallError as error:
        return error


def _lost(why: str) -> ClusterLost:
    return ClusterLost(
        f"the cluster was lost during the run: {why}. What had finished is kept in `.partial` of this error"
    )


def total_threads(client: Client, *, patience: float = 30.0) -> int:
    """Threads over all workers of a cluster; waits for the first to join, and says so where that may take a while.

    Raises SessionError after `patience` seconds, and SchedulerUnreachable where the scheduler went away.
    """
    address = client.scheduler.address
    try:
        if threads := sum(client.nthreads().values()):
            return int(threads)
        if patience >= 1:
            logger.warning(
                "no worker has joined the scheduler at %s yet; waiting %g seconds for one", address, patience
            )
        client.wait_for_workers(1, timeout=patience)
        return max(1, int(sum(client.nthreads().values())))
    except TimeoutError as error:
        raise SessionError(
            f"a run needs a worker, but none has joined the scheduler at {address} in {patience:g} seconds; start one with "
            f"`dask worker {address}`, or let the cluster keep one (`cluster.adapt(minimum=1)`)"
        ) from error
    except OSError as error:
        raise SchedulerUnreachable(
            f"the scheduler at {address} went away before a worker could be asked ({type(error).__name__}); start it again, and "
            "open a new session"
        ) from error
