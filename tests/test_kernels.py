"""A real Jupyter kernel, driven as a notebook server drives it: interrupted, worked on with, shut down and killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest
from jupyter_client.manager import KernelManager

HERE = Path(__file__).parent
pytestmark = pytest.mark.cluster

OPEN = """
import sys
import fault_work as work
from admf_dask import ParallelOptimizer, Session
from admf_dask.events import BlockFinished

session = Session(mode="process", workers=2, dashboard=None).open()
optimizer = ParallelOptimizer(session=session)

def objective(params):
    return work.act("c loop") if params["x"] in (40, 41) else float(work.sleeps(params["x"] % 3))

class Tells:
    finished = 0
    def on_event(self, event):
        if isinstance(event, BlockFinished):
            self.finished += len(event.block.indices)
            if self.finished >= 40:
                print("going", flush=True)
"""
SWEEP = """
tells = Tells()
result = optimizer.optimize({"x": range(2_000)}, objective, progress=tells)
"""
LOOK = """
partial = sys.last_value.partial
print(type(partial).__name__, partial.state, len(partial.frame) >= tells.finished >= 40, len(partial.frame) < 2_000)
"""
GO_ON = """
print(optimizer.optimize({"x": range(100, 400)}, objective, progress=False).total_evaluations)
"""


class Kernel:
    """One kernel and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
        paths = f"{HERE}{os.pathsep}{HERE.parent}"
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder)}, cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)

    def messages(self, code: str) -> Iterator[dict[str, Any]]:
        """Run a cell: what it prints and raises, as it comes, until the kernel is idle again."""
        sent = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message

    def run(self, code: str) -> str:
        """Run a cell that must not raise; returns what it prints."""
        said = ""
        for message in self.messages(code):
            assert message["msg_type"] != "error", message["content"]["traceback"]
            said += message["content"].get("text", "")
        return said.strip()

    def run_until_going(self, code: str) -> Iterator[dict[str, Any]]:
        """Run a cell until it says that it is going; the messages still to come."""
        messages = self.messages(code)
        for message in messages:
            assert message["msg_type"] != "error", message["content"]["traceback"]
            if "going" in message["content"].get("text", ""):
                return messages
        pytest.fail("the cell came to its end")

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    try:
        yield kernel
    finally:
        kernel.close()


@pytest.mark.parametrize("end", ["shut down", "killed"])
def test_a_kernel_is_interrupted_goes_on_and_leaves_nothing(kernel: Kernel, tmp_path: Path, end: str) -> None:
    kernel.run(OPEN)
    messages = kernel.run_until_going(SWEEP)
    before = time.monotonic()
    kernel.manager.interrupt_kernel()
    errors = [message["content"] for message in messages if message["msg_type"] == "error"]
    took = time.monotonic() - before
    assert [error["ename"] for error in errors] == ["KeyboardInterrupt"]
    assert took < 2
    assert kernel.run(LOOK) == "OptimizationResult interrupted True True"
    assert kernel.run(GO_ON) == "300"
    # Its end comes in the middle of another run, with both workers in C code that does not return.
    kernel.run_until_going(SWEEP)
    if end == "killed":
        os.kill(kernel.pid, 9)
    else:
        kernel.manager.shutdown_kernel()
    assert not leaks.still_there(str(tmp_path))
