"""Keep the thread pools inside libraries to the slots: a BLAS call on each of 8 workers must not start 64 threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "TBB_NUM_THREADS",
)
"""Read by libraries when they are loaded (Arrow reads the first); set for every worker process before it starts."""


_LIBRARIES = {"numpy", "scipy", "sklearn", "torch", "pyarrow", "numba", "numexpr"}
_limited: set[str] = set()
_own = threading.local()


def inner_thread_variables() -> dict[str, str]:
    """One inner thread for each slot, as environment variables of a worker process."""
    return dict.fromkeys(VARIABLES, "1")


def limit_inner_threads(slots: int) -> None:
    """In a worker process: the same for libraries that were loaded before (an imported main module) or ignore the variables.

    Of `slots` threads each gets one inner thread. Called with each job, since a job may load libraries; those that the
    last call has seen cost nothing.
    """
    libraries = _LIBRARIES & sys.modules.keys()
    if libraries <= _limited:
        return
    _limited.update(libraries)
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1)
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.set_cpu_count(slots)
    if (numba := sys.modules.get("numba")) is not None and numba.get_num_threads() > 1:
        numba.set_num_threads(1)
    if (numexpr := sys.modules.get("numexpr")) is not None:
        numexpr.set_num_threads(1)


def limit_this_thread() -> None:
    """In a thread of this process that evaluates: OpenMP counts its threads for each thread that calls it."""
    libraries = _LIBRARIES & sys.modules.keys()
    if libraries <= getattr(_own, "seen", set()):
        return
    _own.seen = libraries
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="openmp")


@contextmanager
def inner_threads_bounded() -> Iterator[None]:
    """In this process, for as long as its threads are the workers: BLAS and OpenMP pools of one thread, restored after.

    What cannot be bounded after it was loaded (polars) keeps its own pool.
    """
    from threadpoolctl import threadpool_limits

    arrow = sys.modules.get("pyarrow")
    arrow_threads = arrow.cpu_count() if arrow is not None else None
    with threadpool_limits(limits=1):
        if arrow is not None:
            arrow.set_cpu_count(1)
        try:
            yield
        finally:
            if arrow is not None:
                arrow.set_cpu_count(arrow_threads)
