"""`Machine`: what this process may really use, measured once and then a plain value.

A container, a systemd slice or a batch job may allow far less than the hardware has, at any level of the cgroup tree, so
every level from the process's own group up to the root is read, in cgroup v1 and v2 and in mixtures of both. A file that is
missing or cannot be read says nothing about a limit; it is passed over.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from admf_dask.errors import ConfigError

_V1_UNLIMITED = 2**60
"""Cgroup v1 writes "no limit" as the largest page-aligned int64."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine, frozen. Construct one by hand to ask "what if".

    Raises ConfigError (a ValueError) for numbers that no machine has.
    """

    cpu_count: int
    """CPUs that this process may use."""
    memory_total: int
    """Bytes that this process and its children may use at most; 0 is "unknown"."""
    memory_available: int
    """Bytes of these that are free now, or can be freed at once."""
    cpu_percent: float
    """Load of all CPUs, 0 to 100; 0 is also "unknown"."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.cpu_count < 1:
            raise ConfigError(f"cpu_count must be at least 1, but is {self.cpu_count}")
        if not 0 <= self.memory_available <= self.memory_total:
            raise ConfigError(
                f"0 <= memory_available <= memory_total must hold, but they are {self.memory_available} and "
                f"{self.memory_total}; both are bytes"
            )
        if not 0 <= self.cpu_percent < math.inf:
            raise ConfigError(f"cpu_percent must be 0 (unknown) or the load in percent, but is {self.cpu_percent}")

    @classmethod
    def probe(cls, *, interval: float = 0.1) -> Self:
        """Measure. Takes `interval` seconds for the CPU load (0: none is measured) and a few milliseconds for the rest."""
        host = psutil.virtual_memory()
        total, available = cgroup_memory(Path("/"))
        total = min(host.total, total, _rlimit())
        return cls(
            cpu_count=cpus(Path("/")),
            memory_total=total,
            memory_available=max(0, min(host.available, available, total)),
            cpu_percent=psutil.cpu_percent(interval=interval) if interval > 0 else 0.0,
        )


def cpus(root: Path) -> int:
    """The CPUs of the affinity mask, or fewer where a cgroup quota (rounded up) or PYTHON_CPU_COUNT (3.13) allows fewer."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    told = getattr(os, "process_cpu_count", os.cpu_count)() or affinity
    return max(1, min([affinity, told, *(math.ceil(quota) for quota in _quotas(root))]))


def cgroup_memory(root: Path) -> tuple[int, int]:
    """(limit, available) in bytes over all cgroup levels; a very large number where there is no limit."""
    limit = available = _V1_UNLIMITED
    for level, version in _levels(root, "memory"):
        allowed = min(_limits(level, version), default=_V1_UNLIMITED)
        if allowed >= _V1_UNLIMITED:
            continue
        used = _number(level / ("memory.current" if version == 2 else "memory.usage_in_bytes")) or 0
        limit = min(limit, allowed)
        available = min(available, max(0, allowed - used + _reclaimable(level, version)))
    return limit, available


def _limits(level: Path, version: int) -> Iterator[int]:
    # memory.low and memory.min protect memory, they limit nothing.
    for name in ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",):
        if (value := _number(level / name)) is not None:
            yield value


def _reclaimable(level: Path, version: int) -> int:
    """Page cache that is counted as used and given back on demand."""
    wanted = "inactive_file" if version == 2 else "total_inactive_file"
    for line in _text(level / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == wanted and value.isdigit():
            return int(value)
    return 0


def _quotas(root: Path) -> Iterator[float]:
    for level, version in _levels(root, "cpu"):
        if version == 2:
            quota, _, period = _text(level / "cpu.max").strip().partition(" ")
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)
        else:
            v1_quota, v1_period = _number(level / "cpu.cfs_quota_us"), _number(level / "cpu.cfs_period_us")
            if v1_quota and v1_quota > 0 and v1_period:
                yield v1_quota / v1_period


def _levels(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Every directory of the process's cgroups for a controller, from its own up to the mount point, with the version."""
    mounts = list(_mounts(root))
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        version = 2 if number == "0" and not controllers else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for mount, mount_root, kind, options in mounts:
            if kind == ("cgroup2" if version == 2 else "cgroup") and (version == 2 or controller in options):
                yield from ((level, version) for level in _upwards(root / mount.lstrip("/"), group, mount_root))


def _upwards(mount: Path, group: str, mount_root: str) -> Iterator[Path]:
    # In a container the group is named as the host sees it, and the mount shows the tree from mount_root on.
    inside = group[len(mount_root) :] if f"{group}/".startswith(f"{mount_root}/") else group
    parts = [part for part in inside.split("/") if part and part != ".."]
    if not mount.joinpath(*parts).is_dir():
        parts = []
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _mounts(root: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """(mount point, root within the hierarchy, type, super options) of each cgroup mount."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if len(fields) >= 5 and len(kinds) >= 3 and kinds[0] in ("cgroup", "cgroup2"):
            yield fields[4], fields[3], kinds[0], kinds[2].split(",")


def _rlimit() -> int:
    try:
        import resource
    except ImportError:
        return _V1_UNLIMITED
    limits = (
        resource.getrlimit(getattr(resource, name))[0]
        for name in ("RLIMIT_AS", "RLIMIT_DATA")
        if hasattr(resource, name)
    )
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=_V1_UNLIMITED)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
