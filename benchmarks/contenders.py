"""The contenders: each opens what it needs, and yields a function that runs a load.

Pools and clusters are open beforehand. Everybody begins with the same: the axes of a grid, or a list of items. Who needs a list
unfolds the grid inside the timed call, as ours does on its workers; what `Pool.map` takes where its list is there already is a
row of its own. Imports happen on opening: a contender pays for its own library only.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import work
from loads import Grid, Load

Values = Sequence[float]
BATCHES_PER_SLOT = 8
"""8 to 32 tasks were the best for the hand-batched contenders."""


@dataclass(frozen=True)
class Answer:
    """What a run gave: the best score, as every optimisation wants it, and how to get at all values (not timed)."""

    best: float
    values: Callable[[], Values]


Run = Callable[[Load], Answer]
Opening = Callable[[int], contextlib.AbstractContextManager[Run]]


def from_list(values: list[float]) -> Answer:
    """The answer of a contender that returns one float for each item, in order."""
    return Answer(max(values), lambda: values)


@contextlib.contextmanager
def pool(slots: int, *, chunk: int | None = None, at_hand: bool = False) -> Iterator[Run]:
    """`multiprocessing.Pool.map`, with its default start method; `at_hand`: over a list of items made beforehand."""
    import multiprocessing

    def run(load: Load) -> Answer:
        return from_list(opened.map(load.function, load.items if at_hand else load.unfold(), chunksize=chunk))

    with multiprocessing.Pool(slots) as opened:
        yield run
        opened.close()
        opened.join()


@contextlib.contextmanager
def joblib_loky(slots: int) -> Iterator[Run]:
    """joblib with its default backend and automatic batches, the workers kept between calls."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=slots) as parallel:
        yield lambda load: from_list(parallel(delayed(load.function)(item) for item in load.unfold()))
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@contextlib.contextmanager
def stock_client(slots: int) -> Iterator[Any]:
    """A stock cluster at its best: processes of one thread, no dashboard, no TLS."""
    from distributed import Client, LocalCluster

    any_port = {"dashboard_address": "127.0.0.1:0"}  # without it, a server on 8787 and a warning where that is taken
    with (
        LocalCluster(
            n_workers=slots, threads_per_worker=1, dashboard_address=None, scheduler_kwargs=any_port
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def bag(slots: int, *, partitions_per_slot: int | None = None) -> Iterator[Run]:
    """`dask.bag.from_sequence(items).map(f).compute()` on a cluster."""
    import dask.bag

    count = None if partitions_per_slot is None else slots * partitions_per_slot

    def run(load: Load) -> Answer:
        return from_list(dask.bag.from_sequence(load.unfold(), npartitions=count).map(load.function).compute())

    with stock_client(slots):
        yield run


@contextlib.contextmanager
def client_map(slots: int) -> Iterator[Run]:
    """`client.map` over the items: one future for each."""
    with stock_client(slots) as client:
        yield lambda load: from_list(client.gather(client.map(load.function, load.unfold(), pure=False)))


@contextlib.contextmanager
def client_map_lists(slots: int) -> Iterator[Run]:
    """`client.map` over lists of items, batched by hand."""

    def run(load: Load) -> Answer:
        items = load.unfold()
        batches = [items[start:stop] for start, stop in ranges(len(items), slots)]
        lists = client.gather(client.map(partial(work.evaluate_list, load.function), batches, pure=False))
        return from_list([value for each in lists for value in each])

    with stock_client(slots) as client:
        yield run


@contextlib.contextmanager
def client_map_ranges(slots: int) -> Iterator[Run]:
    """`client.map` over index ranges with packed results: what can be had from Dask by hand, for this one grid."""

    def run(load: Load) -> Answer:
        if not isinstance(load, Grid):
            raise TypeError("index ranges by hand are written for a grid")
        starts, stops = zip(*ranges(load.fast * load.slow, slots))
        task = partial(work.evaluate_range, load.function, (load.fast, load.slow, load.loops))
        values = array("d", b"".join(client.gather(client.map(task, starts, stops, pure=False))))
        return Answer(max(values), lambda: values)

    with stock_client(slots) as client:
        yield run


@contextlib.contextmanager
def ray_open(slots: int) -> Iterator[None]:
    """Ray on this machine, without dashboard and without word to its makers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=slots, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


@contextlib.contextmanager
def ray_lists(slots: int) -> Iterator[Run]:
    """Ray tasks over lists of items, batched by hand."""
    import ray

    def run(load: Load) -> Answer:
        items = load.unfold()
        batches = [items[start:stop] for start, stop in ranges(len(items), slots)]
        lists = ray.get([task.remote(load.function, batch) for batch in batches])
        return from_list([value for each in lists for value in each])

    with ray_open(slots):
        task = ray.remote(work.evaluate_list)
        yield run


def ranges(count: int, slots: int) -> list[tuple[int, int]]:
    """`count` items in equal batches, several for each slot."""
    size = max(1, -(-count // (slots * BATCHES_PER_SLOT)))
    return [(start, min(count, start + size)) for start in range(0, count, size)]


@contextlib.contextmanager
def ours(slots: int, *, mode: str = "process", enabled: bool = True, constraints: Sequence[str] = ()) -> Iterator[Run]:
    """`ParallelOptimizer` in a session with its defaults (dashboard and certificate included)."""
    from admf_dask import ParallelConfig, ParallelOptimizer, ParameterSpace, Session

    def run(load: Load) -> Answer:
        space = ParameterSpace(load.axes) if isinstance(load, Grid) else load.items
        result = ParallelOptimizer(session=session).optimize(space, load.function, constraints, progress=False)
        return Answer(result.best_score, lambda: result.frame.sort_index()["score"].tolist())

    with Session(ParallelConfig(enabled=enabled, mode=mode, max_workers=slots)) as session:
        yield run


@contextlib.contextmanager
def ours_map(slots: int) -> Iterator[Run]:
    """`Session.map` over the items, in a session with its defaults."""
    from admf_dask import Session

    with Session(mode="process", workers=slots) as session:
        yield lambda load: from_list(session.map(load.function, load.unfold(), progress=False).values())


OURS = "admf_dask process"
AT_HAND = "Pool.map, list at hand"
CONTENDERS: dict[str, Opening] = {
    OURS: ours,
    "admf_dask hybrid": partial(ours, mode="hybrid"),
    "admf_dask thread": partial(ours, mode="thread"),
    "admf_dask enabled: false": partial(ours, enabled=False),
    "admf_dask with a constraint": partial(ours, constraints=("fast >= 0",)),
    "admf_dask Session.map": ours_map,
    "Pool.map": pool,
    AT_HAND: partial(pool, at_hand=True),
    "Pool.map chunksize=1": partial(pool, chunk=1),
    "joblib": joblib_loky,
    "dask.bag": bag,
    "dask.bag tuned": partial(bag, partitions_per_slot=4),
    "client.map": client_map,
    "client.map lists": client_map_lists,
    "client.map ranges": client_map_ranges,
    "ray lists": ray_lists,
}
