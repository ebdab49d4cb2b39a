"""What `benchmarks/run.py` does with its programs: the short form, the failed one, the interrupted one. Nothing is timed here."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from admf_dask import Session
from admf_dask.events import BlockFinished, Event

ROOT = Path(__file__).parent.parent

GOOD = '''"""How long is a table?"""
import common

given = common.options("A table.", rounds=9, quick_rounds=5)
common.print_table("tables", ["who", "time"], [["ours", "1 s"], ["theirs", "2 s"]], markdown=given.markdown)
print(f"quick: {given.quick}, rounds: {given.rounds}")
common.write_json(given.json, {"machine": {**common.describe_machine(), "missing": ["some-peer"]}})
'''
BAD = '"""Does it fail?"""\nimport common\n\ncommon.options("Fails.", rounds=9, quick_rounds=5)\nraise SystemExit(3)\n'
HANGS = '''"""Does it hang?"""
import os, signal, subprocess, sys
import common

common.options("Hangs.", rounds=9, quick_rounds=5)
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
with open(os.environ["TOLD"], "w") as told:
    told.write(f"{os.getpid()} {child.pid}")
child.wait()
'''


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("run.py", "common.py"):
        shutil.copy(ROOT / "benchmarks" / name, folder)
    return folder


def command(bench: Path, *options: str) -> list[str]:
    return [sys.executable, str(bench / "run.py"), "--out", str(bench.parent / "out"), *options]


@pytest.mark.parametrize("brief", [True, False])
def test_the_page_says_what_failed_what_is_rough_and_who_was_not_there(bench: Path, brief: bool) -> None:
    (bench / "good.py").write_text(GOOD)
    (bench / "bad.py").write_text(BAD)
    done = subprocess.run(command(bench, *["--quick"] * brief), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "failed: bad" in done.stdout
    for page in ("results.md", "results.html"):
        text = (bench.parent / "out" / page).read_text()
        assert "MISSED: the program ended with exit code 3" in text
        assert "not installed, so not compared: some-peer" in text
        assert ("quick: True, rounds: 1" if brief else "quick: False, rounds: 9") in text
        assert ("figures are rough" in text) is brief


def test_an_interrupted_run_leaves_no_process_and_a_page_of_what_there_is(bench: Path) -> None:
    (bench / "good.py").write_text(GOOD)
    (bench / "hangs.py").write_text(HANGS)
    run = bench / "run.py"
    run.write_text(run.read_text().replace("PATIENCE = 20.0", "PATIENCE = 0.1"))
    os.mkfifo(told := bench / "told")
    process = subprocess.Popen(command(bench), env={**os.environ, "TOLD": str(told)}, stdout=subprocess.PIPE, text=True)
    started = [psutil.Process(int(pid)) for pid in told.read_text().split()]
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(started, timeout=10)
    for left in alive:
        left.kill()
    assert not alive
    assert process.returncode == 1
    assert "failed: hangs (interrupted)" in printed
    assert "How long is a table?" in (bench.parent / "out" / "results.md").read_text()


@pytest.mark.cluster
def test_what_a_chunk_costs_is_measured_on_chunks_of_the_size_that_was_asked_for(
    process_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    scaling, chunks = runpy.run_path(str(ROOT / "benchmarks" / "scaling.py")), []

    class Chunks:
        def on_event(self, event: Event) -> None:
            if isinstance(event, BlockFinished):
                chunks.append(event.block.stop - event.block.start)

    with scaling["sized"](3, None):
        process_session.map(abs, range(10), progress=Chunks())
    assert sorted(chunks) == [1, 3, 3, 3]


def test_contenders_whose_package_is_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    common = runpy.run_path(str(ROOT / "benchmarks" / "common.py"))
    assert common["chosen"](["one", "other"], None) == ["one", "other"]
    monkeypatch.setitem(common["NEEDS"], "other", "no_such_package")
    assert common["chosen"](["one", "other"], None) == ["one"]
