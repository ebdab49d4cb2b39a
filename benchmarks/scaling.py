"""How a run scales to 1,000 workers and a billion items: what a chunk costs is measured here, the rest is simulated.

    python benchmarks/scaling.py            about ten minutes
    python benchmarks/scaling.py --quick    about a minute: fewer chunks to measure, fewer sizes to model

Measured, with a real `Session` of worker processes, with and without TLS: the CPU time that driver and scheduler (one process
here) spend on a chunk and on a row that comes back, the CPU time a worker spends on a chunk beyond its items, the bytes of a
reply, and the round trip of a chunk when nothing else is under way.

Modelled, in `simulate`: driver and scheduler serve one chunk after another, at the measured cost; workers take no CPU from
them; a chunk goes to the worker with the fewest; every item takes the same time. Sizes, budgets and put-back ranges come from
the very code that decides them in a run, `admf_dask.runtime.chunks`. A run of more chunks than can be played event by event is
played at two smaller sizes, and what lies between their ends is repeated: its pace does not change.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest import mock

import common
import psutil

from admf_dask.runtime.chunks import ChunkSizer, Pending

GOAL = 0.95
WORKERS = (1, 2, 8, 64, 250, 1_000)
ITEMS = tuple(10**power for power in range(4, 10))
SECONDS = (10e-6, 1e-3, 20e-3, 1.0)
KEEP = 100
"""Rows that a chunk may bring back: the best hundred."""


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU and bytes, measured."""

    chunk: float
    """Driver and scheduler, a chunk."""
    row: float
    """Driver, a row that came back."""
    worker: float
    """A worker, a chunk, beyond its items."""
    trip: float
    """Wall time of a chunk when nothing else is under way, beyond its items."""
    bytes_chunk: float
    bytes_row: float

    def reply(self, size: int) -> float:
        """Seconds of driver and scheduler for a chunk of `size` items."""
        return self.chunk + self.row * min(size, KEEP)


# -- measured ----------------------------------------------------------------------------------------------------------


def nothing(params: dict[str, int]) -> float:
    """An item that takes no time."""
    return float(params["x"])


