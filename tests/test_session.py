"""Sessions on real clusters: what they start, what they give, what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from concurrent.futures import Future
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cluster_work as work
import dask
import numpy as np
import pandas as pd
import psutil
import pytest
from bokeh.client import pull_session
from distributed import Client, LocalCluster, Security
from distributed.batched import BatchedSend
from distributed.comm import CommClosedError

from admf_dask import (
    ClusterLost,
    ConfigError,
    Outcome,
    ParallelConfig,
    ResourceError,
    SchedulerUnreachable,
    Session,
    SessionClosed,
    SessionError,
    TaskError,
)
from admf_dask.events import Notice, RunStarted
from admf_dask.outcomes import error_words
from admf_dask.progress.digest import Digest
from admf_dask.runtime import FailedItemsWarning, environment, forkserver
from admf_dask.runtime.accounts import PrivateMemoryManager, pause_before_next_look, private_memory
from admf_dask.runtime.cluster import OwnCluster
from admf_dask.runtime.evaluate import MapEvaluator
from admf_dask.runtime.executors import ClusterExecutor, total_threads
from admf_dask.runtime.farewells import Farewells
from admf_dask.runtime.feed import RunFeed
from admf_dask.runtime.job import ANNOUNCE, LARGEST_POSTED, Job, plugin_name
from admf_dask.runtime.links import PAGE
from admf_dask.runtime.replies import Death, Reply

HERE = Path(__file__).parent
RUN = "0123456789abcdef" * 2


def run_script(body: str, tmp_path: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True, text=True, timeout=90, env=environment, cwd=tmp_path, **options,
    )  # fmt: skip


def test_outcomes_are_in_item_order_and_say_who_did_them(any_session: Session) -> None:
    outcomes = any_session.map(work.square, range(100), progress=False)
    assert outcomes.values() == [x * x for x in range(100)]
    assert [outcome.index for outcome in outcomes] == list(range(100))
    first = outcomes[0]
    assert isinstance(first, Outcome)
    assert first.ok
    assert first.worker.startswith("pid ")
    assert first.seconds >= 0
    assert first.attempts == 1


def test_a_failing_item_is_a_row_with_its_traceback_and_the_rest_finish(any_session: Session) -> None:
    with pytest.warns(FailedItemsWarning, match=r"1 of 10 items failed \(first: 3: ValueError: not enough bars\)"):
        outcomes = any_session.map(work.fails_at_three, range(10), progress=False)
    assert [outcome.value for outcome in outcomes if outcome.ok] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    failed = outcomes[3]
    assert isinstance(failed.error, ValueError)
    assert failed.item == 3
    assert 'raise ValueError("not enough bars")' in (failed.traceback or "")
    assert "evaluate.py" not in (failed.traceback or ""), "frames of ours are noise"
    assert outcomes.failures.loc[3, "error_type"] == "ValueError"
    with pytest.raises(ValueError, match="not enough bars"):
        outcomes.values()


def test_all_items_failed_is_an_error(any_session: Session) -> None:
    with pytest.raises(TaskError, match=r"all 2 items failed \(first: 3: ValueError"):
        any_session.map(work.fails_at_three, [3, 3], progress=False)


def test_data_goes_along_as_the_second_argument(any_session: Session) -> None:
    assert any_session.map(work.with_data, [2, 0], data=[10.0, 11.0, 12.0], progress=False).values() == [12.0, 10.0]


def test_lambdas_closures_and_generators_travel(any_session: Session) -> None:
    offset = 5
    assert any_session.map(lambda x: x + offset, (x for x in range(4)), progress=False).values() == [5, 6, 7, 8]


def test_nothing_to_do_is_an_empty_result(any_session: Session) -> None:
    assert len(any_session.map(work.square, [], progress=False)) == 0


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unpicklable error", "Unpicklable"),
        ("unpicklable result", "TaskError"),
        ("system exit", "SystemExit"),
        ("recursion", "RecursionError"),
        ("no str", "NoStr"),
    ],
)
def test_whatever_an_item_does_it_is_that_items_failure(any_session: Session, kind: str, error: str) -> None:
    with pytest.warns(FailedItemsWarning):
        outcomes = any_session.map(work.misbehaves, ["fine", kind, "good"], progress=False)
    assert [outcome.value for outcome in outcomes] == ["fine", None, "good"]
    assert error in error_words(outcomes[1].error)


def test_as_completed_yields_every_item_once_and_may_be_left_early(any_session: Session) -> None:
    assert sorted(outcome.value for outcome in any_session.as_completed(work.square, range(50))) == [
        x * x for x in range(50)
    ]
    for outcome in any_session.as_completed(work.square, range(10_000)):
        assert outcome.ok
        break
    assert any_session.map(work.square, [3], progress=False).values() == [9]


def test_two_threads_may_use_one_session(any_session: Session) -> None:
    found: dict[int, list[int]] = {}

    def use(offset: int) -> None:
        found[offset] = any_session.map(work.square, range(offset, offset + 200), progress=False).values()

    threads = [threading.Thread(target=use, args=(offset,)) for offset in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {offset: [x * x for x in range(offset, offset + 200)] for offset in (0, 1000)}


@pytest.mark.cluster
@pytest.mark.parametrize(("how", "words"), [("segfault", "SIGSEGV"), ("exit", "exit code 3"), ("kill", "SIGKILL")])
def test_an_item_that_kills_its_process_is_found_and_its_neighbours_are_not_blamed(
    process_session: Session, how: str, words: str
) -> None:
    items = ["fine"] * 60
    items[17] = how
    with pytest.warns(FailedItemsWarning, match="1 of 60"):
        outcomes = process_session.map(work.kills_its_process, items, progress=False)
    assert [outcome.index for outcome in outcomes if not outcome.ok] == [17]
    assert words in str(outcomes[17].error)
    assert outcomes[17].attempts == 2


@pytest.mark.cluster
def test_inner_thread_pools_keep_to_the_slots_and_the_environment_stays_clean(process_session: Session) -> None:
    assert "OMP_NUM_THREADS" not in os.environ
    for found in process_session.map(work.inner_threads, range(2), progress=False).values():
        assert set(found["pools"]) <= {1}
        assert found["OMP_NUM_THREADS"] == "1"
        assert found["pid"] != os.getpid()


def test_thread_mode_bounds_inner_pools_and_restores_them() -> None:
    import threadpoolctl

    before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    with Session(mode="thread", workers=2, dashboard=None) as session:
        (found,) = session.map(work.inner_threads, [0], progress=False).values()
        assert set(found["pools"]) <= {1}
        assert found["pid"] == os.getpid()
    assert [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] == before


@pytest.mark.cluster
def test_only_loopback_listens_and_strangers_are_kept_out(process_session: Session) -> None:
    mine = psutil.Process()
    listening = [
        connection.laddr
        for process in [mine, *mine.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert process_session.client.scheduler.address.startswith("tls://")
    assert process_session.client.security.require_encryption


def test_thread_mode_listens_on_loopback_only(thread_session: Session) -> None:
    addresses = {c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert addresses <= {"127.0.0.1"}


def test_the_session_is_not_the_default_client(any_session: Session) -> None:
    from distributed import default_client

    with pytest.raises(ValueError, match="No clients found"):
        default_client()


@pytest.mark.cluster
def test_the_dashboard_opens_under_the_link() -> None:
    with Session(mode="thread", workers=1) as session:
        assert session.dashboard_link is not None
        with urllib.request.urlopen(session.dashboard_link, timeout=20) as page:
            assert "Dask" in page.read().decode()
        assert _paces_of_pages(session) == [(2_000, 5_000)] * 2
        # A tab that is closed is forgotten; the stock 15 seconds after that would be long in here.
        pages = [page for page in _pages(session) if f"/{PAGE}" in page.app_paths]
        tab = pull_session(url=session.dashboard_link)
        assert [len(page.get_sessions(f"/{PAGE}")) for page in pages] == [2], "and what was read above"
        pages[0]._unused_session_lifetime_milliseconds = 1
        tab.close()
        deadline = time.monotonic() + 30
        while pages[0].get_sessions(f"/{PAGE}"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _pages(session: Session) -> list[Any]:
    """The stock ones and ours."""
    assert isinstance(session._cluster, OwnCluster)
    return [one for one in session._cluster.scheduler.http_application.applications if hasattr(one, "app_paths")]


def _paces_of_pages(session: Session) -> list[tuple[float, float]]:
    """Milliseconds between two looks for readers who left, and two greetings."""
    jobs = [(page._cleanup_job, page._ping_job) for page in _pages(session)]
    assert all(job.is_running() for both in jobs for job in both)
    return [(cleanup.callback_time, ping.callback_time) for cleanup, ping in jobs]


@pytest.mark.cluster
def test_a_pace_of_the_pages_that_is_asked_for_is_kept() -> None:
    with (
        dask.config.set({"distributed.scheduler.dashboard.bokeh-application.keep_alive_milliseconds": 700}),
        Session(mode="thread", workers=1) as session,
    ):
        assert session.dashboard_link is not None
        assert _paces_of_pages(session) == [(2_000, 700)] * 2


def test_a_client_of_the_users_is_used_and_left_open(thread_session: Session) -> None:
    client = thread_session.client
    with Session(client=client) as session:
        assert session.map(work.square, [1, 2, 3], progress=False).values() == [1, 4, 9]
        assert session.layout.workers == 2
    assert client.status == "running"


def test_a_running_scheduler_is_used_by_its_address(thread_session: Session, tmp_path: Path) -> None:
    from distributed import LocalCluster

    from admf_dask.runtime.cluster import LoopbackWorker

    options: dict[str, Any] = {
        "processes": False,
        "protocol": "tcp",
        "dashboard_address": None,
        "worker_class": LoopbackWorker,
    }
    options["local_directory"] = str(tmp_path)
    quiet = {
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0", "local_directory": str(tmp_path)},
        "silence_logs": 50,
    }
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, **options, **quiet) as cluster,
        Session(ParallelConfig(scheduler=cluster.scheduler_address)) as session,
    ):
        assert session.map(work.square, range(5), progress=False).values() == [0, 1, 4, 9, 16]


def test_nobody_at_the_address_is_said_clearly() -> None:
    with pytest.raises(SchedulerUnreachable, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        Session(ParallelConfig(scheduler="tcp://127.0.0.1:9")).open()


@pytest.mark.parametrize(
    "security", [{"ca_file": "ca.pem", "cert": "a.crt", "key": "a.key"}, Security(require_encryption=True)]
)
def test_certificates_are_not_left_out_in_silence_where_the_address_has_no_use_for_them(security: Any) -> None:
    with pytest.raises(ConfigError, match=r"speaks TLS, but scheduler='\S+9' does not; .* or leave security= out"):
        Session(ParallelConfig(scheduler="tcp://127.0.0.1:9"), security=security).open()


def test_a_scheduler_without_workers_is_said_clearly(tmp_path: Path) -> None:
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(
            SessionError, match=r"none has joined .* in 0\.1 seconds; start one with `dask worker inproc:"
        ):
            total_threads(client, patience=0.1)
        cluster.scale(1)
        assert total_threads(client) == sum(client.nthreads().values())


def test_a_scheduler_that_goes_away_before_a_worker_comes_is_said_clearly(tmp_path: Path) -> None:
    with dask.config.set({"temporary-directory": str(tmp_path), "distributed.comm.timeouts.connect": "200ms"}):
        with LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster:
            client = Client(cluster.scheduler_address, set_as_default=False)
        with client, pytest.raises(SchedulerUnreachable, match=r"at tcp://\S+ went away .* open a new session"):
            total_threads(client)


def test_a_session_whose_scheduler_went_away_still_answers(tmp_path: Path) -> None:
    with dask.config.set({"temporary-directory": str(tmp_path), "distributed.comm.timeouts.connect": "200ms"}):
        with LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster:
            session = Session(ParallelConfig(scheduler=cluster.scheduler_address)).open()
            shared = session.shared_dict("best")
        with contextlib.closing(session):
            with pytest.raises(SessionError, match=r"shared_dict\('best'\)"):
                shared["a"] = 1
            with pytest.raises(SessionError, match=r"shared_dict\('other'\) lives on the scheduler, which went away"):
                session.shared_dict("other")
            assert session.layout.workers == 1


def test_what_finished_before_a_run_broke_is_in_hand_first() -> None:
    executor = ClusterExecutor(client=None, slots=2)
    done, later = Reply((0, 1)), Reply((1, 2))
    for reply in (done, ClusterLost("gone"), later):
        executor._replies.put(reply)
    assert executor.wait() == [done]
    assert executor.wait() == [later]
    with pytest.raises(ClusterLost, match="gone"):
        executor.wait()


def test_ctrl_c_while_a_session_closes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(mode="thread", workers=1, dashboard=None).open()
    shared = session.share(np.arange(1000))
    monkeypatch.setattr(session._cluster, "kill_busy", work.interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.close()
    assert not Path(shared.path).parent.exists()
    assert session.state == "closed"


def test_a_session_remembers_of_its_runs_only_those_under_way(thread_session: Session) -> None:
    for _ in range(3):
        thread_session.map(abs, [1], progress=False)
    farewells = thread_session._farewells
    farewells.wait(10)
    assert not farewells._futures


def test_a_run_is_not_gathered_for_a_scheduler_without_the_page(thread_session: Session) -> None:
    ready: Future[bool] = Future()
    digest, farewells = Digest([1, 2]), Farewells()
    feed = RunFeed(thread_session._client, digest, ready, farewells)
    feed.on_event(RunStarted("0" * 32, "map", "abs", 2, 1, None, True, 100.0))
    ready.set_result(False)
    feed.wake(last=True)
    farewells.wait(10)
    feed.on_event(Notice("0" * 32, "nobody hears this", 101.0))
    update = digest.update()
    assert update is not None
    assert update.notices == ()


def test_each_misuse_has_its_words() -> None:
    session = Session(ParallelConfig(enabled=False))
    with pytest.raises(SessionClosed, match="not open yet"):
        session.map(work.square, [1])
    with session:
        with pytest.raises(SessionError, match="is open already"):
            session.open()
        with pytest.raises(SessionError, match="has no client"):
            _ = session.client
        with pytest.raises(TypeError, match="expected a function, but got 4"):
            session.map(work.square(2), [1])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="items must be a sequence"):
            session.map(work.square, "abc")
    with pytest.raises(SessionClosed, match="the session is closed"):
        session.map(work.square, [1])
    with pytest.raises(SessionError, match="was closed"):
        session.open()


def test_a_function_that_cannot_travel_is_named(process_session: Session) -> None:
    lock = threading.Lock()
    with pytest.raises(TaskError, match="the function must survive pickling"):
        process_session.map(lambda x: lock, [1], progress=False)


@pytest.mark.cluster
def test_inside_a_task_it_runs_inline(process_session: Session) -> None:
    assert process_session.map(work.nested_map, [3], progress=False).values() == [[0, 1, 4]]


@pytest.mark.cluster
def test_an_unguarded_script_gets_one_clear_message(tmp_path: Path) -> None:
    done = run_script(
        """
        from admf_dask import Session
        with Session(mode="process", workers=2) as session:
            print(session.map(abs, [1]))
        """,
        tmp_path,
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "script.py, line 3" in done.stderr


@pytest.mark.parametrize("given", [4, "process", {"mode": "thread"}])
def test_what_is_no_config_is_answered_with_what_to_write(given: Any) -> None:
    with pytest.raises(SessionError, match=r"config must be a ParallelConfig, but is .*; write Session\(workers=4\)"):
        Session(given)


@pytest.mark.cluster
def test_a_traceback_from_a_worker_names_the_script_and_its_line(tmp_path: Path) -> None:
    done = run_script(
        """
        from admf_dask import Session
        def fragile(x):
            return x or 1 / x
        def main():
            with Session(mode="process", workers=1) as session:
                print(list(session.as_completed(fragile, [0], progress=False))[0].traceback)
        if __name__ == "__main__":
            main()
        """,
        tmp_path,
    )
    assert f'File "{tmp_path / "script.py"}", line 4, in fragile\n    return x or 1 / x' in done.stdout


@pytest.mark.cluster
def test_a_program_from_standard_input_gets_one_clear_message(tmp_path: Path) -> None:
    program = 'from admf_dask import Session\nSession(mode="process", workers=1).open()'
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "the program was read from standard input" in done.stderr
    assert "write it to a file, or use `python -c`" in done.stderr


@pytest.mark.cluster
def test_a_guarded_script_starts_and_ends_without_a_word(tmp_path: Path) -> None:
    done = run_script(
        """
        from admf_dask import Session
        def main():
            with Session(mode="process", workers=2) as session:
                print(session.map(abs, [-1, 2], progress=False).values())
        if __name__ == "__main__":
            main()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 2]\n", "")


