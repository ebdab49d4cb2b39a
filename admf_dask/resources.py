"""`ResourceManager`: facts of a machine in, numbers out. It measures nothing but what it is asked to, and starts nothing."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass

import psutil

from admf_dask.config import ParallelConfig
from admf_dask.errors import ConfigError, ResourceError
from admf_dask.machine import Machine
from admf_dask.rich import box
from admf_dask.text import format_bytes, join_words, plural

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
        return box("Layout", str(self))


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
        ParallelConfig(max_memory_percent=max_memory_percent, max_cpu_percent=max_cpu_percent)  # checks them
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
        when there is no headroom; CPU the same with its load. A total or a load of 0 is unknown and allows all CPUs.
        """
        return max(1, int(self._headroom()))

    def _headroom(self) -> float:
        """CPUs, scaled by the smaller headroom of memory and CPU; 0 where there is none."""
        cpus, load = self.machine.cpu_count, self.machine.cpu_percent
        by_memory = (
            _scaled(cpus, self.max_memory_percent, self._memory_percent) if self.machine.memory_total else float(cpus)
        )
        by_load = _scaled(cpus, self.max_cpu_percent, load) if load > 0 else float(cpus)
        return min(by_memory, by_load)

    def plan(
        self, mode: str = "process", max_workers: int = 0, threads_per_process: int = 0, *, held: int | None = None
    ) -> Layout:
        """Processes, threads and a memory limit for each process.

        The limits of all processes together are what may still be taken before the machine is `max_memory_percent` full:
        `total * max% - used`, where used is at least what this process holds (`held`, bytes; None measures it). So all limits
        plus what this process holds stay within the percentage, and what others use counts.

        `max_workers` counts slots; 0 takes the headroom of `get_optimal_workers()`, rounded to the nearest number where that cuts
        off (1.95 of 2 idle CPUs are 2 slots), and fewer where memory allows fewer. `process` is N x 1, `thread` 1 x N. `hybrid`
        on N slots takes the threads T between 2 and the square root of N that use most slots (the larger T of equals), N // T
        processes: 4 is 2 x 2, 8 is 4 x 2, 16 is 4 x 4; below 4 slots it is N x 1. A given `threads_per_process` sets T, but never
        more than N; in thread mode it is another word for `max_workers`.

        A process gets 256 MiB or is not started: with pandas loaded a worker holds about 150 MiB before it does any work.
        Raises ResourceError when `max_workers` do not fit, with the values that would, and ConfigError for arguments that
        contradict each other. Without headroom an automatic plan is one worker, and a `ResourceShortage` warning says why;
        where memory is the reason, that worker's limit lies above the percentage. Where the machine's memory is unknown (0),
        so is what may be taken: `memory_limit` is 0, no limit.
        """
        ParallelConfig(mode=mode, max_workers=max_workers, threads_per_process=threads_per_process)  # checks each
        _check_together(mode, max_workers, threads_per_process)
        asked = max_workers or (threads_per_process if mode == "thread" else 0)
        slots = asked or max(1, int(self._headroom() + 0.5))
        processes, threads = _shape(mode, slots, threads_per_process)
        if self.machine.memory_total == 0:
            return Layout(mode, processes, threads, 0)
        used = self._used(held)
        room = max(0, int(self.machine.memory_total * self.max_memory_percent / 100) - used)
        if not asked:
            self._warn_of_shortage(used, room, FLOOR if mode != "thread" else 1)
        if mode == "thread":
            return Layout(mode, 1, threads if asked or room else 1, room)
        if room >= FLOOR * processes:
            return Layout(mode, processes, threads, room // processes)
        if asked:
            raise self._does_not_fit(mode, slots, threads_per_process, room, used)
        if room < FLOOR:
            return Layout(mode, 1, 1, FLOOR)
        return Layout(mode, room // FLOOR, threads, room // (room // FLOOR))

    @property
    def _memory_percent(self) -> float:
        total = self.machine.memory_total
        return (total - self.machine.memory_available) / total * 100 if total else 0.0

    def _used(self, held: int | None) -> int:
        """Bytes taken by everybody, and at least what this process holds (None measures it)."""
        own = psutil.Process().memory_info().rss if held is None else held
        return max(self.machine.memory_total - self.machine.memory_available, own)

    def _does_not_fit(self, mode: str, slots: int, threads: int, room: int, used: int) -> ResourceError:
        total = self.machine.memory_total
        processes, _ = _shape(mode, slots, threads)
        percent = -(-(FLOOR * processes + used) * 100 // total)
        possible = room // FLOOR
        start = min(slots - 1, (possible + 1) * max(possible + 1, threads))  # no shape has more threads than that
        fewer = next((n for n in range(start, max(threads, 1) - 1, -1) if _shape(mode, n, threads)[0] <= possible), 0)
        cures = [f"max_workers={fewer}{'' if fewer else ' (automatic: one worker and a warning)'}"]
        cures += [f"max_memory_percent={percent}"] if percent <= 100 else []
        return ResourceError(
            f"{plural(processes, 'process', 'processes')} need at least {format_bytes(FLOOR)} of memory each, but only "
            f"{format_bytes(room)} are left below {self.max_memory_percent:g} % of {format_bytes(total)} "
            f"(in use: {used / total * 100:.0f} %); write {join_words(cures, 'or')}"
        )

    def _warn_of_shortage(self, used: int, room: int, needed: int) -> None:
        machine = self.machine
        reasons, cures = [], []
        if room < needed:
            reasons.append(
                f"{used / machine.memory_total * 100:.0f} % of {format_bytes(machine.memory_total)} memory is in use and "
                f"max_memory_percent is {self.max_memory_percent:g}, which leaves {format_bytes(room)}"
                + (f" where a worker process needs {format_bytes(needed)}" if needed > 1 else "")
            )
            cures.append("free memory or raise max_memory_percent")
        if machine.cpu_count > 1 and machine.cpu_percent >= self.max_cpu_percent:
            reasons.append(
                f"the {machine.cpu_count} CPUs are {machine.cpu_percent:.0f} % busy and max_cpu_percent is "
                f"{self.max_cpu_percent:g}"
            )
            cures.append("set max_workers or raise max_cpu_percent")
        if reasons:
            message = f"no headroom, so one worker is used: {join_words(reasons)}; {join_words(cures)}"
            warnings.warn(message, ResourceShortage, stacklevel=3)


def _scaled(cpus: int, allowed: float, used: float) -> float:
    return max(0.0, cpus * (allowed - used) / allowed)


def _shape(mode: str, slots: int, threads: int) -> tuple[int, int]:
    if mode == "process":
        return slots, 1
    if mode == "thread":
        return 1, slots
    if not threads:
        threads = max(range(1, math.isqrt(slots) + 1), key=lambda count: (count > 1, slots // count * count, count))
    return max(1, slots // threads), min(threads, slots)


def _check_together(mode: str, max_workers: int, threads: int) -> None:
    if mode == "process" and threads > 1:
        raise ConfigError(
            f"mode 'process' has one thread for each process, but threads_per_process={threads}; write mode='hybrid'"
        )
    if mode == "hybrid" and max_workers and threads > max_workers:
        raise ConfigError(
            f"threads_per_process must not be above max_workers, but they are {threads} and {max_workers}; "
            f"write max_workers={threads} or threads_per_process={max_workers}"
        )
    if mode == "thread" and max_workers and threads and threads != max_workers:
        raise ConfigError(
            f"mode 'thread' is one process, so threads_per_process and max_workers are the same number, but they are "
            f"{threads} and {max_workers}; leave out threads_per_process"
        )