def measure(slots: int, security: str, chunks: int) -> Costs:
    """The costs with `slots` worker processes, from runs of `chunks` chunks of 1 and of `KEEP` items."""
    from admf_dask import ParallelOptimizer, Session

    with Session(mode="process", workers=slots, dashboard=None, security=security) as session:
        optimizer = ParallelOptimizer(session=session)

        def run(count: int, size: int, in_flight: int | None = None) -> Seen:
            with sized(size, in_flight), Meter(session) as meter:
                found = optimizer.optimize({"x": range(count * size)}, nothing, keep=KEEP, progress=False)
            assert found.best_params == {"x": count * size - 1}
            return meter.seen

        run(chunks // 4, 1)
        start, many, wide = run(1, 1), run(chunks, 1), run(chunks, KEEP)
        single = run(max(20, chunks // 10), 1, in_flight=1)
        bare = item_seconds()
    first = (many.driver - start.driver) / (chunks - 1)
    bytes_row = (wide.bytes - many.bytes) / chunks / (KEEP - 1)
    return Costs(
        chunk=first,
        row=max(0.0, (wide.driver - many.driver) / chunks / (KEEP - 1)),
        worker=max(0.0, (many.workers - start.workers) / (chunks - 1) - bare),
        trip=(single.wall - start.wall) / (max(20, chunks // 10) - 1) - bare,
        bytes_chunk=many.bytes / chunks - bytes_row,
        bytes_row=bytes_row,
    )


def item_seconds() -> float:
    """What `nothing` itself takes."""
    began = time.perf_counter()
    for number in range(20_000):
        nothing({"x": number})
    return (time.perf_counter() - began) / 20_000


@contextmanager
def sized(size: int, in_flight: int | None) -> Iterator[None]:
    """Chunks of just `size` items; with `in_flight`, no more of them under way."""
    from admf_dask.runtime import executors, supply

    class Fixed(ChunkSizer):
        def size(self, remaining: int, in_flight: int = 0) -> int:
            return min(size, remaining)

    with mock.patch.object(supply, "ChunkSizer", Fixed):
        if in_flight is None:
            yield
        else:
            with mock.patch.object(executors.ClusterExecutor, "in_flight_limit", in_flight):
                yield


@dataclass(frozen=True)
class Seen:
    """What one run took."""

    driver: float
    workers: float
    wall: float
    bytes: int


class Meter:
    """CPU of this process and of the worker processes, wall time and bytes of the replies, within a `with` block."""

    def __init__(self, session: Any) -> None:
        frame = session.memory()
        self._workers = [
            psutil.Process(int(pid)) for name, pid in frame["pid"].items() if str(name).startswith("worker")
        ]
        self._bytes = 0

    def _now(self) -> tuple[float, float, float]:
        times = [process.cpu_times() for process in self._workers]
        return time.process_time(), sum(one.user + one.system for one in times), time.perf_counter()

    def __enter__(self) -> Meter:
        from admf_dask.runtime import executors

        unpack = executors.unpack_reply

        def counted(packed: bytes) -> Any:
            self._bytes += len(packed)
            return unpack(packed)

        self._patch = mock.patch.object(executors, "unpack_reply", counted)
        self._patch.start()
        self._before = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        driver, workers, wall = (after - before for after, before in zip(self._now(), self._before, strict=True))
        self._patch.stop()
        self.seen = Seen(driver, workers, wall, self._bytes)


# -- modelled ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """A simulated run."""

    seconds: float
    chunks: float
    longest: int
    """Items of its largest chunk."""


def simulate(items: int, seconds: float, slots: int, costs: Costs) -> Played:
    """Play a run event by event: one server for driver and scheduler, `slots` workers with at most two chunks each."""
    pending, sizer = Pending.of(items), ChunkSizer(slots)
    free = [0.0] * slots  # when each worker will have done what it was given
    order = [(0.0, worker) for worker in range(slots)]
    replies: list[tuple[float, int, tuple[int, int], int]] = []
    clock, in_flight, chunks, longest, wire = 0.0, 0, 0, 0, costs.trip / 2
    while pending.count or in_flight:
        while pending.count and in_flight < 2 * slots:
            start, stop = pending.take(sizer.size(pending.count))
            fits = int(sizer.budget / seconds) + 1
            reached = min(stop, start + fits)
            clock += costs.chunk / 2
            _, worker = heapq.heappop(order)
            free[worker] = max(free[worker], clock + wire) + (reached - start) * seconds + costs.worker
            heapq.heappush(order, (free[worker], worker))
            heapq.heappush(replies, (free[worker] + wire, chunks, (start, stop), reached))
            chunks, in_flight, longest = chunks + 1, in_flight + 1, max(longest, reached - start)
        arrived, _, (start, stop), reached = heapq.heappop(replies)
        clock = max(clock, arrived) + costs.reply(reached - start) - costs.chunk / 2
        in_flight -= 1
        sizer.record(reached - start, (reached - start) * seconds)
        pending.put_back(reached, stop)
    return Played(clock, chunks, longest)


def play(items: int, seconds: float, slots: int, costs: Costs) -> Played:
    """As `simulate`; of a long run the middle is repeated instead of played."""
    most = 12 * slots + 1_000  # chunks, so that the pace has settled
    target = ChunkSizer(slots).target
    short = max(slots, round(most * max(1.0, target / seconds)))
    if items <= 3 * short:
        return simulate(items, seconds, slots, costs)
    one, two = simulate(short, seconds, slots, costs), simulate(2 * short, seconds, slots, costs)
    times = (items - 2 * short) / short
    return Played(
        two.seconds + times * (two.seconds - one.seconds), two.chunks + times * (two.chunks - one.chunks), two.longest
    )


def best_possible(items: int, seconds: float, slots: int, costs: Costs) -> float:
    """Efficiency that no sizes of chunks could exceed in this model: the best of many even cuts, a chunk or more each."""
    ideal = items * seconds / slots
    share = -(-items // slots)  # the busiest worker has this many items
    most = 0.0
    for each in (1, 2, 3, 5, 8, 12, 20, 40, 80, 200, 1_000, 10_000, 100_000):
        if each > share:
            break
        chunks = min(items, slots * each)
        serving = chunks * costs.reply(items // chunks)
        working = share * seconds + each * costs.worker
        ramp = min(slots, items) * costs.chunk / 2
        most = max(most, ideal / (costs.trip + max(serving, working + ramp / (1 if each == 1 else 2))))
    return min(1.0, most)


# -- told --------------------------------------------------------------------------------------------------------------


def cost_rows(measured: dict[str, Costs]) -> list[list[str]]:
    """A row for each way the costs were measured."""
    return [
        [
            name, common.micro(cost.chunk), common.micro(cost.row), common.micro(cost.worker), common.micro(cost.trip),
            f"{cost.bytes_chunk:,.0f} + {cost.bytes_row:,.1f} a row", f"{1 / cost.reply(KEEP):,.0f}",
        ]
        for name, cost in measured.items()
    ]  # fmt: skip


COST_COLUMNS = (
    "session", "driver and scheduler, a chunk", "a row", "worker, a chunk", "round trip", "bytes of a reply",
    f"chunks a second, {KEEP} rows each",
)  # fmt: skip


def model(costs: Costs, workers: tuple[int, ...], items: tuple[int, ...]) -> list[dict[str, Any]]:
    """A record for each duration, number of workers and number of items."""
    records = []
    for seconds in SECONDS:
        for slots in workers:
            for count in items:
                played = play(count, seconds, slots, costs)
                records.append(
                    {
                        "item_seconds": seconds, "workers": slots, "items": count, "seconds": played.seconds,
                        "efficiency": count * seconds / slots / played.seconds, "chunks": played.chunks,
                        "largest_chunk": played.longest, "best_possible": best_possible(count, seconds, slots, costs),
                    }
                )  # fmt: skip
    return records


def print_model(records: list[dict[str, Any]], markdown: bool) -> None:
    """A table for each duration of an item: workers down, items across; time and efficiency."""
    for seconds in SECONDS:
        mine = [record for record in records if record["item_seconds"] == seconds]
        counts = sorted({record["items"] for record in mine})
        rows = [
            [f"{slots:,}", *(cell(record) for record in mine if record["workers"] == slots)]
            for slots in sorted({record["workers"] for record in mine})
        ]
        columns = ["workers", *(f"{count:.0e} items".replace("e+0", "e") for count in counts)]
        common.print_table(f"items of {common.micro(seconds)} (modelled)", columns, rows, markdown=markdown)


def cell(record: dict[str, Any]) -> str:
    """Time and efficiency; in brackets what no sizes could exceed, where that is below the goal."""
    bound = "" if record["best_possible"] >= GOAL else f" (at most {record['best_possible']:.3f})"
    return f"{duration(record['seconds'])}, {record['efficiency']:.3f}{bound}"


def duration(seconds: float) -> str:
    """Seconds, hours or days in four characters or so."""
    if seconds < 100:
        return common.seconds(seconds)
    for unit, name in ((60, "min"), (3_600, "h"), (86_400, "d")):
        if seconds < 100 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86_400:,.0f} d"


def verdict(records: list[dict[str, Any]]) -> list[str]:
    """How often the rule reaches the goal where it could be reached, and the rule."""
    possible = [record for record in records if record["best_possible"] >= GOAL]
    missed = [record for record in possible if record["efficiency"] < GOAL]
    rule = " ".join(f"{slots:,} slots: {ChunkSizer(slots).target:g} s;" for slots in WORKERS).rstrip(";")
    lines = [
        f"the rule: about {ChunkSizer(1).target:g} s of work in a chunk, more on many slots ({rule}), less near the end",
        f"{GOAL:.0%} of ideal can be reached in {len(possible)} of {len(records)} cases, and the rule reaches it in "
        f"{len(possible) - len(missed)}",
    ]
    lines += [
        f"MISSED: {record['workers']:,} workers, {record['items']:,} items of {common.micro(record['item_seconds'])}: "
        f"{record['efficiency']:.3f}, {record['best_possible']:.3f} possible"
        for record in missed
    ]
    return lines


def main() -> int:
    """Measure, model, print, write."""
    given: argparse.Namespace = common.options("Scaling: measured costs, modelled runs.", rounds=3, quick_rounds=1)
    facts = common.describe_machine()
    common.print_machine(facts)
    chunks = common.of_form(given, 1_000, 400, 200)
    measured: dict[str, Costs] = {}
    kinds = [(given.slots, "auto"), (given.slots, "none")]
    kinds += [] if given.quick else [(8, "auto"), (16, "auto")]
    for slots, security in kinds:
        name = f"{slots} workers, {'TLS' if security == 'auto' else 'no TLS'}"
        common.say(f"measuring: {name}")
        measured[name] = median([measure(slots, security, chunks) for _ in range(given.rounds)])
    common.print_table("what a chunk costs (measured)", COST_COLUMNS, cost_rows(measured), markdown=given.markdown)
    dearest = max(measured.values(), key=lambda cost: cost.chunk)
    common.say("modelling")
    workers, items = (WORKERS, ITEMS) if not given.quick else ((1, 8, 1_000), (10**4, 10**6, 10**9))
    records = model(dearest, workers, items)
    print_model(records, given.markdown)
    print("\nCells: time, efficiency. Modelled with the dearest of the costs above.")
    for line in verdict(records):
        print(line)
    twice = model(replace(dearest, chunk=2 * dearest.chunk, row=2 * dearest.row), workers, items)
    print("With a scheduler twice as dear: " + verdict(twice)[1])
    figures = {"machine": facts, "measured": {name: asdict(cost) for name, cost in measured.items()}}
    common.write_json(given.json, {**figures, "modelled": records})
    return 0


def median(costs: list[Costs]) -> Costs:
    """Each figure's median."""
    return Costs(
        *(statistics.median(values) for values in zip(*(asdict(cost).values() for cost in costs), strict=True))
    )


if __name__ == "__main__":
    sys.exit(main())
