"""`SharedDict`: one dictionary for the driver and all workers of a cluster, kept by the scheduler.

The scheduler stores bytes and never unpickles them, so no user code runs there. `compute` is optimistic: read value and
version, call the function here, write if nobody wrote in between, else again. Workers come and go without loss; it ends with
the scheduler.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Self

import cloudpickle
from distributed import Client, Scheduler, SchedulerPlugin, get_worker
from distributed.utils import sync

from admf_dask.errors import SessionError
from admf_dask.identity import content_key

Entry = tuple[int, bytes, bytes]
"""Version, pickled key, pickled value."""
_ABSENT = -1


class Store:
    """The bytes of all dictionaries of a cluster: single steps, each atomic. Thread-safe."""

    def __init__(self) -> None:
        """Empty."""
        self._lock = threading.Lock()
        self._dicts: dict[str, dict[bytes, Entry]] = {}
        self._version = 0

    def step(
        self,
        name: str,
        verb: str,
        mark: bytes = b"",
        key: bytes = b"",
        value: bytes = b"",
        version: int = 0,
        many: Sequence[tuple[bytes, bytes, bytes]] = (),
    ) -> Any:
        """One operation; `mark` is the key's content key, `many` are marks, keys and values for `update`.

        Returns what the operation is documented to return below.
        """
        with self._lock:
            entries = self._dicts.setdefault(name, {})
            if verb == "get":
                return entries.get(mark)
            if verb == "all":
                return list(entries.values())
            if verb == "len":
                return len(entries)
            if verb == "clear":
                entries.clear()
                return None
            if verb == "last":
                return entries.pop(next(reversed(entries))) if entries else None
            if verb == "update":
                for each_mark, each_key, each_value in many:
                    self._write(entries, "set", each_mark, each_key, each_value, 0)
                return None
            return self._write(entries, verb, mark, key, value, version)

    def _write(
        self, entries: dict[bytes, Entry], verb: str, mark: bytes, key: bytes, value: bytes, version: int
    ) -> Any:
        """`set` always writes, `swap` if the entry has that version (-1: is absent) and tells whether it did, `pop` removes."""
        if verb == "pop":
            return entries.pop(mark, None)
        found = entries.get(mark)
        if verb == "swap" and (found[0] if found else _ABSENT) != version:
            return False
        self._version += 1
        entries[mark] = (self._version, key, value)
        return True


@contextlib.contextmanager
def _reached(name: str) -> Iterator[None]:
    """Errors of the connection as what they mean; no function of the user's runs inside."""
    try:
        yield
    except OSError as error:
        raise SessionError(
            f"shared_dict({name!r}) lives on the scheduler, which went away ({type(error).__name__}); open a new session"
        ) from error


def _mark(key: Any) -> Any:
    """What tells a key from others. Raises TypeError, as a dict does, for one that no dict of a snapshot could hold."""
    hash(key)
    return content_key(key)


