"""`compiled`: functions in machine code that is kept on disk, and read from there without what only compiling needs.

Before it looks into its cache, numba loads all that it can compile: 250 modules, 25 MB and a third of a second for each worker
process. Code that is ready needs none of it, as long as it neither makes arrays nor calls what numba has written in Python (its
`min` of an array, say): then the cache names only modules of ours. So the functions here work on arrays that they are given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
from numba.core.runtime import _nrt_python as _nrt


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, without the interpreter's lock, or take what an earlier process has compiled."""
    ready = numba.njit(nogil=True, cache=True)(function)
    cache = ready._cache
    # In a numba that has no such method the cache loads as it always does.
    if not hasattr(cache, "_load_overload"):
        return ready

    def load(signature: Any, context: Any) -> Any:
        _name_what_the_code_calls()
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(signature, context)

    cache.load_overload = load
    return ready


@functools.cache
def _name_what_the_code_calls() -> None:
    """What counts references to arrays, by the names that it has in the code; `rtsys.initialize` would compile more of it."""
    for name, address in _nrt.c_helpers.items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def inlined(function: Callable[..., Any]) -> Any:
    """For calls from compiled functions only; becomes part of them."""
    return numba.njit(inline="always", cache=True)(function)
