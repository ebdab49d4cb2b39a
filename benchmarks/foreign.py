"""Who else uses the machine: the share of all CPUs that was spent by neither this program nor its children.

A figure taken while somebody else computes says little: on cores that share their units it is off by a factor of two. So
each measurement notes the foreign share, those above `LIMIT` are left out of the medians where there are others, and a
measurement waits for a calm moment before it starts. Time stolen by other virtual machines counts as foreign.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

LIMIT = 0.06
"""Above this a measurement is called disturbed; an idle desktop or server stays below. A judgement, not a measurement."""
_LOOK = 0.3


@dataclass
class Foreign:
    """The share of all CPUs, 0 to 1; filled in when the block ends."""

    share: float = 0.0


@contextlib.contextmanager
def foreign_share() -> Iterator[Foreign]:
    """Measure over a block; trust it for a third of a second and more, because CPU time is counted in ticks of 10 ms."""
    found = Foreign()
    began, busy, own = time.perf_counter(), _busy(), _own()
    yield found
    spent = (_busy() - busy) - (_own() - own)
    found.share = max(0.0, spent / ((time.perf_counter() - began) * (psutil.cpu_count() or 1)))


def wait_for_calm(patience: float) -> None:
    """Return when nobody else computes, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with foreign_share() as found:
            time.sleep(_LOOK)
        if found.share <= LIMIT:
            return


def _busy() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # inside user and nice already
    return float(sum(times) - idle - twice)


def _own() -> float:
    """CPU seconds of this process, of all living descendants, and of those that ended and were waited for."""
    root = psutil.Process()
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total
