"""Our own local cluster: a LocalCluster that keeps to a layout, to loopback and to itself.

Differences from the stock one, each for a reason measured or seen:

- a worker that dies is never dropped for good (the stock cluster forgets it after 15 seconds, and the next task hangs);
- a task whose worker died fails at once (`allowed_failures=0`) instead of killing three more: who is to blame is decided by
  `suspects`, from what the black box of that worker says;
- worker processes ignore Ctrl-C (the driver decides what it means) and end with the driver, also after kill -9;
- no thread pool inside a worker is larger than its slots, and the variables that say so do not stay in this process;
- every server listens on loopback.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dask
from distributed import LocalCluster, Nanny, Scheduler, SchedulerPlugin, Security, Worker
from distributed.comm import CommClosedError
from distributed.deploy.cluster import Cluster

from admf_dask.endings import Ending
from admf_dask.resources import Layout
from admf_dask.runtime.accounts import PrivateMemoryManager
from admf_dask.runtime.blackbox import is_busy
from admf_dask.runtime.environment import lent_environment, of_processes
from admf_dask.runtime.forkserver import METHOD, start_server
from admf_dask.runtime.job import ANNOUNCE, POST
from admf_dask.runtime.replies import Death
from admf_dask.runtime.threads import inner_thread_variables

LOOPBACK = "127.0.0.1"
FIRST_PORT = 8787
_CONFIG: dict[str, Any] = {
    "distributed.scheduler.worker-ttl": None,  # a C call that holds the GIL for minutes is no death
    # What waits, waits on the scheduler, for whichever slot is free first, and not behind a long chunk on one worker.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.pause": False,  # a paused worker with nothing to spill would wait for ever
    # Each look of Dask at itself takes the interpreter away from the item under way. At the stock intervals (10 ms, 20 ms,
    # 1 s, 100 ms, 500 ms) that was 4 % of a worker and 5 % of a CPU in this process. And after each the item itself goes on
    # slower for a while, as if the CPU had forgotten what it knew of its loop: pure Python took 5 to 8 % longer beside a profiler
    # that looks every 200 ms than beside one that does with the heartbeats.
    "distributed.worker.profile.interval": "1s",
    "distributed.worker.profile.cycle": "2s",
    "distributed.admin.tick.interval": "2s",
    "distributed.admin.tick.cycle": "5s",
    "distributed.worker.memory.monitor-interval": "1s",  # of workers, which may spill; nannies look as often as need be
    "distributed.admin.system-monitor.interval": "2s",
    # Workers of ours have no pages. For those of the stock ones each of them imported thirty modules as it started.
    "distributed.worker.http.routes": [],
}
HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats of a worker at the least: what Dask takes for more than ten of them. At its half a second for fewer each
item's interpreter is taken away twice as often, and the page has no use for that.
"""
IDLE_SECONDS = 5.0
"""Between two looks for timeouts of the scheduler that are not set; Dask's are a quarter of a second apart."""
_UNFINISHED = ("waiting", "no-worker", "queued", "processing")
"""States of tasks that are still to be done."""
_ROUTES = "distributed.scheduler.http.routes"
_PROXY = "distributed.http.proxy"
"""Leads to the pages of workers, which ours do not have. Where jupyter-server-proxy is installed it loads 150 modules for them:
0.14 s and 8 MB of this process."""
_START = "distributed.worker.multiprocessing-method"
logger = logging.getLogger("admf_dask")


def prepare_processes() -> None:
    """Begin what the start of worker processes waits for longest; costs a few milliseconds."""
    with lent_environment(of_processes()):
        start_server()


class WatchedNanny(Nanny):  # type: ignore[misc]
    """A nanny that remembers how its processes ended, and does not change this process's environment."""

    def __init__(self, *args: Any, deaths: dict[int, Death], ended: dict[int, str], **kwargs: Any) -> None:
        """`deaths` maps the pid of a dead worker to what is known, `ended` that of one that was ended to the run it was for."""
        super().__init__(*args, **kwargs)
        # What Dask keeps is part of this process's own settings, which are back at the stock values when a worker is replaced.
        self.config: dict[str, Any] = copy.deepcopy(self.config)
        self._deaths, self._ended = deaths, ended
        self._pid_alive: int | None = None
        self.memory_manager = PrivateMemoryManager(self, memory_limit=kwargs.get("memory_limit", "auto"))
        self._pre_spawn = of_processes()
        self.pre_spawn_env: dict[str, str] = {}
        for looks in ("monitor", "tick", "ticks", "shift_counters"):
            # At this process and its event loop, which the scheduler in it looks at already: and each nanny would.
            self.periodic_callbacks.pop(looks, None)

    async def instantiate(self) -> Any:
        """Start the worker process; the environment is lent until the process exists, and not until it has connected."""
        starting = asyncio.ensure_future(super().instantiate())
        try:
            with lent_environment(self._pre_spawn), dask.config.set({_START: METHOD}):
                while not starting.done() and self.pid is None:
                    if self.process is not None:
                        # How often it is asked whether the process is up; the stock 50 ms are longer than a fork takes.
                        self.process._init_msg_interval = 0.005
                    await asyncio.sleep(0.005)
                # Not later: a suspect can end the process before it has told its nanny that it is up.
                self._pid_alive = self.pid
                if self.pid is not None:
                    # The system may give it the number of one that is gone.
                    self._deaths.pop(self.pid, None)
                    self._ended.pop(self.pid, None)
            status = await starting
        except asyncio.CancelledError:
            starting.cancel()
            raise
        return status

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        if self._pid_alive is not None:
            self._deaths[self._pid_alive] = self._describe(exitcode)
        super()._on_worker_exit_sync(exitcode)

    def _describe(self, exitcode: int) -> Death:
        manager, pid = self.memory_manager, self._pid_alive
        outgrew = manager._last_terminated_pid == pid
        peak = None if pid is None else manager.peaks.pop(pid, None)
        return Death(Ending(exitcode, outgrew, peak, manager.memory_limit or None))


