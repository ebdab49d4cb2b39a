"""`ThreadSafeDict`: a dictionary whose every operation is atomic, for threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from reprlib import recursive_repr
from typing import Any, NoReturn, Self, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ThreadSafeDict(MutableMapping[K, V]):
    """A complete mapping for many threads: every single method is atomic, and iteration never fails because of a writer.

    `keys()`, `values()`, `items()` and iteration are snapshots, taken at once: lists and iterators over a copy, which cost
    O(n). What consists of two calls is not atomic together: for read-modify-write use `compute(key, function)`, which runs
    the function under the lock, or `setdefault` and `pop`. Functions called under the lock may use the dictionary (the lock is
    re-entrant) but no other one, and should be quick: every other thread waits.

    Made like a dict: `ThreadSafeDict()`, `ThreadSafeDict(mapping)`, `ThreadSafeDict(pairs)`, `ThreadSafeDict(a=1)`.
    It lives in one process and refuses to be pickled; across processes use `session.shared_dict(name)`.
    """

    def __init__(self, mapping: Mapping[K, V] | Iterable[tuple[K, V]] = (), /, **kwargs: V) -> None:
        """Copy what is given."""
        self._lock = threading.RLock()
        self._dict: dict[K, V] = {}
        self.update(mapping, **kwargs)

    # -- single operations -----------------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        """The value; raises KeyError."""
        with self._lock:
            return self._dict[key]

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value."""
        with self._lock:
            self._dict[key] = value

    def __delitem__(self, key: K) -> None:
        """Remove the key; raises KeyError."""
        with self._lock:
            del self._dict[key]

    def __contains__(self, key: object) -> bool:
        """Whether the key is there now."""
        with self._lock:
            return key in self._dict

    def __len__(self) -> int:
        """How many keys there are now."""
        with self._lock:
            return len(self._dict)

    def get(self, key: K, default: Any = None) -> Any:
        """The value, or the default."""
        with self._lock:
            return self._dict.get(key, default)

    def setdefault(self, key: K, default: Any = None) -> Any:
        """The value, which is set to the default if the key is new."""
        with self._lock:
            return self._dict.setdefault(key, default)

    def pop(self, key: K, *default: Any) -> Any:
        """Remove the key and return its value, or the default; raises KeyError without one."""
        with self._lock:
            return self._dict.pop(key, *default)

    def popitem(self) -> tuple[K, V]:
        """Remove and return the pair that was added last; raises KeyError when empty."""
        with self._lock:
            return self._dict.popitem()

    def clear(self) -> None:
        """Remove everything."""
        with self._lock:
            self._dict.clear()

    def update(self, mapping: Any = (), /, **kwargs: Any) -> None:
        """Set many keys at once: no other thread sees some of them without the others."""
        # Read outside the lock, as an iterator may be slow or wait for another thread.
        new = dict(mapping, **kwargs) if mapping is not self else {}
        with self._lock:
            self._dict.update(new)

    def compute(self, key: K, function: Callable[[V | None], V]) -> V:
        """Set the key to `function(value)`, where value is None if the key is new, and return it; one atomic step.

        If the function raises, nothing changes. `counts.compute("AAPL", lambda n: (n or 0) + 1)` counts from any thread.
        """
        with self._lock:
            value = self._dict[key] = function(self._dict.get(key))
            return value

    # -- snapshots -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[K]:
        """Over the keys there are now."""
        return iter(self.copy_to_dict())

    def __reversed__(self) -> Iterator[K]:
        """Over the keys there are now, the last added first."""
        return reversed(self.copy_to_dict())

    def keys(self) -> Any:
        """The keys there are now: the view of a copy."""
        return self.copy_to_dict().keys()

    def values(self) -> Any:
        """The values there are now."""
        return self.copy_to_dict().values()

    def items(self) -> Any:
        """The pairs there are now."""
        return self.copy_to_dict().items()

    def copy_to_dict(self) -> dict[K, V]:
        """A plain dict of what there is now."""
        with self._lock:
            return self._dict.copy()

    def copy(self) -> Self:
        """A ThreadSafeDict of its own with what there is now."""
        return type(self)(self.copy_to_dict())

    __copy__ = copy

    @classmethod
    def fromkeys(cls, keys: Iterable[K], value: Any = None) -> Self:
        """A new one with these keys, all with the same value."""
        new = cls()
        for key in keys:
            new[key] = value
        return new

    # -- comparing and joining -------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Equal to any mapping with the same pairs."""
        if isinstance(other, ThreadSafeDict):
            return self.copy_to_dict() == other.copy_to_dict()
        return self.copy_to_dict() == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: Any) -> Self:
        """A new one with the pairs of both; the right one wins."""
        return type(self)(self.copy_to_dict() | _plain(other)) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Self:
        """As `|`, from the right."""
        return type(self)(_plain(other) | self.copy_to_dict()) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        """Update in place, at once."""
        self.update(other)
        return self

    @recursive_repr(fillvalue="...")
    def __repr__(self) -> str:
        """As a dict; safe where it holds itself."""
        # Of a copy: with the lock held, two that hold each other would wait for each other in two threads.
        return f"{type(self).__name__}({self.copy_to_dict()!r})"

    def __reduce__(self) -> NoReturn:
        """Refuse: a copy in another process would not be the same dictionary."""
        raise TypeError(
            "a ThreadSafeDict lives in one process and cannot be sent to another; use session.shared_dict(name), which "
            "has the same methods across all workers, or send dict(d)"
        )


def _plain(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return mapping.copy_to_dict() if isinstance(mapping, ThreadSafeDict) else dict(mapping)
