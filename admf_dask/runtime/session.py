"""`Session`: the cluster that everything runs on, opened once and used many times.

States: new -> open -> closed. A session is opened by `with` or `.open()`, once.

One class, and longer than other modules because its docstrings are the reference of what every run takes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from distributed import Client, Security, get_worker
from distributed.utils import silence_logging_cmgr

from admf_dask.admission import Admission
from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError, ResourceError, SchedulerUnreachable, SessionClosed, SessionError
from admf_dask.events import Observer
from admf_dask.journal import Journal, as_journal
from admf_dask.outcomes import Outcome
from admf_dask.policy import Policy
from admf_dask.progress import observers_for, watchers
from admf_dask.progress.digest import Digest
from admf_dask.resources import Layout, Machine, ResourceManager
from admf_dask.rich import box
from admf_dask.runtime.accounts import memory_table
from admf_dask.runtime.cluster import Door, OwnCluster, free_address, prepare_processes
from admf_dask.runtime.company import Company
from admf_dask.runtime.counters import Counters
from admf_dask.runtime.dashboard import Page, add_page
from admf_dask.runtime.driver import Run, Title
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.executors import ClusterExecutor, total_threads
from admf_dask.runtime.farewells import Farewells
from admf_dask.runtime.feed import RunFeed
from admf_dask.runtime.guard import refuse_unguarded_main
from admf_dask.runtime.inline import InlineExecutor
from admf_dask.runtime.leases import new_folder
from admf_dask.runtime.links import PAGE, reached
from admf_dask.runtime.mapping import Outcomes, map_evaluator, outcomes_of
from admf_dask.runtime.replies import Executor
from admf_dask.runtime.security import make_security
from admf_dask.runtime.shared import SharedData, SharedStore
from admf_dask.runtime.shared.arrival import drop
from admf_dask.runtime.shared_dict import SharedDict, Store, shared_dict
from admf_dask.runtime.threads import inner_threads_bounded
from admf_dask.text import format_bytes, parse_bytes
from admf_dask.throttle import Throttle
from admf_dask.weights import Weights

if TYPE_CHECKING:
    import pandas as pd


class State(enum.Enum):
    """Where a session is in its life."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class _NotGiven(enum.Enum):
    NOT_GIVEN = "not given"


_NOT_GIVEN = _NotGiven.NOT_GIVEN


