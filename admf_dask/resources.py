"""`ResourceManager`: facts of a machine in, numbers out. It measures nothing but what it is asked to, and starts nothing."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass

import psutil

from admf_dask.config import MODES
from admf_dask.errors import ConfigError, ResourceError
from admf_dask.machine import Machine
from admf_dask.text import did_you_mean, format_bytes, plural

__all__ = ["Layout", "Machine", "ResourceManager", "ResourceShortage"]

FLOOR = 256 * 2**20
"""Bytes below which a worker process is not started: with pandas loaded it holds about 150 MiB before it does any work."""


class ResourceShortage(UserWarning):
    """The machine is too busy or too small for more than one worker."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How workers are laid out: processes x threads, and the memory limit of each process."""

    mode: str
    processes: int
    threads_per_process: int
    memory_limit: int
    """Bytes for each process; in thread mode what this process may still take, which nothing enforces."""

    @property
    def workers(self) -> int:
        """Items that can be evaluated at the same time."""
        return self.processes * self.threads_per_process

    def __str__(self) -> str:
        """Layout in words."""
        if self.mode == "thread":
            return f"this process x {plural(self.threads_per_process, 'thread')}"
        shape = f"{plural(self.processes, 'process', 'processes')} x {plural(self.threads_per_process, 'thread')}"
        return f"{shape}, {format_bytes(self.memory_limit) + ' each' if self.memory_limit else 'no memory limit'}"

    def _repr_html_(self) -> str:
        return f"<b>Layout</b> {self}"


