"""What the machine allows, read from made-up /proc and /sys trees of the kinds that exist."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from admf_dask.errors import ConfigError
from admf_dask.machine import Machine, cgroup_memory, cpus

GIB = 2**30
NO_LIMIT = 2**60
V1_NONE = 9223372036854771712
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.fixture(autouse=True)
def _sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("cpu_count", "process_cpu_count"):
        monkeypatch.setattr(os, name, lambda: 16, raising=False)


def tree(root: Path, groups: str, mounts: str, files: dict[str, object]) -> Path:
    """A root folder with /proc/self/cgroup, /proc/self/mountinfo and files below /sys/fs/cgroup."""
    texts = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    texts |= {f"sys/fs/cgroup/{name}": f"{content}\n" for name, content in files.items()}
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_v2_a_limit_in_a_middle_slice_counts(tmp_path: Path) -> None:
    files = {
        "batch.slice/memory.max": 3 * GIB,
        "batch.slice/memory.current": 2 * GIB,
        "batch.slice/memory.stat": f"anon 1\ninactive_file {GIB // 2}\nactive_file 9",
        "batch.slice/cpu.max": "250000 100000",
        "batch.slice/job-1.scope/memory.max": "max",
        "batch.slice/job-1.scope/memory.low": GIB,
        "batch.slice/job-1.scope/memory.current": GIB,
        "batch.slice/job-1.scope/cpu.max": "max 100000",
    }
    root = tree(tmp_path, "0::/batch.slice/job-1.scope\n", V2, files)
    assert cgroup_memory(root) == (3 * GIB, GIB + GIB // 2)
    assert cpus(root) == 3


def test_v2_the_tightest_level_wins_and_high_is_a_limit_too(tmp_path: Path) -> None:
    files = {
        "a/memory.max": 8 * GIB,
        "a/memory.current": 7 * GIB,
        "a/cpu.max": "800000 100000",
        "a/b/memory.max": 6 * GIB,
        "a/b/memory.high": 4 * GIB,
        "a/b/memory.current": GIB,
        "a/b/cpu.max": "50000 100000",
    }
    root = tree(tmp_path, "0::/a/b\n", V2, files)
    assert cgroup_memory(root) == (4 * GIB, GIB)  # the total of one level, what is left in the other
    assert cpus(root) == 1


def test_v1_quota_and_limit(tmp_path: Path) -> None:
    files = {
        "memory/docker/memory.limit_in_bytes": V1_NONE,
        "memory/docker/x/memory.limit_in_bytes": 2 * GIB,
        "memory/docker/x/memory.usage_in_bytes": 2 * GIB,
        "memory/docker/x/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}",
        "cpu,cpuacct/docker/cpu.cfs_quota_us": -1,
        "cpu,cpuacct/docker/cpu.cfs_period_us": 100000,
        "cpu,cpuacct/docker/x/cpu.cfs_quota_us": 400000,
        "cpu,cpuacct/docker/x/cpu.cfs_period_us": 100000,
    }
    root = tree(tmp_path, "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n", V1_MEMORY + V1_CPU, files)
    assert cgroup_memory(root) == (2 * GIB, GIB)
    assert cpus(root) == 4


def test_hybrid_v1_controllers_beside_an_empty_v2_tree(tmp_path: Path) -> None:
    files = {
        "memory/job/memory.limit_in_bytes": 5 * GIB,
        "memory/job/memory.usage_in_bytes": GIB,
        "unified/cgroup.procs": "1",
    }
    groups = "9:name=systemd:/\n4:memory:/job\n1:cpu:/\n0::/\n"
    root = tree(tmp_path, groups, V1_MEMORY + V1_CPU + UNIFIED, files)
    assert cgroup_memory(root) == (5 * GIB, 4 * GIB)
    assert cpus(root) == 16


@pytest.mark.parametrize("group", ["/docker/x", "/docker/x/inner"])
def test_in_a_container_the_mount_shows_the_tree_from_its_own_root(tmp_path: Path, group: str) -> None:
    mounts = V1_MEMORY.replace("0:32 / ", "0:32 /docker/x ")
    files = {
        "memory/memory.limit_in_bytes": GIB,
        "memory/memory.usage_in_bytes": 0,
        "memory/inner/memory.limit_in_bytes": V1_NONE,
    }
    assert cgroup_memory(tree(tmp_path, f"4:memory:{group}\n", mounts, files)) == (GIB, GIB)


def test_a_namesake_of_the_mounts_root_is_another_group(tmp_path: Path) -> None:
    mounts = V1_MEMORY.replace("0:32 / ", "0:32 /job ")
    files = {"memory/memory.limit_in_bytes": 2 * GIB, "memory/2/memory.limit_in_bytes": GIB}
    assert cgroup_memory(tree(tmp_path, "4:memory:/job2\n", mounts, files))[0] == 2 * GIB


def test_a_group_that_the_mount_does_not_show_leaves_the_mount_itself(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/host/name/of/it\n", V2, {"memory.max": GIB, "cpu.max": "200000 100000"})
    assert cgroup_memory(root) == (GIB, GIB)
    assert cpus(root) == 2


@pytest.mark.parametrize("junk", ["", "\n", "0::\n", "garbage", "0::/a\n4:memory", "max", "-5"])
def test_files_that_say_nothing_limit_nothing(tmp_path: Path, junk: str) -> None:
    files = dict.fromkeys(("memory.max", "memory.high", "memory.current", "memory.stat", "cpu.max"), "garbage")
    assert cgroup_memory(tree(tmp_path, "0::/\n", V2, files)) == (NO_LIMIT, NO_LIMIT)
    assert cgroup_memory(tree(tmp_path, junk, junk, {})) == (NO_LIMIT, NO_LIMIT)
    assert cpus(tree(tmp_path, junk, junk, {})) == 16


def test_unreadable_files_limit_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/\n", V2, {})
    (root / "sys/fs/cgroup/memory.max").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_bytes(b"\xff\xfe")
    assert cgroup_memory(root) == (NO_LIMIT, NO_LIMIT)
    assert cpus(root) == 16


def test_without_cgroups_at_all(tmp_path: Path) -> None:
    assert cgroup_memory(tmp_path) == (NO_LIMIT, NO_LIMIT)
    assert cpus(tmp_path) == 16


def test_fewer_cpus_by_affinity_or_by_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert cpus(tmp_path) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 7}, raising=False)
    assert cpus(tmp_path) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "process_cpu_count", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus(tmp_path) == 1


def test_this_machine() -> None:
    machine = Machine.probe(interval=0)
    assert 1 <= machine.cpu_count <= 16
    assert 0 < machine.memory_available <= machine.memory_total <= psutil.virtual_memory().total
    assert machine.cpu_percent == 0
    assert 0 <= Machine.probe(interval=0.01).cpu_percent <= 100


@pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_AS") or sys.platform == "darwin", reason="needs an enforced RLIMIT_AS"
)
def test_a_limit_of_the_process_is_a_limit() -> None:
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n"
        "from admf_dask.machine import Machine\n"
        "machine = Machine.probe(interval=0)\n"
        "assert machine.memory_available <= machine.memory_total <= 3 * 2**30, machine"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_machine_is_a_value() -> None:
    machine = Machine(4, 16 * GIB, 12 * GIB, 10.0)
    assert machine == Machine(cpu_count=4, memory_total=16 * GIB, memory_available=12 * GIB, cpu_percent=10.0)
    assert eval(repr(machine)) == machine
    with pytest.raises(AttributeError):
        machine.cpu_count = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ((0, GIB, GIB, 0), "cpu_count must be at least 1, but is 0"),
        ((1, GIB, 2 * GIB, 0), "memory_available <= memory_total must hold"),
        ((1, GIB, -1, 0), "memory_available <= memory_total must hold"),
        ((1, GIB, GIB, -1), "cpu_percent must be 0"),
        ((1, GIB, GIB, float("nan")), "cpu_percent must be 0"),
    ],
)
def test_facts_that_no_machine_has(facts: tuple[int, int, int, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Machine(*facts)
