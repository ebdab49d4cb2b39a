"""The environment of worker processes, where it is to differ from this one's. Light: read before anything is imported."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from admf_dask.runtime.threads import inner_thread_variables

_AT_START = {
    "PYTHONHASHSEED": "6640",
    # Memory that is let go goes back to the system at once, so that a process costs what it holds and not what it ever held:
    # blocks of 1 MiB and more each, smaller ones when 4 MiB of them are free at the end of the heap. Below those sizes it costs
    # more time than it is worth: at Dask's 64 KiB (and the 128 KiB that follow from it) a tenth more for frames.
    "MALLOC_MMAP_THRESHOLD_": str(2**20),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**20),
}
_ARROW = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""So does Arrow's: its own allocator keeps a third of what a large frame took while it was read."""
_lent: dict[str, str | None] = {}
_lenders = 0
_lending = threading.Lock()


def of_processes() -> dict[str, str]:
    """Variables and their values; what is said of Arrow stays as it is."""
    return {
        **{name: os.environ.get(name, value) for name, value in _ARROW.items()},
        **_AT_START,
        **inner_thread_variables(),
    }


@contextmanager
def lent_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the children started meanwhile, and restore what was there when the last borrower is done."""
    global _lenders
    with _lending:
        _lenders += 1
        for name, value in variables.items():
            _lent.setdefault(name, os.environ.get(name))
            os.environ[name] = value
    try:
        yield
    finally:
        with _lending:
            _lenders -= 1
            if not _lenders:
                for name, before in _lent.items():
                    if before is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = before
                _lent.clear()