class SharedDictPlugin(SchedulerPlugin):  # type: ignore[misc]
    """Puts the store behind a handler of the scheduler, reachable for clients and workers."""

    name = "admf-dask-shared-dict"
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Called on the scheduler."""
        store = Store()

        async def step(name: str, verb: str, **parts: Any) -> Any:
            return store.step(name, verb, **parts)

        scheduler.handlers["admf_dask_shared_dict"] = step


class SharedDict(MutableMapping[Any, Any]):
    """A mapping across all workers of a session; made by `session.shared_dict(name)`, and sent to tasks like any value.

    Every single method is atomic for the whole cluster; `compute(key, function)` is read-modify-write in one step.
    Iteration, `keys()`, `values()` and `items()` are snapshots. Keys and values must be picklable; keys are told apart by
    content and type (1, 1.0 and True are three keys). Each operation is a message to the scheduler: about 1 ms, so it is for
    counts, best-so-far and settings, not for data. May be used from any thread of the driver and of any worker.
    """

    def __init__(self, name: str, client: Client | None = None, store: Store | None = None) -> None:
        """Use `session.shared_dict(name)`."""
        self.name, self._client, self._store = name, client, store

    def __reduce__(self) -> Any:
        """On a worker it reaches the scheduler by the worker's own connection."""
        if self._store is not None:
            raise TypeError(
                "the shared_dict of a session without a cluster lives in this process and cannot be sent to another"
            )
        return SharedDict, (self.name,)

    def _step(self, verb: str, **parts: Any) -> Any:
        if self._store is not None:
            return self._store.step(self.name, verb, **parts)
        if self._client is not None:
            if self._client.status != "running":
                raise SessionError(f"the session of shared_dict({self.name!r}) is closed, and the dictionary with it")
            with _reached(self.name):
                return self._client.sync(
                    self._client.scheduler.admf_dask_shared_dict, name=self.name, verb=verb, **parts
                )
        try:
            worker = get_worker()
        except ValueError:
            raise SessionError(
                f"shared_dict({self.name!r}) was sent to a place that is no worker; call session.shared_dict({self.name!r}) there"
            ) from None
        return sync(worker.loop, worker.scheduler.admf_dask_shared_dict, name=self.name, verb=verb, **parts)

    def _find(self, key: Any) -> Entry | None:
        found = self._step("get", mark=_mark(key))
        return None if found is None else tuple(found)

    def __getitem__(self, key: Any) -> Any:
        """The value; raises KeyError."""
        found = self._find(key)
        if found is None:
            raise KeyError(key)
        return pickle.loads(found[2])

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set the value."""
        self._step("set", mark=_mark(key), key=cloudpickle.dumps(key), value=cloudpickle.dumps(value))

    def update(self, mapping: Any = (), /, **kwargs: Any) -> None:
        """Set many keys in one step: nobody sees some of them without the others."""
        new = dict(mapping, **kwargs)
        many = [(_mark(key), cloudpickle.dumps(key), cloudpickle.dumps(value)) for key, value in new.items()]
        self._step("update", many=many)

    def __or__(self, other: Any) -> dict[Any, Any]:
        """A plain dict with the pairs of both; the right one wins."""
        return self.copy() | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        """As `|`, from the right."""
        return dict(other) | self.copy() if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        """Update in place, in one step."""
        self.update(other)
        return self

    def __delitem__(self, key: Any) -> None:
        """Remove the key; raises KeyError."""
        if self._step("pop", mark=_mark(key)) is None:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        """Whether the key is there now."""
        return self._find(key) is not None

    def __len__(self) -> int:
        """How many keys there are now."""
        return int(self._step("len"))

    def __iter__(self) -> Iterator[Any]:
        """Over the keys there are now."""
        return iter(self.copy())

    def copy(self) -> dict[Any, Any]:
        """A plain dict of what there is now, taken in one step."""
        return {pickle.loads(key): pickle.loads(value) for _, key, value in self._step("all")}

    def keys(self) -> Any:
        """The keys there are now."""
        return self.copy().keys()

    def values(self) -> Any:
        """The values there are now."""
        return self.copy().values()

    def items(self) -> Any:
        """The pairs there are now."""
        return self.copy().items()

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove the key and return its value, or the default; raises KeyError without one."""
        found = self._step("pop", mark=_mark(key))
        if found is not None:
            return pickle.loads(found[2])
        if not default:
            raise KeyError(key)
        return default[0]

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return a pair, the one written last where nothing was overwritten; raises KeyError when empty."""
        found = self._step("last")
        if found is None:
            raise KeyError("the dictionary is empty")
        return pickle.loads(found[1]), pickle.loads(found[2])

    def clear(self) -> None:
        """Remove everything."""
        self._step("clear")

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value, which is set to the default if the key is new."""
        return self._change(key, lambda there, value: value if there else default)

    def compute(self, key: Any, function: Callable[[Any], Any]) -> Any:
        """Set the key to `function(value)`, where value is None if the key is new, and return it; one atomic step.

        The function runs in the calling process, once more each time that somebody else wrote the key meanwhile.
        """
        return self._change(key, lambda _, value: function(value))

    def _change(self, key: Any, function: Callable[[bool, Any], Any]) -> Any:
        mark, packed = _mark(key), cloudpickle.dumps(key)
        while True:
            found = self._find(key)
            value = function(found is not None, None if found is None else pickle.loads(found[2]))
            version = _ABSENT if found is None else found[0]
            if self._step("swap", mark=mark, key=packed, value=cloudpickle.dumps(value), version=version):
                return value

    def __repr__(self) -> str:
        """Its name: the content is elsewhere."""
        return f"SharedDict({self.name!r})"


def shared_dict(name: str, client: Client | None, stores: dict[str, Store]) -> SharedDict:
    """The dictionary of that name on the client's scheduler; without a client, in `stores`."""
    given: object = name
    if not isinstance(given, str) or not given:
        raise TypeError(f"a shared_dict needs a name, but got {name!r}; write session.shared_dict('best')")
    if client is None:
        return SharedDict(name, store=stores.setdefault("", Store()))
    with _reached(name):
        client.register_plugin(SharedDictPlugin())
    return SharedDict(name, client)
