"""`compiled`: functions in machine code that is kept on disk, and read from there without what only compiling needs.

Before it looks into its cache, numba loads all that it can compile: 250 modules, 25 MB and a third of a second for each worker
process. Code that is ready needs none of it, as long as it neither makes arrays nor calls what numba has written in Python (its
`min` of an array, say): then the cache names only modules of ours. So the functions here work on arrays that they are given.

Numba takes code from the disk while the file of its function is the same, whatever became of the functions that it calls: who
upgraded the package could have kept the rules of before. Here code is known by the content of all the files it may come from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba.core.caching import FunctionCache
from numba.core.runtime import _nrt_python as _nrt

_files: set[str] = set()
"""Where the functions stand that are compiled, or become part of one that is; all are known before the first is called."""


class _Cache(FunctionCache):  # type: ignore[misc]
    """Code of a function on the disk."""

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Without `context.refresh()`, which loads all that numba can compile."""
        _name_what_the_code_calls()
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, context)

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return (*super()._index_key(signature, codegen), _digest(frozenset(_files)))


def compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, without the interpreter's lock, or take what an earlier process has compiled."""
    ready = numba.njit(nogil=True)(_known(function))
    # Where no folder can be written, neither ours nor the user's, each process compiles for itself.
    with contextlib.suppress(RuntimeError):
        ready._cache = _Cache(function)
    return ready


def inlined(function: Callable[..., Any]) -> Any:
    """For calls from compiled functions only; becomes part of them."""
    return numba.njit(inline="always")(_known(function))


def _known(function: Callable[..., Any]) -> Callable[..., Any]:
    _files.add(inspect.getfile(function))
    return function


@functools.cache
def _digest(files: frozenset[str]) -> str:
    """Of what the files contain; a millisecond. A file that is not there, as in an archive, is known by its name."""
    paths = sorted((Path(name) for name in {*files, __file__}), key=lambda path: path.name)
    parts = [path.read_bytes() if path.is_file() else path.name.encode() for path in paths]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


@functools.cache
def _name_what_the_code_calls() -> None:
    """What counts references to arrays, by the names that it has in the code; `rtsys.initialize` would compile more of it."""
    for name, address in _nrt.c_helpers.items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
