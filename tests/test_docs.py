"""The pages are built without a warning, show every public name, and their code runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import admf_dask

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"best-practices", "other-engines"}
"""Their code is run by `test_documents` and `test_foreign_engines`."""
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.stem not in ELSEWHERE)
RUN = [
    pytest.param(block, id=f"{page.stem}-{place}")
    for page in PAGES
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
]
READ = [
    pytest.param(block, id=f"{page.stem}-{place}")
    for page in PAGES
    for place, block in enumerate(re.findall(r"```py\n(.*?)```", page.read_text(), flags=re.DOTALL))
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("html")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=150)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reference_has_every_public_name(built: Path) -> None:
    text = (built / "api.html").read_text()
    modules = {"datasets", "engine", "steps", "__version__"}
    missing = [name for name in admf_dask.__all__ if name not in modules and f'id="admf_dask.{name}"' not in text]
    assert [name for name in missing if f'id="admf_dask.errors.{name}"' not in text] == []


def test_fenced_code_of_docstrings_is_code(built: Path) -> None:
    text = (built / "api.html").read_text()
    assert "```" not in text
    assert 'class="highlight-python' in text


@pytest.mark.cluster
@pytest.mark.parametrize("block", RUN)
def test_the_code_runs(block: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", READ)
def test_code_for_other_systems_is_python_and_names_what_there_is(block: str) -> None:
    compile(block, "page", "exec")
    for line in re.findall(r"^from admf_dask import (.*)$", block, flags=re.MULTILINE):
        assert all(hasattr(admf_dask, name.strip()) for name in line.split(","))


def test_the_programs_named_as_proof_are_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"`((?:tests|benchmarks)/\w+\.py)`", page.read_text())}
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
