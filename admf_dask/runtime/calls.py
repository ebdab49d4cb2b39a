"""How one item is called: with its data and its own chance; and the cells in which its evaluator notes where it is."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable, MutableSequence
from functools import partial
from typing import Any

import dask.sizeof
import distributed.comm.core
import distributed.utils_comm
import numpy as np
from numpy.typing import NDArray

from admf_dask.identity import content_key

Cells = MutableSequence[int] | memoryview
BEGAN = 2
"""Beside the cell of the index (-1 between items): when the item, or the group of quick ones it is in, began (monotonic
nanoseconds); 0 where no call is under way."""

TAKEN, UNTIL, END = 3, 4, 5
"""Beside it as well: the number of a chunk of which something was taken, the item before which the evaluator looks for that, and
the one before which the chunk then ends.
"""


def cells_of_nobody() -> Cells:
    """Cells that nobody else can read; the index is the first."""
    return [0] * (END + 1)


_one_at_a_time = threading.Lock()
_of_dask = random.Random()


Takes = tuple[Callable[[], Any], ...]
"""What to call for each part of the data, once for each item."""


def prepare(function: Callable[..., Any], data: Takes, seed: int | None) -> Callable[[Any], Any]:
    """`call(item)` for the hot loop; without data and seed it is the function itself."""
    if seed is not None:
        return Seeded(function, data, seed)
    # A plain call of one argument is one that the interpreter does without a C frame of its own.
    return partial(_with_data, function, data) if data else function


def _with_data(function: Callable[..., Any], data: Takes, item: Any) -> Any:
    return function(item, *[take() for take in data])


class Seeded:
    """Calls a function with chance that depends on the seed and on the item, and on nothing else.

    A function with a parameter `rng` gets a `numpy.random.Generator`. For any function `random` and NumPy's legacy state are
    seeded too; they belong to the process, so a function without `rng` runs one at a time in each process.
    """

    def __init__(self, function: Callable[..., Any], data: Takes, seed: int) -> None:
        """`seed` is a whole number of at least 0."""
        _keep_dask_apart()
        self._function, self._data, self._seed = function, data, seed
        self._takes_rng = takes(function, "rng")

    def __call__(self, item: Any) -> Any:
        """Call the function; costs about 40 microseconds beyond it."""
        sequence = seed_sequence(self._seed, content_key(item))
        data = [take() for take in self._data]
        if self._takes_rng:
            return self._function(item, *data, rng=np.random.Generator(np.random.PCG64(sequence)))
        with _one_at_a_time:
            words = sequence.generate_state(4)
            random.seed(int.from_bytes(words.tobytes(), "little"))
            np.random.seed(words)
            return self._function(item, *data)


def _keep_dask_apart() -> None:
    """Let Dask draw from a generator of its own: the event loop beside an item measures messages by random samples of them, and
    would take numbers from the state that was just seeded for the item.
    """
    for module in (dask.sizeof, distributed.comm.core, distributed.utils_comm):
        if module.random is random:
            module.random = _of_dask


def seed_sequence(seed: int, key: bytes) -> np.random.SeedSequence:
    """The entropy of one item: the seed of the run and the item's key."""
    return np.random.SeedSequence([seed, int.from_bytes(key, "little")])


def row_seeds(seed: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One seed for each row of a batch, shape (n,), from keys of shape (n, 2): a mix that depends on nothing else."""
    mixed = keys[:, 0] ^ (keys[:, 1] * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        # SplitMix64's finaliser (Steele, Lea and Flood 2014).
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    spread: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return spread


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether `function` has a parameter called `name`; of a decorated one, whether what is called passes it on."""
    try:
        if name not in inspect.signature(function).parameters:
            return False
        outer = inspect.signature(function, follow_wrapped=False)
    except TypeError:
        return False
    except ValueError:
        # No signature at all, or a compiled wrapper around a function that has one.
        return hasattr(function, "__wrapped__")
    return name in outer.parameters or any(one.kind is one.VAR_KEYWORD for one in outer.parameters.values())