class ResourceManager:
    """Decides how many workers fit a machine, and how much memory each may take.

    Parameters
    ----------
    max_memory_percent, max_cpu_percent
        How full the machine may be, in percent.
    machine
        The facts to decide from; None measures them once, when first needed (0.1 s).

    Thread-safe. Raises ConfigError for a percentage outside (0, 100].
    """

    def __init__(
        self, max_memory_percent: float = 80, max_cpu_percent: float = 90, *, machine: Machine | None = None
    ) -> None:
        """Nothing is measured yet."""
        for name, value in (("max_memory_percent", max_memory_percent), ("max_cpu_percent", max_cpu_percent)):
            if not 0 < value <= 100:
                raise ConfigError(f"{name} must be above 0 and up to 100, but is {value!r}")
        self.max_memory_percent = max_memory_percent
        self.max_cpu_percent = max_cpu_percent
        self._machine = machine
        self._lock = threading.Lock()

    @property
    def machine(self) -> Machine:
        """The facts; measured at the first call."""
        with self._lock:
            if self._machine is None:
                self._machine = Machine.probe()
            return self._machine

    def get_optimal_workers(self) -> int:
        """Workers that memory and CPU have headroom for: CPUs scaled by the smaller headroom, at least 1.

        With used% = (total - available) / total * 100, memory allows `int(cpus * (max% - used%) / max%)`, at least 1, and 1
        when there is no headroom; CPU the same with its load, and all CPUs when the load is unknown (0).
        """
        machine = self.machine
        return min(
            _scaled(machine.cpu_count, self.max_memory_percent, self._memory_percent),
            _scaled(machine.cpu_count, self.max_cpu_percent, machine.cpu_percent)
            if machine.cpu_percent > 0
            else machine.cpu_count,
        )

    def plan(
        self, mode: str = "process", max_workers: int = 0, threads_per_process: int = 0, *, held: int | None = None
    ) -> Layout:
        """Processes, threads and a memory limit for each process.

        The limits of all processes together are what may still be taken before the machine is `max_memory_percent` full:
        `total * max% - used`, where used is at least what this process holds (`held`, bytes; None measures it). So all limits
        plus what this process holds stay within the percentage, and what others use counts.

        `max_workers` counts slots; 0 takes `get_optimal_workers()`, and fewer where memory allows fewer. `process` is N x 1,
        `thread` 1 x N. `hybrid` on N slots takes the threads T between 2 and the square root of N that use most slots (the
        larger T of equals), N // T processes: 4 is 2 x 2, 8 is 4 x 2, 16 is 4 x 4; below 4 slots it is N x 1. A given
        `threads_per_process` sets T.

        Raises ResourceError when `max_workers` do not fit, ConfigError for arguments that contradict each other. Without
        headroom an automatic plan is one worker, and a `ResourceShortage` warning says why.
        """
        if mode not in MODES:
            raise ConfigError(f"mode must be one of {', '.join(MODES)}, but is {mode!r}{did_you_mean(mode, MODES)}")
        _check_threads(mode, max_workers, threads_per_process)
        slots = max_workers or self.get_optimal_workers()
        processes, threads = _shape(mode, slots, threads_per_process)
        room = self._room(psutil.Process().memory_info().rss if held is None else held)
        if mode == "thread":
            return Layout(mode, 1, threads, max(0, room))
        if room < FLOOR * processes:
            if max_workers:
                raise self._does_not_fit(room, processes, threads)
            if room < FLOOR:
                self._warn(room)
                return Layout(mode, 1, 1, FLOOR)
            processes = room // FLOOR
        return Layout(mode, processes, threads, room // processes)

    @property
    def _memory_percent(self) -> float:
        total = self.machine.memory_total
        return (total - self.machine.memory_available) / total * 100 if total else 0.0

    def _room(self, held: int) -> int:
        total, available = self.machine.memory_total, self.machine.memory_available
        return int(total * self.max_memory_percent / 100) - max(total - available, held)

    def _does_not_fit(self, room: int, processes: int, threads: int) -> ResourceError:
        needed = FLOOR * processes - room
        percent = self.max_memory_percent + math.ceil(needed / self.machine.memory_total * 100)
        fewer = max(1, room // FLOOR) * threads
        raise_it = f" or max_memory_percent={percent:g}" if percent <= 100 else ""
        return ResourceError(
            f"{plural(processes, 'process', 'processes')} need at least {format_bytes(FLOOR)} of memory each, but only "
            f"{format_bytes(max(0, room))} are left below {self.max_memory_percent:g} % of "
            f"{format_bytes(self.machine.memory_total)} (in use: {self._memory_percent:.0f} %); "
            f"write max_workers={fewer}{raise_it}"
        )

    def _warn(self, room: int) -> None:
        machine = self.machine
        warnings.warn(
            f"no headroom: {self._memory_percent:.0f} % of {format_bytes(machine.memory_total)} memory is in use and "
            f"max_memory_percent is {self.max_memory_percent:g}, so {format_bytes(max(0, room))} are left where a worker needs "
            f"{format_bytes(FLOOR)}. One worker is used; free memory, or raise max_memory_percent",
            ResourceShortage,
            stacklevel=3,
        )


def _scaled(cpus: int, allowed: float, used: float) -> int:
    headroom = allowed - used
    return 1 if headroom <= 0 else max(1, int(cpus * headroom / allowed))


def _shape(mode: str, slots: int, threads: int) -> tuple[int, int]:
    if mode == "process":
        return slots, 1
    if mode == "thread":
        return 1, slots
    if not threads:
        threads = max(range(1, math.isqrt(slots) + 1), key=lambda count: (count > 1, slots // count * count, count))
    return max(1, slots // threads), min(threads, slots)


def _check_threads(mode: str, max_workers: int, threads: int) -> None:
    if max_workers < 0 or threads < 0:
        raise ConfigError(f"max_workers and threads_per_process must be 0 or more, but are {max_workers} and {threads}")
    if mode == "process" and threads > 1:
        raise ConfigError(
            f"mode 'process' has one thread for each process, but threads_per_process={threads}; write mode='hybrid'"
        )
    if mode == "hybrid" and max_workers and threads > max_workers:
        raise ConfigError(
            f"threads_per_process must not be above max_workers, but they are {threads} and {max_workers}; "
            f"write max_workers={threads} or threads_per_process={max_workers}"
        )
