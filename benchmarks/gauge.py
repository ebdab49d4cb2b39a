"""The ideal, measured: the same calls in `slots` processes at once, and nothing else.

A second core is not always a whole one (shared caches, frequency, a neighbour on the machine), so pure work measured in
one process would set a goal that no tool can reach. The gauge keeps as many processes busy as the contenders do.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from loads import Items, Load


class Gauge:
    """`slots` processes that wait for a load. A context manager; not for use from several threads."""

    def __init__(self, slots: int, window: float) -> None:
        """`window`: about how many seconds one measurement may take."""
        self.slots = slots
        self.window = window
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Self:
        """Start the processes."""
        context = multiprocessing.get_context("spawn")
        for _ in range(self.slots):
            here, there = context.Pipe()
            process = context.Process(target=_measure, args=(there,), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def seconds(self, load: Load) -> float:
        """Pure work of the whole load divided by the slots: the time no tool can beat, as of now."""
        share = min(1.0, self.window / load.seconds)
        for pipe in self._pipes:
            pipe.send((load.fresh(), share))
        for pipe in self._pipes:
            pipe.recv()
        for pipe in self._pipes:
            pipe.send("go")
        return statistics.mean([pipe.recv() for pipe in self._pipes]) / self.slots


def _measure(pipe: Connection) -> None:
    """Each process does the same sample of the load, and answers with the seconds that the whole load would take it."""
    samples: dict[tuple[Load, float], Items] = {}
    try:
        while True:
            load, share = pipe.recv()
            items = samples.setdefault((load, share), load.sample(share))
            pipe.send("ready")
            pipe.recv()
            began = time.perf_counter()
            for item in items:
                load.function(item)
            spent = time.perf_counter() - began
            pipe.send(spent * load.weight / sum(item["loops"] for item in items))
    except (EOFError, KeyboardInterrupt):
        return
