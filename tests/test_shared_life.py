"""How long shared files last: room for new data, deaths, sessions that open at once, a memory file system that is small."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_work as work
from cluster_work import wait_for_file

from admf_dask import Journal, JournalError, Machine, ParallelConfig, Session, resources
from admf_dask.errors import SessionError
from admf_dask.journal import Call
from admf_dask.runtime.leases import new_folder, sweep
from admf_dask.runtime.shared import SharedStore
from admf_dask.runtime.shared import store as store_module
from admf_dask.runtime.shared.arrival import PREFIX
from admf_dask.runtime.shared.data import SharedData, describe
from admf_dask.runtime.shared.parcel import Parcel

MIB = 2**20


def array(seed: int, size: int = 3 * MIB) -> Any:
    return np.full(size // 8, float(seed))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedStore]:
    """Room for 8 MiB that nobody uses."""
    total = store_module.Machine.probe(interval=0).memory_total
    monkeypatch.setattr(store_module, "_MOST_IDLE", 8 * MIB / total)
    store = SharedStore()
    yield store
    store.close()


def of_run(store: SharedStore, seed: int, run: str) -> SharedData:
    value = array(seed)
    return store.put(Parcel.of(value), describe(value), run)


def is_there(handle: SharedData) -> bool:
    return Path(handle.path).exists()


# -- room ------------------------------------------------------------------------------------------------------------


def test_files_of_runs_that_are_over_go_when_new_data_want_the_room(store: SharedStore) -> None:
    first, second = of_run(store, 1, "a"), of_run(store, 2, "b")
    store.end("a")
    store.end("b")
    assert of_run(store, 1, "c") == first  # used last now
    store.end("c")
    third = of_run(store, 3, "d")
    assert [is_there(handle) for handle in (first, second, third)] == [True, False, True]
    assert store.take_dropped() == [second]
    assert store.take_dropped() == []
    with pytest.raises(SessionError, match="not on this machine"):
        second.value  # noqa: B018
    assert of_run(store, 2, "e").value[0] == 2.0


def test_a_file_that_somebody_cleaned_up_is_written_again(store: SharedStore) -> None:
    first = store.share(array(1))
    Path(first.path).unlink()
    again = store.share(array(1))
    assert again == first
    assert is_there(again)


def test_where_there_are_no_locks_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks"):
        new_folder(tmp_path, "of-a-test-")
    with pytest.raises(JournalError, match=r"cannot be used.*No locks"):
        Journal(tmp_path).begin(Call.of("map", "abs", abs, (), [1], total=1, settings={}), "0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.lock"]
    # Those of removed files too; how many there are of others in this process changes when it likes.
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [path for path in opened if path.startswith(f"{tmp_path}{os.sep}")]


def test_what_a_run_uses_and_what_the_user_shared_stays(store: SharedStore) -> None:
    kept = store.share(array(0))
    also_kept = of_run(store, 9, "z")
    assert store.share(array(9)) == also_kept  # the user's word counts for what was there already
    store.end("z")
    used = [of_run(store, seed, "under way") for seed in (1, 2, 3, 4)]
    for seed in (5, 6, 7, 8):
        of_run(store, seed, f"run {seed}")
        store.end(f"run {seed}")
    assert all(is_there(handle) for handle in (kept, also_kept, *used))
    idle = store.in_memory - sum(handle.size for handle in (kept, also_kept, *used))
    assert idle <= 8 * MIB


def test_a_full_memory_file_system_is_cleared_of_what_nobody_uses(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_MOST_IDLE", 1.0)
    first = of_run(store, 1, "a")
    store.end("a")
    real = store_module._room
    monkeypatch.setattr(store_module, "_room", lambda home: real(home) if not is_there(first) else 2 * MIB)
    second = of_run(store, 2, "b")
    assert (is_there(first), is_there(second)) == (False, True)
    assert second.path.startswith("/dev/shm")


def test_the_next_run_with_the_same_data_writes_nothing_and_other_data_free_the_memory(
    process_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = process_session._shared
    data = array(1, 32 * MIB)

    def run(value: Any) -> None:
        found = process_session.map(work.read_all, range(8), data=value, progress=False)
        assert found.values() == [float(value.sum())] * 8

    run(data)
    handle = next(reversed(store._found.values()))
    written = os.stat(handle.path)
    run(data.copy())
    assert os.stat(handle.path).st_ino == written.st_ino
    assert next(reversed(store._found.values())) == handle
    held = mapped_by_workers(process_session, handle)
    assert held
    monkeypatch.setattr(store_module, "_MOST_IDLE", 1e-6)
    run(array(2, 32 * MIB))
    run(array(3, 32 * MIB))
    assert not is_there(handle)
    assert mapped_by_workers(process_session, handle) == []


def mapped_by_workers(session: Session, handle: SharedData) -> list[int]:
    """Processes that have a file mapped."""
    assert session._cluster is not None
    return [pid for pid in session._cluster.pids() if handle.key in Path(f"/proc/{pid}/maps").read_text()]


OWN_SHM = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m none /dev/shm && exec "$@"', "sh"]


@pytest.mark.cluster
@pytest.mark.skipif(
    subprocess.run([*OWN_SHM, "true"], capture_output=True).returncode != 0, reason="may not make a mount namespace"
)
def test_a_container_with_64_mib_of_shared_memory_does_not_break_it() -> None:
    code = """