class Session:
    """A cluster laid out as processes x threads, on this machine or on a scheduler that already runs.

    ```python
    with Session(mode="process", workers=4) as session:
        outcomes = session.map(function, items)
    ```

    Modes: `process` (N processes x 1 thread, each under a nanny with its own memory limit), `hybrid` (P processes x T
    threads, the same), `thread` (this process x N threads: starts at once and shares all memory, but a thread cannot be
    killed, so nothing there can stop a runaway item, and no memory limit holds). `enabled: false`, and a session that is
    opened inside a Dask task, run everything in the calling thread.

    Parameters
    ----------
    config
        A `ParallelConfig`; the keywords below go before it.
    mode, workers, threads_per_process
        The layout. `workers` counts slots (processes x threads); None or 0 lets the `ResourceManager` decide.
    memory_limit
        Bytes or a size such as `"2GB"` for each process, instead of the planned one.
    client
        A `distributed.Client` to use; it is left open. Nothing is started, and the other options have no meaning.
    dashboard
        `"auto"` (loopback, port 8787 or the next free one), `"host:port"`, or None for none.
    security
        `"auto"` (a temporary certificate wherever there are worker processes), `"none"`, paths `{ca_file, cert, key}`, or a
        `distributed.Security`.

    Opening costs about a second in process mode, a few hundredths in thread mode. The session does not become the process's
    default Dask client. Its methods may be called from several threads at the same time.
    """

    def __init__(
        self,
        config: ParallelConfig | None = None,
        *,
        mode: str | None = None,
        workers: int | None = None,
        threads_per_process: int | None = None,
        memory_limit: int | str | None = None,
        client: Client | None = None,
        dashboard: str | _NotGiven | None = _NOT_GIVEN,
        security: str | Mapping[str, str] | Security | _NotGiven | None = _NOT_GIVEN,
    ) -> None:
        """Check the settings; nothing is started before `open`."""
        given: dict[str, Any] = {"mode": mode, "max_workers": workers, "threads_per_process": threads_per_process}
        given = {name: value for name, value in given.items() if value is not None}
        if dashboard is not _NOT_GIVEN:
            given["dashboard"] = dashboard
        self._own_security = security if isinstance(security, Security) else None
        if security is not _NOT_GIVEN and self._own_security is None:
            given["security"] = security or "none"
        if client is not None and not isinstance(client, Client):
            raise SessionError(
                f"client must be a distributed.Client, but got {client!r:.100}; an address goes into scheduler="
            )
        if not isinstance(config, ParallelConfig | None):
            raise SessionError(
                f"config must be a ParallelConfig, but is {config!r:.60}; write Session(workers=4), Session(mode='thread') or "
                "Session(ParallelConfig.from_mapping(...))"
            )
        self.config = replace(config or ParallelConfig(), **given)
        self._memory_limit = None if memory_limit is None else parse_bytes(memory_limit)
        self._given_client = client
        self._state = State.NEW
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._client: Client | None = None
        self._public_client: Client | None = None
        self._cluster: OwnCluster | None = None
        self._layout: Layout | None = None
        self._page: Page | None = None
        self._page_ready: Future[bool] | None = None
        self._scratch: str | None = None
        self._farewells = Farewells()
        self._stores: dict[str, Store] = {}
        self._shared = SharedStore()
        self._company = Company(crowded=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def open(self) -> Self:
        """Start or connect; returns the session. Raises SessionError if it was opened before.

        Raises SchedulerUnreachable when nobody answers, ResourceError when the machine cannot give what was asked, and
        SessionError, before any process is started, for a script without `if __name__ == "__main__":`.
        """
        with self._lock:
            if self._state is not State.NEW:
                again = "is open already" if self._state is State.OPEN else "was closed; make a new one"
                raise SessionError(f"a session is opened once, but this one {again}")
            try:
                self._start()
            except BaseException:
                self._state = State.CLOSED
                self._stack.close()
                raise
            self._state = State.OPEN
        return self

    def close(self) -> None:
        """End what this session started: processes, threads, ports, files. Closing twice is no error."""
        with self._lock:
            self._state = State.CLOSED
            try:
                self._farewells.wait(2)
                if self._cluster is not None:
                    self._cluster.kill_busy()
                self._take_back()
            finally:
                # Also where Ctrl-C comes while it closes.
                self._stack.close()
                self._client = self._public_client = self._cluster = self._page = None

    def __enter__(self) -> Self:
        """Open."""
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _start(self) -> None:
        self._stack.callback(self._shared.close)
        if self._given_client is not None:
            self._client = self._given_client
        elif not self.config.enabled or _inside_a_task():
            self._layout = Layout("thread", 1, 1, ResourceManager().plan("thread", 1).memory_limit)
        elif self.config.scheduler is not None:
            self._client = self._connect(self.config.scheduler)
        else:
            self._start_cluster()
        if self._cluster is None and self._client is not None and self.config.dashboard is not None:
            loop = self._client.loop.asyncio_loop
            self._page_ready = asyncio.run_coroutine_threadsafe(add_page(self._client), loop)
        if self._client is not None and self._page_ready is not None:
            counters = Counters(self._client, self._page_ready, self._farewells)
            watchers.enter(counters)
            self._stack.callback(watchers.leave, counters)

    def _connect(self, address: str) -> Client:
        own = self._own_security
        wants_tls = isinstance(self.config.security, Mapping) if own is None else own.require_encryption
        if wants_tls and not address.startswith(("tls://", "wss://")):
            raise ConfigError(
                f"the certificates of security= need a scheduler that speaks TLS, but scheduler={address!r} does not; start it "
                'with them (`dask scheduler --protocol tls --tls-ca-file ...`), write "tls://host:port", or leave security= out'
            )
        security = own or make_security(
            self.config.security if address.startswith("tls") and self.config.security != "auto" else "none"
        )
        self._stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        try:
            client = Client(address, security=security, set_as_default=False, timeout=5)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise SchedulerUnreachable(
                f"no Dask scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler`, or check "
                "host, port and security="
            ) from error
        self._stack.callback(client.close)
        return client

    def _start_cluster(self) -> None:
        config = self.config
        if config.mode != "thread":
            refuse_unguarded_main()
        layout = self._plan()
        if layout.mode != "thread":
            # After the plan, which would take its imports for the load of others.
            prepare_processes()
        scratch = new_folder(Path(tempfile.gettempdir()), "admf-dask-session-")
        self._stack.callback(scratch.remove)
        self._scratch = str(scratch.folder)
        choice = self._own_security or (
            config.security if layout.mode != "thread" or config.security != "auto" else "none"
        )
        # Entered before the cluster, so that it outlasts the last words of the cluster's closing.
        self._stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        if layout.mode == "thread":
            self._stack.enter_context(inner_threads_bounded())
        cluster = OwnCluster(
            layout,
            dashboard_address=free_address(config.dashboard),
            security=make_security(choice, self._scratch) if layout.mode != "thread" else None,
            scratch=self._scratch,
        )
        self._stack.callback(cluster.close, timeout=10)
        if config.dashboard is not None:
            self._page = Page(cluster)
            self._stack.callback(self._page.close)
            self._page_ready = self._page.ready
        client = Client(Door(cluster), set_as_default=False)
        # Nothing is gained by gathering messages that only go from memory to memory.
        client.scheduler_comm.interval = 0.0
        self._stack.callback(client.close)
        self._client, self._cluster, self._layout = client, cluster, layout
        self._company = Company(crowded=layout.mode == "hybrid", ended=cluster.ended)

    def _plan(self) -> Layout:
        config = self.config
        # How busy the CPUs are takes a tenth of a second to see, and matters where nobody said how many to use.
        machine = Machine.probe(interval=0) if config.max_workers else None
        manager = ResourceManager(config.max_memory_percent, config.max_cpu_percent, machine=machine)
        layout = manager.plan(config.mode, config.max_workers, config.threads_per_process)
        if self._memory_limit is None or layout.mode == "thread":
            return layout
        allowance, asked = layout.memory_limit * layout.processes, self._memory_limit * layout.processes
        if asked > allowance > 0:
            raise ResourceError(
                f"the limits of all processes must fit below max_memory_percent={config.max_memory_percent:g}, but "
                f"{layout.processes} x {format_bytes(self._memory_limit)} are more than the {format_bytes(allowance)} left "
                f'there; write memory_limit="{layout.memory_limit // 2**20}MiB", fewer workers, or a higher max_memory_percent'
            )
        return replace(layout, memory_limit=self._memory_limit)

    def _take_back(self) -> None:
        """Remove what was sent to other machines; what cannot be reached now is swept there by the next session."""
        if self._client is None or self._client.status != "running" or not self._shared.sent_away:
            return
        for folder in self._shared.folders:
            with contextlib.suppress(OSError, TimeoutError):
                self._client.run(drop, folder)

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`new`, `open` or `closed`."""
        return self._state.value

    @property
    def client(self) -> Client:
        """The `distributed.Client`, for Dask work of your own. Raises SessionError where there is no cluster."""
        self._must_be_open()
        if self._client is None:
            raise SessionError(
                "this session runs in the calling thread (enabled: false, or inside a Dask task) and has no client"
            )
        if self._cluster is None:
            return self._client
        with self._lock:
            if self._public_client is None:
                # Not the session's own, which reaches the scheduler in a way that only this process can.
                self._public_client = Client(self._cluster, set_as_default=False)
                self._stack.callback(self._public_client.close)
            return self._public_client

    @property
    def layout(self) -> Layout:
        """Processes, threads and the memory limit of each process."""
        self._must_be_open()
        if self._layout is None:
            self._layout = _layout_of(self.client)
        return self._layout

    @property
    def dashboard_link(self) -> str | None:
        """The address of the page of runs, None without a dashboard; on a scheduler that lacks the page, Dask's own."""
        self._must_be_open()
        if self._page is not None:
            return self._page.link
        if self._client is None or self._cluster is not None or not self._client.dashboard_link:
            return None
        link = reached(os.environ, str(self._client.dashboard_link))
        if self._page_ready is None:
            return link
        concurrent.futures.wait([self._page_ready], timeout=5)
        ours = self._page_ready.done() and self._page_ready.result() and link.endswith("/status")
        return f"{link.removesuffix('/status')}/{PAGE}" if ours else link

    @property
    def tunnel(self) -> str | None:
        """Reached by ssh: the command to type on your own machine, so that `dashboard_link` works there. Else None."""
        self._must_be_open()
        return None if self._page is None else self._page.tunnel

    def memory(self) -> pd.DataFrame:
        """Who holds how much memory now, in bytes: a row for each process, and for the machine.

        Rows `driver` and `worker <pid>` have `pid`, `private` (what ending the process would free), `shared` (mapped files:
        data shared by the session, program code; the same pages in each process), `limit` (of private memory) and `total`.
        Rows `shared data` (once for the machine), `used by us`, `used by others`, `free` and `machine` have `total`. Workers of
        a cluster that is not the session's own are not on this machine, so they are not in it. Costs a few milliseconds.
        """
        self._must_be_open()
        pids = [] if self._cluster is None else self._cluster.pids()
        return memory_table({f"worker {pid}": (pid, self.layout.memory_limit) for pid in pids}, self._shared.in_memory)

    def _must_be_open(self) -> None:
        if self._state is State.NEW:
            raise SessionClosed("the session is not open yet; write `with Session(...) as session:` or call .open()")
        if self._state is State.CLOSED:
            raise SessionClosed("the session is closed; make a new one")

    # -- work ------------------------------------------------------------------------------------------------------

    def map(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        data: Any = None,
        on_error: str = "record",
        timeout: float | None = None,
        retries: int = 0,
        retry_on: Any = Exception,
        seed: int | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
        progress: bool | str | Observer = "auto",
        name: str | None = None,
    ) -> Outcomes:
        """Evaluate `function(item)`, or `function(item, data)` when data is given, on every item.

        Returns an `Outcome` for each item, in item order; an item that failed is an outcome with its error and traceback,
        and a warning at the end says how many. Raises TaskError when the call itself is wrong (the function cannot be
        sent), and the partial result rides on KeyboardInterrupt as `.partial`.

        Parameters
        ----------
        function, items, data
            `items` needs a length and `items[i]`; function, items and data are sent to each worker once. Each item gets the
            data as they were given: frames, series and arrays, also in a dict, list or tuple, cannot be written
            (`data = data.copy()` can), and a column that an item adds is gone before the next. Costs 0.4 microseconds an item
            for a frame, 20 after a change.
        on_error
            `"record"` keeps going; `"raise"` stops at the first failure and raises it, with the item in a note;
            `"stop_after:10"` and `"stop_after:5%"` stop at that many failures, or that share of what was evaluated from
            1 / share evaluations on. What had finished is in `.partial` of the exception.
        timeout
            Seconds that one item may take. It is stopped by an exception inside it; if that has no effect within a second
            (a C loop), its worker process is ended and the item's neighbours run again. In thread mode only the first is
            possible, and a line in the log says what the run waits for. A batch objective's timeout bounds one call, which is
            then made small enough to tell.
        retries, retry_on
            Call an item again, up to `retries` times, after an exception of the classes `retry_on`, with a pause of 0.1 s
            that doubles up to 5 s. `Outcome.attempts` counts the calls.
        seed
            Gives each item chance of its own, derived from the seed and the item's content: the same for any mode, number
            of workers, chunking or order. A function with a parameter `rng` gets a `numpy.random.Generator`; `random` and
            `numpy.random` are seeded too, and a function without `rng` then runs one at a time in each process.
        journal
            A folder, or a `Journal`, that records each finished chunk: the same call then goes on where it ended, also after
            kill -9, and one with other items evaluates those that are new. Raises JournalMismatch, before anything runs,
            when function, data or seed are not those recorded. Costs about 5 ms for each chunk, beside the work.
        progress, name
            `"auto"`, True, False or an observer of your own; what progress and dashboard call the run.

        Cost: 4 to 6 ms for each chunk of about 0.4 s of work, whatever the number of items.
        """
        policy = Policy.of(on_error=on_error, timeout=timeout, retries=retries, retry_on=retry_on, seed=seed)
        return Outcomes.gather(*self._map_run(map_evaluator(function, items, data, policy), journal, progress, name))

    def as_completed(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        data: Any = None,
        on_error: str = "record",
        timeout: float | None = None,
        retries: int = 0,
        retry_on: Any = Exception,
        seed: int | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
        progress: bool | str | Observer = False,
        name: str | None = None,
    ) -> Iterator[Outcome]:
        """Like `map`, but yields each `Outcome` as its chunk finishes, in any order. Leaving the loop stops the run."""
        policy = Policy.of(on_error=on_error, timeout=timeout, retries=retries, retry_on=retry_on, seed=seed)
        run, items = self._map_run(map_evaluator(function, items, data, policy), journal, progress, name)
        with contextlib.closing(run.__iter__()) as blocks:
            for block in blocks:
                yield from outcomes_of(block, items)

    def share(self, data: Any) -> SharedData:
        """Put a DataFrame, Series, array or mapping of them where every worker reads it without a copy.

        Returns a handle of a few hundred bytes: give it as `data=` wherever data goes, or send it to tasks of your own and
        ask for its `.value`. What comes out is equal to what went in and cannot be written. `data=` of a mebibyte or more is
        shared without being asked for; `share` is for data that several calls use under one name, or Dask graphs of yours.

        Costs one pass over the data (0.7 s for a gigabyte) and its size once, in memory if there is room, else on disk; the
        same content again costs a look (0.1 s for a gigabyte). Columns of Python objects (strings before pandas 3) come out as
        they were, so each process makes its own: 8 bytes a row where texts repeat; as "category" or "string[pyarrow]" they are
        shared. Before pandas 3 such columns can be written. Workers on other machines get it once a machine, when they first
        need it. It lives until the session closes (what a run shares by itself only as long as there is room for it beside
        newer data). Raises TaskError for what cannot be pickled and ResourceError when there is
        no room.
        """
        self._must_be_open()
        return self._shared.share(data)

    def shared_dict(self, name: str) -> SharedDict:
        """One mapping for the driver and all workers, with atomic `compute`; the same name is the same mapping.

        Send it to tasks as `data=` or in a closure. It lives on the scheduler: 1 ms an operation, gone with the session (or,
        on a scheduler of others, with that).
        """
        self._must_be_open()
        return shared_dict(name, self._client, self._stores)

    def run(
        self,
        evaluator: MapEvaluator,
        title: Title,
        observers: Sequence[Observer] = (),
        journal: Journal | str | os.PathLike[str] | None = None,
        weights: Weights | None = None,
    ) -> Run:
        """A run of an evaluator over all its items, to iterate over; what the jobs of the toolkit are built on."""
        executor = self._executor()
        if isinstance(executor, InlineExecutor):
            evaluator = replace(evaluator, interruptible=True)
        if self._client is not None and self._page_ready is not None:
            observers = (*observers, RunFeed(self._client, Digest(evaluator.items), self._page_ready, self._farewells))
        throttle = None
        if self._cluster is not None:
            throttle = Throttle(self.config.max_memory_percent, executor.in_flight_limit)
        return Run(
            evaluator, len(evaluator.items), executor, title, observers, as_journal(journal), throttle=throttle,
            weights=weights, admission=None if weights is None else Admission.of(self.layout),
        )  # fmt: skip

    def _map_run(
        self, evaluator: MapEvaluator, journal: Any, progress: Any, name: str | None
    ) -> tuple[Run, Sequence[Any]]:
        title = Title("map", name or str(getattr(evaluator.function, "__name__", "map")))
        return self.run(evaluator, title, observers_for(progress), journal), evaluator.items

    def _executor(self) -> Executor:
        self._must_be_open()
        if self._client is None:
            return InlineExecutor()
        if self._cluster is None:
            return ClusterExecutor(
                self._client, total_threads(self._client), farewells=self._farewells, store=self._shared,
                company=self._company,
            )  # fmt: skip
        return ClusterExecutor(
            self._client,
            self.layout.workers,
            self._cluster,
            in_process=self.layout.mode == "thread",
            black_boxes=None if self.layout.mode == "thread" else self._scratch,
            farewells=self._farewells,
            company=self._company,
            store=None if self.layout.mode == "thread" else self._shared,
        )

    def __repr__(self) -> str:
        """State and layout."""
        if self._state is not State.OPEN:
            return f"<Session {self.state}>"
        where = "calling thread" if self._client is None else str(self.layout)
        return f"<Session open: {where}{'' if self._page is None else f', dashboard {self._page.link}'}>"

    def _repr_html_(self) -> str:
        if self._state is not State.OPEN:
            return box("Session", str(self.state))
        return box("Session", f"open: {self.layout}", link=self.dashboard_link)


def _inside_a_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _layout_of(client: Client) -> Layout:
    # None where the scheduler went away.
    workers = list(client.scheduler_info(n_workers=-1).get("workers", {}).values())
    threads = max((worker["nthreads"] for worker in workers), default=1)
    limit = min((worker["memory_limit"] or 0 for worker in workers), default=0)
    mode = "process" if threads == 1 else "hybrid"
    return Layout(mode, max(1, len(workers)), threads, limit)
