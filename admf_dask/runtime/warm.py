"""Loaded once into the server that worker processes are forked from: what they would import before their first item.

What each of them would do as it starts, and keep in its memory, is done here as well: what nobody writes to is there once.
"""

from __future__ import annotations

import gc
import multiprocessing.popen_forkserver
import multiprocessing.synchronize  # noqa: F401
import ssl

import distributed.nanny  # brings the worker along
import distributed.versions
import threadpoolctl  # noqa: F401
import tornado.platform.asyncio  # noqa: F401

import admf_dask.runtime.job
import admf_dask.runtime.preload
import admf_dask.runtime.score  # noqa: F401

# A worker tells its versions when it joins: 8 ms and a process for the name of the CPU, from the caches of a parent nothing.
distributed.versions.get_versions()
# What OpenSSL makes of itself when it is first asked for a context.
ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# What is here stays where it is: the collector of a forked process would write to each object, and so copy it.
gc.collect()
gc.freeze()
