"""Tools of one machine: an isolated process for a call, a pool of threads, a queue of tasks, a dictionary for threads."""

from __future__ import annotations

from admf_dask.local.dictionary import ThreadSafeDict
from admf_dask.local.isolated import run_isolated_process
from admf_dask.local.pool import ThreadPool
from admf_dask.local.tasks import TaskQueue

__all__ = ["TaskQueue", "ThreadPool", "ThreadSafeDict", "run_isolated_process"]
