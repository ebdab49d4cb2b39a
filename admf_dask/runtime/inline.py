"""`InlineExecutor`: chunks run in the calling thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from admf_dask.runtime.alarm import Alarm
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.job import Watch
from admf_dask.runtime.replies import Range, Reply


class InlineExecutor:
    """One slot: this thread. The same chunks, evaluators and blocks as on a cluster, for a debugger or inside a task."""

    slots = 1
    in_flight_limit = 1
    can_cut = False

    def __init__(self) -> None:
        """Nothing is started."""
        self._chunks: deque[tuple[Range, float]] = deque()
        self.cancelled = threading.Event()
        self._watch = Watch(self.cancelled, None)

    def start(self, run: str, kind: str, evaluator: MapEvaluator) -> None:
        """Keep the evaluator; nothing is pickled. With a timeout an alarm watches this thread."""
        self._evaluator = evaluator
        if evaluator.policy.timeout is not None:
            alarm = Alarm(evaluator.policy.timeout, self.cancelled, helpless=True)
            alarm.watch_this_thread(self._watch.cells, self._watch.at)

    def submit(self, chunks: Sequence[Range], budget: float, *, alone: bool = False) -> None:
        """Put the chunks by, each for one `wait`."""
        self._chunks.extend((chunk, budget) for chunk in chunks)

    def even_out(self, idle: int, seconds_per_item: float | None) -> None:
        """The one slot is never idle beside a chunk."""

    def wait(self) -> list[Reply]:
        """Evaluate the next chunk."""
        chunk, budget = self._chunks.popleft()
        try:
            return [Reply(chunk, block=self._evaluator(*chunk, budget, self._watch))]
        finally:
            self._watch.done()

    def stop(self) -> None:
        """Forget what was put by."""
        self.cancelled.set()
        self._chunks.clear()
