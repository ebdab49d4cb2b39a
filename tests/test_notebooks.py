"""The notebooks, executed in a real kernel, give what is committed; and the comparison sees what it should."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from admf_dask.text import format_rate, format_seconds

FOLDER = Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]_*.py"))
MARK = "ADMF_TEST_NOTEBOOK"
LARGEST = 300_000


def load() -> Any:
    spec = importlib.util.spec_from_file_location("notebook_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build() -> Any:
    return load()


def marked(mark: str) -> list[str]:
    """Processes that were started below the one with this mark in its environment, and still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:120])
        except psutil.Error:
            continue
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_gives_what_is_committed(source: Path, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, str(FOLDER / "build.py"), "--check", source.stem],
        env={**os.environ, "TMPDIR": str(tmp_path), MARK: mark}, capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert marked(mark) == []
    assert list(tmp_path.iterdir()) == []


def test_there_are_seven_and_each_is_small_enough_to_read_online() -> None:
    committed = sorted(FOLDER.glob("*.ipynb"))
    assert [path.stem for path in committed] == [path.stem for path in SOURCES]
    assert len(SOURCES) == 7
    assert {path.name: path.stat().st_size for path in committed if path.stat().st_size > LARGEST} == {}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole(source: Path, build: Any) -> None:
    notebook = build.nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    data = [output["data"] for output in outputs if "data" in output]
    # Every figure has its picture, and nothing needs a network or a running kernel to be seen.
    assert [
        each[build.TEXT] for each in data if each.get(build.TEXT, "").startswith("[") and build.PICTURE not in each
    ] == []
    assert not any(build.SCRIPT in each or "<script" in each.get(build.HTML, "") for each in data)


@pytest.fixture
def committed(build: Any) -> Any:
    return build.nbformat.read(SOURCES[0].with_suffix(".ipynb"), as_version=4)


def test_a_comparison_sees_another_number_and_another_figure(build: Any, committed: Any) -> None:
    assert build.differences(committed, copy.deepcopy(committed)) == []
    for old, new in (("1.244", "1.245"), ("Rect of 2,530", "Rect of 2,529")):
        changed = build.nbformat.reads(build.nbformat.writes(committed).replace(old, new), as_version=4)
        found = "\n".join(build.differences(committed, changed))
        assert old in found
        assert new in found


def test_a_comparison_sees_another_source_and_a_missing_output(build: Any, committed: Any) -> None:
    changed = copy.deepcopy(committed)
    changed.cells[0].source += "\nMore."
    assert "+More." in build.differences(committed, changed)
    changed = copy.deepcopy(committed)
    next(cell for cell in changed.cells if cell.get("outputs")).outputs.clear()
    assert build.differences(committed, changed) != []


DURATIONS = itertools.pairwise((2e-4, 0.05, 1.5, 59.9, 62.0, 3_900.0, 200_000.0))
RATES = itertools.pairwise((0.05, 1.5, 165.0, 12_345.0))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("finished in 1.2 s, 165/s", "finished in 981 ms, 1,203/s", True),
        ("finished in 1 min 2 s", "finished in 3 min 11 s", True),
        # All that a duration and a rate can read like.
        *((f"took {format_seconds(one)}", f"took {format_seconds(other)}", True) for one, other in DURATIONS),
        *((f"at {format_rate(one)}, best 1", f"at {format_rate(other)}, best 1", True) for one, other in RATES),
        ("limit 600.0 MiB", "limit 1.2 GiB", False),  # another unit is another order of magnitude
        ("it had 999 MiB", "it had 1.1 GiB", True),  # except of a process that is stopped while it grows
        ("used 61 MiB", "used 62 MiB", True),
        ("16 ok, 0 failed", "15 ok, 1 failed", False),
        ("best 1.244, finished in 1.2 s", "best 1.245, finished in 1.2 s", False),
        ("12 symbols", "13 symbols", False),
        ("10 spaces", "11 spaces", False),
    ],
)
def test_only_what_must_vary_is_blurred(build: Any, one: str, other: str, same: bool) -> None:
    assert (build.blurred(one) == build.blurred(other)) is same


def test_a_measured_cell_is_compared_in_its_words(build: Any) -> None:
    assert build.blurred("worker 17   -1.5e+06", measured=True) == build.blurred("worker 8 2", measured=True)
    assert build.blurred("driver 17", measured=True) != build.blurred("worker 17", measured=True)
    assert build.blurred("done in 900 ms", measured=True) == build.blurred("done in 1.1 s", measured=True)


def test_nothing_of_this_machine_is_written(build: Any) -> None:
    found = build.clean(
        f"{build.HERE.parent}/admf_dask/x.py /opt/env/lib/python3.12/site-packages/dask/y.py "
        "File /tmp/ipykernel_123/456.py:5: http://127.0.0.1:43211/runs tcp://127.0.0.1:4711 process 1234567 ended"
    )
    assert found == (
        "admf_dask/x.py dask/y.py File notebook:5: http://127.0.0.1:8787/runs tcp://127.0.0.1:8786 process 1234 ended"
    )
