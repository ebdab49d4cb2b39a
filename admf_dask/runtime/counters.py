"""`Counters`: each `ParallelProgress` of this process as a run on the page of a session."""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from distributed import Client

from admf_dask.events import Event
from admf_dask.progress.digest import Update
from admf_dask.progress.watchers import Counter
from admf_dask.runtime.farewells import Farewells
from admf_dask.runtime.feed import RunFeed


@dataclass
class CountDigest:
    """A counter as updates. Asks for the count when it is sent, so counting costs nothing more."""

    progress: weakref.ref[Counter]
    run: str
    name: str
    total: int | None
    began: float = field(default_factory=time.time)
    state: str = "running"
    _completed: int = 0

    def take(self, event: Event) -> None:
        """A counter has no events."""

    def update(self) -> Update:
        """As it stands."""
        living = self.progress()
        if living is not None:
            self._completed = living.statistics().completed
        done = self._completed
        return Update(
            run=self.run, kind="count", name=self.name, total=max(self.total or 0, done), slots=1, score=None, maximize=True,
            began=self.began, at=time.time(), state=self.state, recalled=0, done=done, evaluated=done, failed=0, rejected=0,
            indices=np.empty(0, np.int64), scores=np.empty(0), best=(), failures=(), kinds={}, notices=(),
            open_ended=self.total is None,
        )  # fmt: skip


class Counters:
    """Watches counters for one session. Thread-safe."""

    def __init__(self, client: Client, ready: Future[bool], farewells: Farewells) -> None:
        """As for a `RunFeed`."""
        self._client, self._ready, self._farewells = client, ready, farewells
        self._feeds: dict[str, tuple[RunFeed, CountDigest]] = {}
        self._lock = threading.Lock()

    def changed(self, progress: Counter, ended: str | None) -> None:
        """A counter has moved, or ended."""
        found = self._feeds.get(progress.key) or self._begin(progress)
        self._tell(*found, ended)

    def _begin(self, progress: Counter) -> tuple[RunFeed, CountDigest]:
        with self._lock:
            if progress.key not in self._feeds:
                began = time.time() - progress.statistics().elapsed
                digest = CountDigest(weakref.ref(progress), progress.key, progress.description, progress.total, began)
                feed = RunFeed(self._client, digest, self._ready, self._farewells)
                self._feeds[progress.key] = feed, digest
                weakref.finalize(progress, self._gone, progress.key, feed, digest).atexit = False
            return self._feeds[progress.key]

    def _gone(self, key: str, feed: RunFeed, digest: CountDigest) -> None:
        # Called wherever its last reference goes, perhaps with a lock of ours held: what is to be done is the loop's.
        self._feeds.pop(key, None)
        if self._client.status == "running":
            self._client.loop.add_callback(self._tell, feed, digest, "interrupted")

    def _tell(self, feed: RunFeed, digest: CountDigest, ended: str | None) -> None:
        if ended is not None and digest.state == "running":
            digest.state = ended
            feed.wake(last=True)
        elif ended is None:
            feed.wake(last=False)
