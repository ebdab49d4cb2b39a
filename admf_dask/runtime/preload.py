"""Run by each worker process of our own clusters before it takes work (Dask's `preload`)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from admf_dask.runtime.accounts import count_private_memory

_PR_SET_PDEATHSIG = 1
_SWITCH_SECONDS = 0.001
"""A worker's event loop waits so long for the interpreter when an item holds it: at Python's own 5 ms each result and each next
chunk came that much later."""


def dask_setup(worker: object) -> None:
    """Count private memory; end with the driver, also when it was killed with -9 or a C call holds this interpreter."""
    count_private_memory(worker)
    sys.setswitchinterval(_SWITCH_SECONDS)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
