"""Ctrl-C as terminals and notebooks send it: control comes back at once, with all that had finished, and the session lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cluster_work
import fault_work
import psutil
import pytest

from admf_dask import Session
from admf_dask.runtime import executors
from admf_dask.runtime.blackbox import Executing, read_executing

HERE = Path(__file__).parent
pytestmark = pytest.mark.cluster

NOTEBOOK = """
import asyncio, os, sys, time
import fault_work as work
from admf_dask import Session
from admf_dask.events import BlockFinished

folder, fault = sys.argv[1:]

class Seen:
    finished = 0
    def on_event(self, event):
        if isinstance(event, BlockFinished):
            self.finished += len(event.block.indices)
            if self.finished >= 20:
                open(os.path.join(folder, "going"), "w").close()

async def first_cell(session, seen):
    try:
        session.map(work.act, [*range(20), *[fault] * 4, *range(1000)], progress=seen)
    except KeyboardInterrupt as stop:
        back, partial = time.monotonic(), stop.partial
        print(back, len(partial), partial.total, all(o.value == o.item for o in partial), seen.finished, flush=True)

async def second_cell(session):
    print(session.map(abs, range(-50, 0), progress=False).values() == list(range(50, 0, -1)), flush=True)

def kernel():
    # As a kernel does: cells run in the main thread, inside a running event loop, and SIGINT is Python's own.
    loop, seen = asyncio.new_event_loop(), Seen()
    with Session(mode="process", workers=2, dashboard=None) as session:
        loop.run_until_complete(first_cell(session, seen))
        loop.run_until_complete(second_cell(session))
    loop.close()

if __name__ == "__main__":
    kernel()
"""

TERMINAL = """
import os, sys, time
import fault_work as work
from admf_dask import ParallelOptimizer

def wait(params):
    open(os.path.join(params["folder"], "going"), "w").close()
    return work.act("c loop")

def main():
    try:
        ParallelOptimizer(workers=2).optimize({"x": range(9), "folder": [sys.argv[1]]}, wait, progress=False)
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
        raise

if __name__ == "__main__":
    main()
"""


@contextmanager
def running(text: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A script in a process group of its own, until it says that it is under way."""
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, str(script), str(folder), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            cluster_work.wait_for_file(str(folder / "going"))
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def whole_group(leader: int) -> list[psutil.Process]:
    """All processes of a group, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


@pytest.mark.parametrize("fault", ["python loop that swallows", "c loop", "c loop that holds the interpreter"])
def test_a_notebooks_interrupt_leaves_a_session_that_works(tmp_path: Path, fault: str) -> None:
    with running(NOTEBOOK, tmp_path, fault) as kernel:
        before = time.monotonic()
        # To the kernel and all its children, as notebook servers do.
        os.killpg(kernel.pid, signal.SIGINT)
        out, err = kernel.communicate(timeout=60)
    (back, count, total, right, seen), second = (line.split() for line in out.splitlines())
    assert float(back) - before < 2
    assert int(count) >= int(seen) >= 20
    assert int(total) == 1024
    assert (right, second) == ("True", ["True"])
    assert (kernel.returncode, err) == (0, "")


def test_the_short_call_ends_its_cluster_in_time_too(tmp_path: Path) -> None:
    with running(TERMINAL, tmp_path) as process:
        group = whole_group(process.pid)
        assert len(group) >= 3
        before = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert not psutil.wait_procs(group, timeout=10)[1]
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert float(out) - before < 2


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with running(TERMINAL, tmp_path) as process:
        group = whole_group(process.pid)
        before = time.monotonic()
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        took = time.monotonic() - before
    assert not psutil.wait_procs(group, timeout=10)[1]
    assert took < 2


def test_an_item_that_begins_after_the_first_look_does_not_keep_the_next_run_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []

    def late(folder: str, pid: int, run: str | None = None) -> tuple[Executing, ...] | None:
        looked.append(pid)
        # As if the chunk were still on its way to the process.
        return () if looked.count(pid) == 1 else read_executing(folder, pid, run)

    monkeypatch.setattr(executors, "read_executing", late)
    with Session(mode="process", workers=2, dashboard=None) as session:
        with pytest.raises(ValueError, match="not a number"):
            session.map(
                fault_work.act, ["c loop that holds the interpreter", 0, "raise", 1], on_error="raise", progress=False
            )
        following = threading.Thread(target=session.map, args=(abs, range(10)), kwargs={"progress": False})
        following.start()
        following.join(30)
        assert not following.is_alive()
    assert looked