class LoopbackWorker(Worker):  # type: ignore[misc]
    """A worker inside this process; the stock one would open an HTTP server on all interfaces."""

    def __init__(self, *args: Any, dashboard_address: Any = None, dashboard: bool = False, **kwargs: Any) -> None:
        """As the stock one, on loopback and without a page of its own."""
        super().__init__(*args, dashboard_address=f"{LOOPBACK}:0", dashboard=False, **kwargs)
        self.batched_stream.interval = 0.0


class PromptStreams(SchedulerPlugin):  # type: ignore[misc]
    """Messages to workers leave at once: with Dask's 5 ms between two of them a free slot waits for its next chunk."""

    name = "admf-dask-prompt-streams"

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Called when a worker joins, also one that takes the place of another."""
        scheduler.stream_comms[worker].interval = 0.0


class Graphs(SchedulerPlugin):  # type: ignore[misc]
    """Tells who waits for it that somebody has submitted a graph."""

    name = "admf-dask-graphs"

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: set[asyncio.Future[None]] = set()

    def update_graph(self, scheduler: Scheduler, **facts: Any) -> None:
        """Called for each graph; its tasks may be a moment later."""
        self.stir()

    async def next(self, patience: float) -> None:
        """Wait until somebody submits one, for `patience` seconds at the most."""
        one = asyncio.get_running_loop().create_future()
        self._waiting.add(one)
        try:
            await asyncio.wait([one], timeout=patience)
        finally:
            self._waiting.discard(one)

    def stir(self) -> None:
        """Nobody need wait any longer."""
        for one in self._waiting:
            if not one.done():
                one.set_result(None)


class OwnCluster(LocalCluster):  # type: ignore[misc]
    """A LocalCluster laid out as processes x threads; see the module's docstring."""

    def __init__(self, layout: Layout, *, dashboard_address: str, security: Security | None, scratch: str) -> None:
        """Blocks until the workers are there. `scratch` is a folder for spilled data and black boxes."""
        self.deaths: dict[int, Death] = {}
        self.posts: dict[str, Callable[[int, bytes, int | None], None]] = {}
        """Who takes the answers that workers post, by number, for each run that is under way."""
        self.ended: dict[int, str] = {}
        """Process id -> the run for which it was ended on purpose."""
        self._scratch = scratch
        self._graphs = Graphs()
        in_process = layout.mode == "thread"
        options: dict[str, Any] = {"memory_limit": 0, "worker_class": LoopbackWorker} if in_process else {
            "memory_limit": layout.memory_limit, "worker_class": WatchedNanny, "deaths": self.deaths, "ended": self.ended,
            "preload": ["admf_dask.runtime.preload"], "env": {**os.environ, **inner_thread_variables()},
        }  # fmt: skip
        routes = [route for route in dask.config.get(_ROUTES) if route != _PROXY]
        with dask.config.set({**_CONFIG, _ROUTES: routes}):
            super().__init__(
                name=None,
                n_workers=layout.processes,
                threads_per_worker=layout.threads_per_process,
                processes=not in_process,
                host=None if in_process else LOOPBACK,
                security=security or Security(),
                dashboard_address=None,
                scheduler_kwargs={
                    "dashboard": False,
                    "dashboard_address": dashboard_address,
                    "allowed_failures": 0,
                    "local_directory": scratch,
                },
                silence_logs=logging.CRITICAL,
                local_directory=scratch,
                # How often it tells the scheduler again what cluster this is; nobody looks for ours.
                scheduler_sync_interval=60,
                **options,
            )

    async def _start(self) -> None:
        # Children inherit the signal mask of the thread that starts them: this event loop. Python runs signal handlers in
        # the main thread, which is not touched.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        await super()._start()
        scheduler = self.scheduler
        for name, timeout in (
            ("idle-timeout", scheduler.idle_timeout),
            ("no-workers-timeout", scheduler.no_workers_timeout),
        ):
            if timeout is None:
                scheduler.periodic_callbacks[name].callback_time = 1_000 * IDLE_SECONDS
        scheduler.add_plugin(PromptStreams())
        scheduler.add_plugin(self._graphs)
        scheduler.stream_handlers[POST] = self._on_post
        scheduler.handlers["heartbeat_worker"] = self._on_heartbeat
        await scheduler.listen("inproc://")

    def _on_post(self, worker: str, run: str, number: int, packed: bytes, goes_on_at: int | None) -> None:
        if (take := self.posts.get(run)) is not None:
            take(number, packed, goes_on_at)

    def _on_heartbeat(self, **facts: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.scheduler.heartbeat_worker(**facts)
        # A worker that is not known is told so, and nothing else.
        wanted = answer.get("heartbeat-interval", 0.0)
        return {**answer, "heartbeat-interval": max(HEARTBEAT_SECONDS, wanted)}

    def announce(self, name: str, job: bytes) -> None:
        """Make a run's job known, on the event loop: to each worker before any task that is sent to it from now on.

        `Client.register_plugin` has every worker confirm it first, which takes longer than many a chunk.
        """
        self.scheduler.worker_plugins[name] = job
        for stream in self.scheduler.stream_comms.values():
            # The scheduler hears of a death a moment later; who comes instead gets the job as it joins.
            with suppress(CommClosedError):
                stream.send({"op": ANNOUNCE, "name": name, "plugin": job})

    async def retract(self, name: str) -> None:
        """Take a run's job away, on the event loop; done when each worker that can be reached has forgotten it.

        `Client.unregister_worker_plugin` waits for none of them once one is found dead, and asyncio complains of the next.
        """
        self.scheduler.worker_plugins.pop(name, None)
        await self.scheduler.broadcast(msg={"op": "plugin-remove", "name": name}, on_error="ignore")

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # Leaves out SpecCluster's rule that drops a worker which is away for 15 seconds; its nanny brings it back.
        Cluster._update_worker_status(self, op, msg)

    def kill_busy(self) -> None:
        """End at once the worker processes that still evaluate something, or are starting.

        A graceful end would wait for the first for seconds, and the second would print a traceback.
        """
        if self.status.name == "running":
            self.sync(self._kill_busy)

    async def _kill_busy(self) -> None:
        for nanny in self.workers.values():
            pid = nanny.pid if isinstance(nanny, WatchedNanny) else None
            starting = pid is not None and nanny.process.status.name == "starting"
            if pid is not None and (starting or is_busy(self._scratch, pid)):
                # So told, the nanny does not start another process.
                nanny.close_gracefully(reason="the session closes")
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """The worker processes that there are now."""
        return [nanny.pid for nanny in self.workers.values() if isinstance(nanny, WatchedNanny) and nanny.pid]

    async def next_graph(self, patience: float) -> None:
        """On the event loop: wait until anybody submits something, a run is over (`stir`), or for `patience` seconds."""
        await self._graphs.next(patience)

    def stir(self) -> None:
        """On the event loop: who waits for the next graph need not wait any longer."""
        self._graphs.stir()

    def has_others(self, tasks: str) -> bool:
        """Whether the scheduler has tasks to do that are not those called so."""
        return any(
            group.name != tasks and any(group.states[state] for state in _UNFINISHED)
            for group in self.scheduler.task_groups.values()
        )

    def others_wait(self, tasks: str) -> bool:
        """Whether a task waits for a slot that is not one of those called so: on the scheduler, or behind another on a worker."""
        scheduler = self.scheduler
        return any(task.group.name != tasks for task in scheduler.queued) or any(
            len(worker.processing) > worker.nthreads for worker in scheduler.workers.values()
        )

    def why_died(self, pid: int) -> Death | None:
        """What the nannies saw of a dead worker process; None if they saw nothing yet."""
        return self.deaths.get(pid)


class Door:
    """A cluster as a `Client` of this process sees it: its scheduler reached from memory to memory, without a wire."""

    def __init__(self, cluster: OwnCluster) -> None:
        """`cluster` is running."""
        self._cluster = cluster
        self.scheduler_address = next(
            str(listener.contact_address)
            for listener in cluster.scheduler.listeners
            if listener.contact_address.startswith("inproc://")
        )

    def __getattr__(self, name: str) -> Any:
        """Everything else is the cluster's."""
        return getattr(self._cluster, name)


def free_address(wanted: str | None) -> str:
    """The address for the HTTP server: as asked or, for `auto`, loopback 8787; the next free port where that one is taken.

    None: any free port of loopback.
    """
    if wanted is None:
        return f"{LOOPBACK}:0"
    host, _, digits = (f"{LOOPBACK}:{FIRST_PORT}" if wanted == "auto" else wanted).rpartition(":")
    if not digits.isdigit() or not host or ":" in host:
        return wanted
    first = int(digits)
    for port in range(first, min(first + 100, 65536)) if first else ():
        if not _taken(host, port):
            if port != first:
                _say_taken(host, first, port, logging.INFO if wanted == "auto" else logging.WARNING)
            return f"{host}:{port}"
    return f"{host}:0"


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            # Whatever else is wrong with an address is for who opens it to say.
            return error.errno == errno.EADDRINUSE
    return False


@functools.cache
def _say_taken(host: str, wanted: int, port: int, level: int) -> None:
    """Once in a process."""
    logger.log(level, "port %d of %s is taken; the dashboard is on port %d", wanted, host, port)