@pytest.mark.cluster
def test_a_session_that_closes_while_a_worker_is_starting_says_nothing(tmp_path: Path) -> None:
    """The replacement of a worker that was killed; so that it is not up before the session closes, it stays as it starts."""
    (tmp_path / "stays.py").write_text(
        textwrap.dedent("""
        import time
        from pathlib import Path
        def dask_setup(worker):
            Path("begun").touch()
            time.sleep(600)
        """)
    )
    body = """
    import os
    import signal
    import cluster_work
    from admf_dask import Session
    def main():
        with Session(mode="process", workers=1, dashboard=None) as session:
            (nanny,) = session.client.cluster.workers.values()
            nanny.process.worker_kwargs["preload"] += ["stays.py"]
            os.kill(nanny.pid, signal.SIGKILL)
            cluster_work.wait_for_file("begun")
            print(nanny.process.status.name, flush=True)
    if __name__ == "__main__":
        main()
    """
    done = run_script(body, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "starting\n", "")


def test_a_job_is_told_to_all_but_the_worker_that_just_died() -> None:
    told: list[Any] = []
    scheduler = SimpleNamespace(worker_plugins={}, stream_comms={})

    async def announce() -> None:
        gone, there = BatchedSend(interval=0.0), SimpleNamespace(send=told.append)
        gone.comm = SimpleNamespace(closed=lambda: True)
        scheduler.stream_comms = {"gone": gone, "there": there}
        OwnCluster.announce(SimpleNamespace(scheduler=scheduler), "name", b"job")

    asyncio.run(announce())
    assert told == [{"op": ANNOUNCE, "name": "name", "plugin": b"job"}]
    assert scheduler.worker_plugins == {"name": b"job"}


