"""A scheduler and workers that somebody else started, as `dask scheduler` and `dask worker` do, with their own settings."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fault_work as work
import numpy as np
import pytest
import shared_work
from remote_cluster import remote

from admf_dask import ClusterLost, Journal, ParallelConfig, Session, TaskTimeout, WorkerDied
from admf_dask.events import BlockFinished, Event
from admf_dask.runtime import FailedItemsWarning

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def remote_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        remote(tmp_path_factory.mktemp("remote")) as cluster,
        Session(ParallelConfig(scheduler=cluster.address)) as session,
    ):
        session.client.wait_for_workers(2, timeout=30)
        yield cluster.address


def test_the_guilty_is_found_where_nobody_can_read_a_black_box(remote_address: str) -> None:
    with Session(ParallelConfig(scheduler=remote_address)) as session:
        assert session.layout.workers == 2
        with pytest.warns(FailedItemsWarning, match="2 of 12"):
            outcomes = session.map(work.act, [*range(5), "exit", *range(5), "raise"], progress=False)
    assert {o.item: type(o.error) for o in outcomes if not o.ok} == {"exit": WorkerDied, "raise": ValueError}
    assert [o.value for o in outcomes if o.ok] == [*range(5), *range(5)]


def test_a_worker_of_another_machine_ends_itself_for_what_never_ends(remote_address: str) -> None:
    with (
        Session(ParallelConfig(scheduler=remote_address)) as session,
        pytest.warns(FailedItemsWarning, match="2 of 8"),
    ):
        outcomes = session.map(work.act, [1, 2, "c loop", 3, 4, "python loop", 5, 6], timeout=0.5, progress=False)
    assert {type(o.error) for o in outcomes if not o.ok} == {TaskTimeout}
    assert [o.value for o in outcomes if o.ok] == [1, 2, 3, 4, 5, 6]


def test_a_nanny_that_is_killed_takes_its_worker_along_and_no_item(tmp_path: Path) -> None:
    class Killer:
        """An observer that ends one nanny process once something has finished."""

        def on_event(self, event: Event) -> None:
            if isinstance(event, BlockFinished) and nannies[0].poll() is None:
                nannies[0].kill()
                nannies[0].wait(30)

    with remote(tmp_path) as cluster, Session(ParallelConfig(scheduler=cluster.address)) as session:
        nannies = cluster.nannies
        session.client.wait_for_workers(2, timeout=30)
        outcomes = session.map(work.sleeps, [10] * 300, progress=Killer())
    assert outcomes.values() == [10] * 300
    assert nannies[0].poll() is not None


def test_a_lost_cluster_is_one_error_with_everything_finished_in_hand_and_on_disk(tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    class Killer:
        """An observer that ends the scheduler once something has finished."""

        finished = 0

        def on_event(self, event: Event) -> None:
            if isinstance(event, BlockFinished):
                self.finished += len(event.block.indices)
                if self.finished > 10:
                    scheduler.kill()

    with remote(tmp_path) as cluster, Session(ParallelConfig(scheduler=cluster.address)) as session:
        scheduler = cluster.scheduler
        killer = Killer()
        with pytest.raises(ClusterLost, match="the cluster was lost during the run") as caught:
            session.map(work.sleeps, [20] * 2_000, journal=journal, progress=killer)
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert (len(partial), partial.total) == (killer.finished, 2_000)
    assert all(outcome.ok for outcome in partial)
    assert Journal(journal).status().done == killer.finished
    assert Journal(journal).status().state == "failed"


OWN_SHM = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh"]
"""Runs a command that does not see this machine's `/dev/shm`, as on another machine."""


def arrived() -> list[Path]:
    return sorted(Path(tempfile.gettempdir()).glob("admf-dask-shared-*-from-*/[0-9a-f]*"))


@pytest.mark.skipif(
    subprocess.run([*OWN_SHM, "true"], capture_output=True).returncode != 0, reason="may not make a mount namespace"
)
def test_shared_data_reaches_another_machine_once_and_leaves_it(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=5_000_000)  # 38 MiB: three pieces
    with remote(tmp_path, workers_under=OWN_SHM) as cluster:
        with Session(ParallelConfig(scheduler=cluster.address)) as session:
            session.client.wait_for_workers(2, timeout=30)
            handle = session.share(array)
            assert handle.path.startswith("/dev/shm")
            found = session.map(shared_work.read_all, range(20), data=handle, progress=False)
            assert found.values() == [float(array.sum())] * 20
            assert [path.name for path in arrived()] == [handle.key]
            written = arrived()[0].stat().st_mtime_ns
            # A second run finds it there; other data comes beside it, without being asked for.
            session.map(shared_work.read_all, range(20), data=array, progress=False)
            session.map(shared_work.read_all, range(20), data=array[:1_000_000], progress=False)
            assert arrived()[[path.name for path in arrived()].index(handle.key)].stat().st_mtime_ns == written
            assert len(arrived()) == 2
        assert arrived() == []