import os, warnings
warnings.simplefilter("error")
import numpy as np
from admf_dask import Session
import shared_work as work
if __name__ == "__main__":
    small, large = np.full(4_000_000, 1.0), np.full(16_000_000, 2.0)  # 31 and 122 MiB
    with Session(mode="process", workers=2, dashboard=None) as session:
        for data in (small, large, small + 3, small + 4, large):
            found = session.map(work.read_all, range(4), data=data, progress=False).values()
            assert found == [float(data.sum())] * 4
        handles = [session.share(data) for data in (small, large)]
        print(*[handle.path.startswith("/dev/shm") for handle in handles], os.statvfs("/dev/shm").f_blocks * 4096 // 2**20)
    print(os.listdir("/dev/shm"))
"""
    done = subprocess.run(
        [*OWN_SHM, sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True False 64", "[]"]


def environment() -> dict[str, str]:
    here = Path(__file__).parent
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "TMPDIR": tempfile.gettempdir()}


# -- what the machine allows -------------------------------------------------------------------------------------------


def test_a_busy_machine_gives_fewer_slots_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    idle, busy = Machine(8, 16 * 2**30, 16 * 2**30, 0.0), Machine(8, 16 * 2**30, 16 * 2**30, 45.0)
    found = []
    for facts in (idle, busy):
        monkeypatch.setattr(resources.Machine, "probe", classmethod(lambda cls, facts=facts, **_: facts))
        with Session(ParallelConfig(mode="thread", max_cpu_percent=90, dashboard=None)) as session:
            found.append(session.layout.workers)
    assert found == [8, 4]


# -- the dead and the living -------------------------------------------------------------------------------------------

SWEEP = """
import os, sys
import numpy as np
from admf_dask import Session
import shared_work as work
if __name__ == "__main__":
    session = Session(mode="process", workers=2, dashboard=None).open()
    disk = session.share(np.full(200_000, 1.0))
    session.map(work.tell_and_sleep, range(1000), data=np.full(400_000, 2.0), progress=False)
"""


@pytest.mark.cluster
def test_after_kill_9_of_everything_in_mid_sweep_the_next_start_removes_the_dead_ones_files_only(
    tmp_path: Path,
) -> None:
    told = tmp_path / "told"
    driver = subprocess.Popen(
        [sys.executable, "-c", SWEEP], env={**environment(), "TOLD": str(told)}, start_new_session=True
    )
    with Session(mode="thread", workers=1, dashboard=None) as living:
        alive = Path(living.share(array(5)).path)
        wait_for_file(str(told))  # an item is under way
        dead = Path(told.read_text()).parent
        assert len(list(dead.glob("[0-9a-f]*"))) == 2
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(30)
        assert dead.exists()
        with Session(mode="thread", workers=1, dashboard=None) as next_one:
            next_one.share(array(6))
            assert not dead.exists()
            assert alive.exists()
    assert not alive.exists()


def test_sessions_that_open_at_once_never_sweep_each_other(tmp_path: Path) -> None:
    """Many threads make folders while others sweep: whoever holds one still has it, and in the end none is left."""
    lost: list[Path] = []
    stop, begin = threading.Event(), threading.Barrier(6)

    def sweeper() -> None:
        begin.wait(30)
        while not stop.is_set():
            sweep(tmp_path, PREFIX)

    def opener() -> None:
        begin.wait(30)
        for _ in range(150):
            lease = new_folder(tmp_path, PREFIX)
            (lease.folder / "data").write_bytes(b"x")
            lost.extend([] if (lease.folder / "data").exists() else [lease.folder])
            lease.remove()

    threads = [threading.Thread(target=target) for target in (*[sweeper] * 2, *[opener] * 4)]
    for thread in threads:
        thread.start()
    for thread in threads[2:]:
        thread.join()
    stop.set()
    for thread in threads[:2]:
        thread.join()
    assert lost == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_two_processes_that_open_sessions_at_once_share_and_sweep_beside_dead_ones() -> None:
    code = """
import sys
import numpy as np
from admf_dask import Session
for turn in range(6):
    sys.stdin.readline()
    with Session(mode="thread", workers=1, dashboard=None) as session:
        handle = session.share(np.full(200_000, float(turn)))
        assert handle.value[0] == turn
        print("open", flush=True)
        sys.stdin.readline()
        assert np.array_equal(__import__("pickle").loads(__import__("pickle").dumps(handle)).value, handle.value)
        import os
        assert os.path.exists(handle.path), "swept by the other"
    print("closed", flush=True)
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for _ in range(6):
        abandoned = new_folder(Path("/dev/shm"), PREFIX)
        abandoned.release()
        for answer in ("open", "closed"):
            for one in both:
                assert one.stdin
                one.stdin.write("\n")
                one.stdin.flush()
            for one in both:
                assert one.stdout
                assert one.stdout.readline().strip() == answer
        assert not abandoned.folder.exists()
    for one in both:
        one.communicate()
        assert one.returncode == 0