@pytest.mark.cluster
def test_a_job_is_taken_away_from_the_others_when_a_worker_just_died(
    process_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, name = process_session._cluster, plugin_name(RUN)
    assert cluster is not None
    gone, *others = cluster.scheduler.workers
    connect = cluster.scheduler.rpc.connect

    async def reach(address: str) -> Any:
        if address == gone:
            raise CommClosedError(address)
        await released.wait()
        return await connect(address)

    async def retract() -> bool:
        cluster.announce(name, pickle.dumps(Job(RUN, b"", None)))
        retracting = asyncio.ensure_future(cluster.retract(name))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        early = retracting.done()
        released.set()
        await retracting
        return early

    released = asyncio.Event()
    monkeypatch.setattr(cluster.scheduler.rpc, "connect", reach)
    assert process_session.client.sync(retract) is False
    assert name not in cluster.scheduler.worker_plugins
    monkeypatch.undo()
    left = process_session.client.run(lambda dask_worker: name in dask_worker.plugins, workers=others)
    assert set(left.values()) == {False}


@pytest.mark.cluster
def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(process_session: Session) -> None:
    cluster = process_session._cluster
    assert isinstance(cluster, OwnCluster)
    before = set(cluster.pids())
    taken = [pid for pid in range(2, max(before) + 100_000) if pid not in before]
    cluster.deaths.update(dict.fromkeys(taken, Death()))
    cluster.ended.update(dict.fromkeys(taken, RUN))
    os.kill(min(before), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not (fresh := set(cluster.pids()) - before) or len(process_session.client.nthreads()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (pid,) = fresh
    assert cluster.why_died(min(before)) is not None
    assert (cluster.why_died(pid), pid in cluster.ended) == (None, False)
    for number in taken:
        cluster.deaths.pop(number, None)
        cluster.ended.pop(number, None)


@pytest.mark.cluster
def test_workers_tell_of_themselves_once_a_second(process_session: Session) -> None:
    async def beat(dask_worker: Any) -> float:
        await dask_worker.heartbeat()
        return float(dask_worker.periodic_callbacks["heartbeat"].callback_time)

    intervals = process_session.client.run(beat)
    assert list(intervals.values()) == [1000.0] * 2
    cluster = process_session._cluster
    assert isinstance(cluster, OwnCluster)

    async def of_nobody() -> dict[str, Any]:
        return cluster._on_heartbeat(address="tls://127.0.0.1:9", metrics={})

    assert cluster.sync(of_nobody)["status"] == "missing"


@pytest.mark.cluster
def test_nothing_wakes_this_process_five_times_a_second_and_no_nanny_looks_at_it_too(process_session: Session) -> None:
    cluster = process_session._cluster
    assert isinstance(cluster, OwnCluster)
    looks = {name: pc.callback_time for name, pc in cluster.scheduler.periodic_callbacks.items()}
    assert min(looks.values()) >= 1_000, looks
    assert looks["idle-timeout"] == looks["no-workers-timeout"] == 5_000
    for nanny in cluster.workers.values():
        assert set(nanny.periodic_callbacks) == {"memory_monitor"}
        assert nanny.periodic_callbacks["memory_monitor"].is_running()

    def of_worker(dask_worker: Any) -> float:
        return float(dask_worker.periodic_callbacks["memory_monitor"].callback_time)

    assert set(process_session.client.run(of_worker).values()) == {1_000.0}


@pytest.mark.cluster
def test_timeouts_that_are_asked_for_are_looked_for_as_often_as_dask_does() -> None:
    names = ("idle-timeout", "no-workers-timeout")
    with (
        dask.config.set({f"distributed.scheduler.{name}": "1 hour" for name in names}),
        Session(ParallelConfig(mode="thread", max_workers=1, dashboard=None)) as session,
    ):
        assert isinstance(session._cluster, OwnCluster)
        looks = session._cluster.scheduler.periodic_callbacks
        assert [looks[name].callback_time for name in names] == [250, 250]


@pytest.mark.parametrize(
    ("room", "threads", "pause"),
    [(2**40, 1, 1.0), (2 * 2**30, 1, 0.5), (2 * 2**30, 2, 0.25), (2**20, 1, 0.2), (0, 4, 0.2)],
)
def test_a_process_is_looked_at_before_it_can_have_outgrown_its_limit(room: int, threads: int, pause: float) -> None:
    assert pause_before_next_look(room, threads) == pause


def test_a_nanny_looks_at_its_process_more_often_the_nearer_that_is_to_its_limit() -> None:
    process = SimpleNamespace(pid=os.getpid())
    held = private_memory(os.getpid())
    nanny: Any = SimpleNamespace(
        nthreads=1, periodic_callbacks={}, status=SimpleNamespace(name="running"),
        process=SimpleNamespace(process=process),
    )  # fmt: skip
    with dask.config.set(
        {"distributed.worker.memory.terminate": 1.0, "distributed.worker.memory.monitor-interval": "1s"}
    ):
        manager = PrivateMemoryManager(nanny, memory_limit=2**30)
    looks = nanny.periodic_callbacks["memory_monitor"]
    assert looks.callback_time == 200, "of a first process nothing is known either"
    for limit, pause in ((held + 100 * 2**30, 1_000), (held + 2**31, 500), (held + 2**25, 200)):
        manager.memory_limit = limit
        manager.memory_monitor(nanny)
        assert looks.callback_time == pytest.approx(pause, rel=0.05)
    manager.memory_limit = held + 100 * 2**30
    manager.memory_monitor(nanny)
    nanny.status.name = "init"
    manager.memory_monitor(nanny)
    assert looks.callback_time == 200, "of the next process nothing is known"


@pytest.mark.cluster
def test_what_a_run_holds_does_not_grow_with_its_chunks(process_session: Session) -> None:
    executor, answered = process_session._executor(), 0
    assert isinstance(executor, ClusterExecutor)
    executor.start(RUN, "map", MapEvaluator(work.square, range(50)))
    for number in range(50):
        executor.submit([(number, number + 1)], 1.0)
    while answered < 50:
        answered += len(executor.wait())
    executor.stop()
    process_session._farewells.wait(30)
    values = {one.name: getattr(executor, one.name) for one in fields(executor)}
    assert not [name for name, value in values.items() if isinstance(value, dict | set | list) and len(value) > 25]


@pytest.mark.cluster
def test_a_job_that_is_taken_away_before_it_reached_a_worker_does_not_stay_there(process_session: Session) -> None:
    """The one comes on a stream and the other by a call: a worker whose interpreter is held has both before it."""
    name = plugin_name(RUN)
    told = process_session.client.run(work.job_overtaken, name, pickle.dumps(Job(RUN, b"", None)))
    assert list(told.values()) == [[True, False]] * 2


@pytest.mark.cluster
def test_worker_processes_have_a_common_origin_and_chance_of_their_own(process_session: Session) -> None:
    drawn = process_session.client.run(lambda: (os.getppid(), np.random.random()))
    parents, numbers = ({pair[place] for pair in drawn.values()} for place in (0, 1))
    assert parents == ({forkserver.server_pid()} if forkserver.METHOD == "forkserver" else {os.getpid()})
    assert len(numbers) == len(drawn) == 2


@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="set for glibc")
def test_memory_that_was_let_go_leaves_a_worker_process(process_session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame(np.random.default_rng(1).normal(size=(500_000, 5)), columns=list("abcde")).to_parquet(path)
    ((size, kept),) = process_session.map(work.kept_of, [str(path)], progress=False).values()
    assert size > 19
    assert kept < size / 2


def test_arrow_keeps_the_allocator_that_its_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.of_processes()["ARROW_DEFAULT_MEMORY_POOL"] == "system"
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    assert environment.of_processes()["ARROW_DEFAULT_MEMORY_POOL"] == "jemalloc"


@pytest.mark.cluster
def test_an_answer_too_large_to_be_posted_is_fetched(process_session: Session) -> None:
    values = process_session.map(bytes, [LARGEST_POSTED + 1, 3], progress=False).values()
    assert [len(value) for value in values] == [LARGEST_POSTED + 1, 3]


def test_the_machine_is_looked_at_before_anything_is_started_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def plan(self: Session) -> None:
        done.append("plan")
        raise ResourceError("enough seen")

    monkeypatch.setattr(Session, "_plan", plan)
    monkeypatch.setattr("admf_dask.runtime.session.prepare_processes", lambda: done.append("prepare"))
    with pytest.raises(ResourceError, match="enough seen"):
        Session(mode="process", dashboard=None).open()
    assert done == ["plan"]


@pytest.mark.cluster
@pytest.mark.parametrize("made_before", [False, True])
@pytest.mark.parametrize("length", [59, 60, 71, 72, 100])
def test_a_temporary_folder_may_have_any_length(tmp_path: Path, length: int, made_before: bool) -> None:
    """A socket's path has 107 bytes; multiprocessing may have made its folder before."""
    home = tempfile.mkdtemp(dir="/tmp")
    folder = Path(home, "x" * (length - len(home) - 1))
    folder.mkdir()
    code = """
    import socket, sys
    from multiprocessing import connection, util
    from admf_dask.runtime.forkserver import _choose_folder
    if sys.argv[1:] == ["made"]:
        util.get_temp_dir()
    _choose_folder()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(connection.arbitrary_address("AF_UNIX"))
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    try:
        done = subprocess.run(
            [sys.executable, str(script), *(["made"] if made_before else [])], capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), "TMPDIR": str(folder)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert not list(folder.iterdir()), "it is gone with its process"
    finally:
        shutil.rmtree(home)


SLEEPER = """
import os, sys, time
import cluster_work
import psutil
from admf_dask import Session
def main():
    with Session(mode="process", workers=2, dashboard=None) as session:
        children = psutil.Process().children(recursive=True)
        open(os.path.join(sys.argv[1], "children"), "w").write(" ".join(str(c.pid) for c in children))
        try:
            session.map(getattr(cluster_work, sys.argv[2]), [1, 2], data=sys.argv[1], progress=False)
        except KeyboardInterrupt as stop:
            print("interrupted", type(stop.partial).__name__, flush=True)
            raise SystemExit(130)
if __name__ == "__main__":
    main()
"""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("sign", "items"),
    [
        *((sign, "begin_and_wait") for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)),
        # No thread of a worker can see there that the driver is gone: the system has to end it.
        (signal.SIGKILL, "begin_and_hold_the_interpreter"),
    ],
)
def test_no_process_outlives_the_driver(tmp_path: Path, sign: signal.Signals, items: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), items],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as driver:
        listed = tmp_path / "children"
        work.wait_for_file(str(listed))
        while not (text := listed.read_text()):
            pass
        children = [psutil.Process(int(pid)) for pid in text.split()]
        work.wait_for_file(str(tmp_path / "begun-2"))
        driver.send_signal(sign)
        # Before its last words are read: they end when the last that can write there is gone.
        _, alive = psutil.wait_procs(children, timeout=30)
        for child in alive:
            child.kill()
        out, err = driver.communicate(timeout=60)
    assert not alive
    if sign is signal.SIGINT:
        assert driver.returncode == 130
        assert "interrupted Outcomes" in out
        assert err == ""


def test_messages_of_a_session_do_not_wait_for_company(process_session: Any) -> None:
    process_session.map(abs, range(4), progress=False)
    scheduler = process_session._cluster.scheduler
    assert {stream.interval for stream in scheduler.stream_comms.values()} == {0.0}
    assert process_session._client.scheduler_comm.interval == 0.0
    told = process_session.client.run(lambda dask_worker: dask_worker.batched_stream.interval)
    assert set(told.values()) == {0.0}


def test_the_temporary_certificate_is_its_owners_and_goes_with_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a key in another folder stays there if the process is killed now")

    monkeypatch.setattr("distributed.security.tempfile.TemporaryDirectory", elsewhere)
    with Session(mode="process", workers=1, dashboard=None) as session:
        assert session.map(abs, [-1], progress=False).values() == [1]
        secret = Path(session._cluster.security.tls_worker_key)
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert not secret.exists()
