"""What a process was executing is readable after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from admf_dask.runtime import blackbox
from admf_dask.runtime.blackbox import BlackBox

RUN, OTHER = "a" * 32, "b" * 32


def read_executing(folder: Path, pid: int, run: str) -> tuple[tuple[int, int], ...] | None:
    noted = blackbox.read_executing(folder, pid, run)
    return None if noted is None else tuple((span.start, span.stop) for span in noted)


def test_each_thread_has_its_slot_and_only_the_asked_run_is_told(tmp_path: Path) -> None:
    box = BlackBox(tmp_path)
    box.slot(RUN).note(5, 1)
    seen = threading.Barrier(2)

    def elsewhere(run: str, start: int, count: int) -> None:
        box.slot(run).note(start, count)
        seen.wait()

    for run, start, count in ((RUN, 100, 50), (OTHER, 7, 1)):
        thread = threading.Thread(target=elsewhere, args=(run, start, count))
        thread.start()
        seen.wait()
        thread.join()
    assert set(read_executing(tmp_path, os.getpid(), RUN) or ()) == {(5, 6), (100, 150)}
    assert read_executing(tmp_path, os.getpid(), OTHER) == ((7, 8),)
    box.slot(RUN).clear()
    assert read_executing(tmp_path, os.getpid(), RUN) == ((100, 150),)


def test_a_process_that_left_no_box_is_unknown_rather_than_idle(tmp_path: Path) -> None:
    assert read_executing(tmp_path, 1, RUN) is None


def test_the_box_outlives_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal\n"
        "from admf_dask.runtime.blackbox import BlackBox\n"
        f"slot = BlackBox(sys.argv[1]).slot({RUN!r})\n"
        "slot.note(41, 1)\n"
        "slot.cells[slot.at] = 42\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    assert child.wait(timeout=30) == -signal.SIGKILL
    assert read_executing(tmp_path, child.pid, RUN) == ((42, 43),)
