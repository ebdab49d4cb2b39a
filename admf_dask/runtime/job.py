"""A run as the workers know it: the evaluator, sent to each worker once, and the task that a chunk is.

A chunk travels as `(run, start, stop, budget, number)` and comes back as one `bytes`. The evaluator (function, items, data)
travels as a worker plugin: the scheduler keeps it and hands it to a worker before its first task, also to one that was
restarted or joined late, which scattered data does not survive. Taking the plugin away ends the run: items under way are
stopped as those that take too long are.
"""

from __future__ import annotations

import pickle
import threading
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from admf_dask.outcomes import Block, Failure
from admf_dask.runtime.alarm import Alarm
from admf_dask.runtime.blackbox import BlackBox, Slot
from admf_dask.runtime.calls import BEGAN, END, TAKEN, UNTIL, Cells, cells_of_nobody
from admf_dask.runtime.chunks import PARTS
from admf_dask.runtime.evaluate import CallError, MapEvaluator
from admf_dask.runtime.facts import forgotten, stop_what_runs, tell_from_now_on, watched
from admf_dask.runtime.shared import SharedData, value_of
from admf_dask.runtime.shared.arrival import is_here, place_here
from admf_dask.runtime.threads import limit_inner_threads, limit_this_thread

evaluators_here: dict[str, MapEvaluator] = {}
"""Evaluators of runs whose workers are threads of this process: they are shared, not pickled."""
NO_JOB = b"N"
"""The answer of a worker that has not heard of the run yet, or not any more."""
LACKS = b"L"
"""How the answer of a worker begins that lacks shared data; `unpack_lacking` reads the rest."""
POSTED = b""
"""The answer of a worker whose scheduler runs in the driver's process, where it has posted the real one."""
POST = "admf_dask_reply"
"""The operation of a posted answer on the stream from worker to scheduler."""
ANNOUNCE = "admf_dask_job"
"""The operation of a job on the stream from scheduler to worker."""
LARGEST_POSTED = 8 * 2**20
"""Bytes of an answer that may travel on that stream, before heartbeats and other tasks; larger ones are fetched."""
LARGEST_PART = 2**20
"""Bytes of a part after which a worker goes on by itself; with larger ones it waits until the driver has read some."""
_box: BlackBox | None = None
_box_lock = threading.Lock()


def plugin_name(run: str) -> str:
    """The name under which a run's job is registered."""
    return f"admf-dask-{run}"


class Job(WorkerPlugin):  # type: ignore[misc]
    """A run on one worker. Unpacked by the first chunk; its threads share it."""

    idempotent = True

    def __init__(
        self, run: str, packed: bytes, black_boxes: str | None, needed: tuple[SharedData, ...] = (), posts: bool = False
    ) -> None:
        """`black_boxes` is the folder for them, where driver and worker share a machine; `needed` is what must be there; `posts`
        says that somebody listens for posted answers.
        """
        self.run, self.packed, self.black_boxes, self.needed, self.posts = run, packed, black_boxes, needed, posts
        self.name = plugin_name(run)

    def __getstate__(self) -> tuple[Any, ...]:
        """What travels."""
        return self.run, self.packed, self.black_boxes, self.needed, self.posts

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """On arrival."""
        Job.__init__(self, *state)

    def setup(self, worker: Worker) -> None:
        """Called on the worker's event loop: take note, do nothing slow."""
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._alarm: Alarm | None = None
        self._evaluator: MapEvaluator | None = evaluators_here.get(self.run)
        self._worker = worker
        self._own_process = worker.nanny is not None
        self._threads = worker.state.nthreads
        tell_from_now_on(worker)

    def teardown(self, worker: Worker) -> None:
        """The run is over: stop what is under way."""
        self.cancelled.set()
        stop_what_runs(self.run)

    def evaluator(self) -> MapEvaluator:
        """The evaluator; unpacked once. Raises CallError if this worker cannot unpack it."""
        with self._lock:
            if self._evaluator is None:
                try:
                    self._evaluator = value_of(pickle.loads(self.packed))
                except BaseException as error:
                    raise CallError(
                        f"a worker cannot load the function or its data: {type(error).__name__}: {error}. The workers need "
                        "the same packages and modules as this process"
                    ) from error
                if self._own_process:
                    limit_inner_threads(self._threads)
            return self._evaluator

    def lacking(self) -> bytes | None:
        """What this machine does not have of the shared data, as an answer; None if all is there."""
        if self._evaluator is not None:
            return None
        missing = [handle for handle in self.needed if not is_here(handle.path, handle.size)]
        if not missing:
            return None
        return LACKS + pickle.dumps((self._worker.address, place_here(), missing))

    def watch(self, number: int) -> Watch:
        """The watch of this thread over a chunk, with an alarm where items have a timeout."""
        if not self._own_process:
            limit_this_thread()
        slot = _black_box(self.black_boxes).slot(self.run) if self.black_boxes else None
        watch = Watch(self.cancelled, slot, number)
        timeout = self.evaluator().policy.timeout
        if timeout is not None:
            with self._lock:
                if self._alarm is None:
                    # Where driver and worker share a machine the driver ends the process, and knows why.
                    alone = self._own_process and self.black_boxes is None
                    last_words = self._tell_overdue if alone else None
                    self._alarm = Alarm(timeout, self.cancelled, last_words=last_words, helpless=not self._own_process)
            watch.alarm = self._alarm
            self._alarm.watch_this_thread(watch.cells, watch.at)
        return watch

    def evaluate(self, start: int, stop: int, budget: float, watch: Watch) -> bytes:
        """Evaluate what fits of `[start, stop)` into `budget` seconds; where answers are posted all, if it fits into `PARTS` of
        them.

        Each part but the last is posted as it is finished, so that nobody waits to see it, and the worker not for a new chunk.
        """
        evaluator, left = self.evaluator(), PARTS * budget
        while True:
            block = evaluator(start, stop, budget, watch)
            stop = watch.end(stop)
            needs = (stop - block.stop) * block.busy / max(1, block.stop - start)
            packed, start, left = pack_reply(block), block.stop, left - budget
            ends = start >= stop or (block.failed and evaluator.policy.on_error == "raise")
            if ends or needs > left or not self.posts or len(packed) > LARGEST_PART:
                return self.answer(watch.number, packed)
            self._post(watch.number, packed, start)

    def answer(self, number: int, packed: bytes) -> bytes:
        """What the task returns: the answer, or that it is posted.

        A result has to be asked for, by the client of the scheduler and by that of the worker: five messages. Posted it comes
        with the one that tells of the task's end.
        """
        if not self.posts or len(packed) > LARGEST_POSTED:
            return packed
        self._post(number, packed)
        return POSTED

    def _post(self, number: int, packed: bytes, goes_on_at: int | None = None) -> None:
        words = {"op": POST, "run": self.run, "number": number, "packed": packed, "goes_on_at": goes_on_at}
        self._worker.loop.add_callback(self._worker.batched_send, words)

    def _tell_overdue(self, start: int, count: int) -> None:
        words = {"worker": self._worker.address, "start": start, "stop": start + count}
        self._worker.loop.add_callback(self._worker.log_event, plugin_name(self.run), words)


