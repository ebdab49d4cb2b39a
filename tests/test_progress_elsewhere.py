"""Counting from other processes, and counters on the page."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import cluster_work as work
import psutil
import pytest

from admf_dask import ParallelProgress, Session
from admf_dask.page.view import RunView
from admf_dask.progress import relay
from admf_dask.progress.parallel import RemoteProgress
from admf_dask.progress.relay import Link


def quiet(total: int | None, description: str = "counted") -> ParallelProgress:
    import io

    return ParallelProgress(total, description, stream=io.StringIO())


@pytest.mark.cluster
def test_tasks_in_other_processes_count_exactly(process_session: Session) -> None:
    with quiet(80) as progress:
        shown = process_session.map(work.counts, range(40), data=progress, progress=False).values()
        assert progress.statistics().completed == 80
        # The last of all is told that the line of the end was shown.
        assert sum(shown) == 1


@pytest.mark.cluster
def test_tasks_in_threads_count_on_the_original(thread_session: Session) -> None:
    with quiet(40) as progress:
        thread_session.map(lambda _: progress.update(), range(40), progress=False)
        assert progress.statistics().completed == 40


def test_a_pool_counts_too() -> None:
    with quiet(9) as progress, multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(work.counts_all, [(progress, 4), (progress, 5)]) == [4, 9]
        pool.close()
        pool.join()
    assert progress.statistics().completed == 9


def test_its_own_process_gets_the_original_back() -> None:
    progress = quiet(3)
    assert pickle.loads(pickle.dumps(progress)) is progress
    progress.__exit__(None, None, None)


def test_a_copy_does_all_that_the_original_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet(10) as progress:
        _, (_, _, way, total, description) = progress.__reduce__()
        copy = RemoteProgress(Link(*way), total, description)
        with copy as same:
            assert same.update(4) is False
            same.display()
            assert same.statistics().completed == 4
        assert copy.update(6) is True
        assert "10/10" in progress._stream.getvalue()  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="increment must be"):
            copy.update(-1)
        stranger = RemoteProgress(Link(way[0], b"x" * 32, way[2]), total, description)
        assert stranger.update() is False, "who does not know the token is not heard"
        afar = RemoteProgress(Link(way[0], way[1], "another-machine"), total, description)
        assert afar.update() is False
    assert copy.update() is False, "the original has ended"
    assert copy.statistics().completed == 0
    assert progress.statistics().completed == 10


def test_one_that_nobody_has_any_more_leaves_nothing_behind() -> None:
    progress = quiet(10)
    pickle.dumps(progress)
    way = progress._relay
    assert way is not None
    address, thread = way.address, way._thread
    del progress, way
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(OSError, match="refused"), socket.create_connection(address, timeout=5):
        pass


def test_a_process_stays_connected_to_the_latest_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_links", {})
    before = psutil.Process().num_fds()
    for _ in range(3 * relay.MOST_LINKS):
        with quiet(2) as progress:
            way = progress.__reduce__()[1][2]
            assert relay.link_to(*way) is relay.link_to(*way)
            assert RemoteProgress(relay.link_to(*way), 2, "counted").update() is False
    wait_until(lambda: psutil.Process().num_fds() - before <= relay.MOST_LINKS)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_fork_does_not_count_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = quiet(3)
    monkeypatch.setattr(progress, "_pid", -1)
    with pytest.raises(RuntimeError, match="as an argument"):
        progress.update()


# -- on the page -------------------------------------------------------------------------------------------------------


def runs_of(session: Session) -> dict[str, RunView]:
    plugin = session.client.cluster.scheduler.plugins["admf-dask-runs"]
    return {view.last.name: view for view in plugin.runs.values()}


def wait_until(true: Callable[[], Any]) -> None:
    """The feed sends on a loop of its own; nothing here is told when it has."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.05)


@pytest.mark.cluster
def test_a_counter_is_a_run_on_the_page() -> None:
    with Session(mode="thread", workers=2, dashboard="127.0.0.1:0") as session:
        assert session.dashboard_link
        with quiet(100, "loading") as progress:
            progress.update(40)
            wait_until(lambda: (view := runs_of(session).get("loading")) is not None and view.last.done == 40)
            assert runs_of(session)["loading"].state == "running"
            with quiet(None, "streaming") as endless:
                endless.update(7)
                progress.update(60)
                wait_until(lambda: runs_of(session)["loading"].state == "finished")
            wait_until(lambda: (view := runs_of(session).get("streaming")) is not None and view.state == "finished")
            assert runs_of(session)["streaming"].last.open_ended
        lost = quiet(5, "forgotten")
        lost.update()
        wait_until(lambda: "forgotten" in runs_of(session))
        del lost
        wait_until(lambda: runs_of(session)["forgotten"].state == "interrupted")
        view = runs_of(session)["loading"]
        assert (view.last.kind, view.last.done, view.last.total) == ("count", 100, 100)
    assert quiet(1).update() is True, "closed sessions watch no more"


# -- lines -------------------------------------------------------------------------------------------------------------


def test_lines_go_through_logging_where_it_listens(caplog: pytest.LogCaptureFixture, inline_session: Session) -> None:
    import io

    from admf_dask.progress import LogProgress

    stream = io.StringIO()
    with caplog.at_level("INFO", logger="admf_dask.progress"):
        inline_session.map(abs, range(3), progress=LogProgress(stream), name="told")
    assert caplog.messages[-1].startswith("told: 3/3 (100 %)")
    assert stream.getvalue() == ""
    inline_session.map(abs, range(3), progress=LogProgress(stream), name="written")
    assert "written: 3/3 (100 %)" in stream.getvalue()
