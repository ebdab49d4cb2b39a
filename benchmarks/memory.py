"""Peak memory of a process and all its descendants, as the sum of their proportional set sizes (PSS).

PSS counts a page shared by n processes as 1/n in each, so the sum over processes is what the machine really spends;
the sum of RSS would count a fork's shared pages again and again. Linux only; elsewhere the answer is None.

The sampler runs in a thread of the measuring process, which does nothing else meanwhile, so that it takes neither the
interpreter lock nor the time of the processes it looks at. Still it costs about a millisecond a process and sample, so
memory is sampled in the untimed rehearsal of a load, never in a timed run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.02


@dataclass
class Peak:
    """What a sampler saw so far."""

    bytes: int | None = None
    """The largest sum; None where PSS cannot be read."""
    processes: int = 0
    """Processes at that moment."""
    samples: int = 0


def pss_of_tree(root: psutil.Process, *, itself: bool = True) -> tuple[int, int] | None:
    """(bytes, processes) of `root` and its descendants now, or of those alone; None where PSS cannot be read."""
    total = count = 0
    for process in [root, *root.children(recursive=True)][not itself :]:
        pss = _pss(process.pid)
        if pss is not None:
            total, count = total + pss, count + 1
    return (total, count) if count else None


@contextlib.contextmanager
def peak_of_tree(pid: int, *, itself: bool = True) -> Iterator[Peak]:
    """Sample the tree under `pid` until the block ends, `itself` included or not; the `Peak` is complete after it."""
    peak, stop, root = Peak(), threading.Event(), psutil.Process(pid)

    def sample() -> None:
        while True:
            try:
                found = pss_of_tree(root, itself=itself)
            except psutil.NoSuchProcess:
                return
            if found is not None:
                peak.samples += 1
                if peak.bytes is None or found[0] > peak.bytes:
                    peak.bytes, peak.processes = found
            if stop.wait(INTERVAL):
                return

    thread = threading.Thread(target=sample, name="memory sampler")
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _pss(pid: int) -> int | None:
    """Bytes, or None for a process that ended meanwhile (or a kernel without PSS)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), None)
