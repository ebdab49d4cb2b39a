"""Loaded once into the server that worker processes are forked from: what they would import before their first item."""

from __future__ import annotations

import gc

import distributed.nanny  # noqa: F401 - brings the worker along; to be loaded is all that is asked of these

import admf_dask.runtime.job
import admf_dask.runtime.preload
import admf_dask.runtime.score  # noqa: F401

# What is here stays where it is: the collector of a forked process would write to each object, and so copy it.
gc.collect()
gc.freeze()