class Watch:
    """Tells the black box what is executing, and the evaluator when to stop."""

    def __init__(self, cancelled: threading.Event, slot: Slot | None, number: int = -1) -> None:
        """Over chunk `number`. Without a `slot` nothing outlives the process, but the alarm can read the cells."""
        self.cancelled, self.slot, self.number = cancelled, slot, number
        self.alarm: Alarm | None = None
        self.cells: Cells = cells_of_nobody() if slot is None else slot.cells
        self.at = 0 if slot is None else slot.at

    def end(self, stop: int) -> int:
        """Before which item the chunk ends: `stop`, or where the driver has cut it; 0 if the run was taken away."""
        if self.cancelled.is_set():
            return 0
        cells, at = self.cells, self.at
        return min(stop, cells[at + END]) if cells[at + TAKEN] == self.number else stop

    def claim(self, until: int) -> int:
        """Say that items before `until` will be begun without another look; returns how far that is still right."""
        self.cells[self.at + UNTIL] = until
        return self.end(until)

    def note(self, start: int, count: int) -> tuple[Cells, int]:
        """Executing `count` items from `start` on."""
        if self.slot is not None:
            self.slot.note(start, count)
        else:
            self.cells[0], self.cells[1] = start, count
        return self.cells, self.at

    def cells_of_single_items(self) -> tuple[Cells, int]:
        """Where the index of each single item goes."""
        if self.slot is not None and self.cells[self.at + 1] != 1:
            self.slot.note(-1, 1)
        return self.cells, self.at

    def done(self) -> None:
        """Executing nothing."""
        self.cells[self.at + BEGAN] = 0
        if self.slot is not None:
            self.slot.clear()
        if self.alarm is not None:
            self.alarm.leave_this_thread()


def evaluate_chunk(run: str, start: int, stop: int, budget: float, number: int) -> bytes:
    """The task: evaluate what `Job.evaluate` says of `[start, stop)`. Never raises, whatever an item does."""
    job: Job | None = get_worker().plugins.get(plugin_name(run))
    if job is None:
        return NO_JOB
    if (lacking := job.lacking()) is not None:
        return lacking
    watch: Watch | None = None
    try:
        watch = job.watch(number)
        watched(run, watch)
        return job.evaluate(start, stop, budget, watch)
    except CallError as error:
        return pack_reply(error)
    except BaseException as error:  # noqa: BLE001 - Dask must never carry an exception; the driver raises this one
        return pack_reply(_our_bug(error))
    finally:
        if watch is not None:
            watch.done()
            forgotten(run)


def pack_reply(reply: Block | CallError) -> bytes:
    """A block, or the reason why there cannot be one."""
    if isinstance(reply, Block):
        return b"B" + reply.pack()
    trace = Failure.from_exception(reply.__cause__ or reply).traceback
    return b"E" + pickle.dumps((str(reply), trace))


def unpack_lacking(packed: bytes) -> tuple[str, str, list[SharedData]]:
    """Address of the worker, its place, and what it lacks."""
    found: tuple[str, str, list[SharedData]] = pickle.loads(packed[len(LACKS) :])
    return found


def unpack_reply(packed: bytes) -> Block:
    """The block; raises CallError if the call itself is wrong."""
    if packed[:1] == b"B":
        return Block.unpack(packed[1:])
    message, trace = pickle.loads(packed[1:])
    error = CallError(message)
    error.add_note(f"On the worker:\n{trace}")
    raise error


def _our_bug(error: BaseException) -> CallError:
    wrapped = CallError(f"a chunk could not be evaluated or packed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _black_box(folder: str) -> BlackBox:
    global _box
    with _box_lock:
        if _box is None:
            _box = BlackBox(folder)
        return _box
