"""The pages are built without a warning, show every public name, and their code runs."""

from __future__ import annotations

import json
import os
import re
import shutil
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
    # Pages of notebooks are made beside the others, so a copy keeps this tree as it is.
    place = tmp_path_factory.mktemp("docs")
    (place / "notebooks").symlink_to(ROOT / "notebooks")
    source = shutil.copytree(ROOT / "docs", place / "docs", ignore=shutil.ignore_patterns("_build", "_notebooks"))
    folder = place / "html"
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
        str(source),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=150)
    assert done.returncode == 0, done.stderr
    return folder


def reference(built: Path) -> str:
    return "".join(path.read_text() for path in sorted(built.glob("api*.html")))


def test_the_reference_has_every_public_name(built: Path) -> None:
    text = reference(built)
    modules = {"datasets", "engine", "steps", "__version__"}
    missing = [name for name in admf_dask.__all__ if name not in modules and f'id="admf_dask.{name}"' not in text]
    assert [name for name in missing if f'id="admf_dask.errors.{name}"' not in text] == []


def test_the_reference_shows_calls_and_not_the_inside(built: Path) -> None:
    text = reference(built)
    for name in ("ParameterSpace.sample", "ParameterSpace.from_yaml", "BacktestResults.plot", "SymbolResults.to_dask"):
        assert f'id="admf_dask.{name}"' in text
    assert "in a fresh process and return its result" in text  # of run_isolated_process, which is an object
    for inside in ("_NOT_GIVEN", "_NotGiven", "&lt;object object", "identity_parts", "ParameterSpace.mask"):
        assert inside not in text


def test_notebooks_are_pages(built: Path) -> None:
    sources = sorted((ROOT / "notebooks").glob("[0-9]_*.ipynb"))
    assert len(sources) == 7
    for source in sources:
        text = (built / "_notebooks" / f"{source.stem}.html").read_text()
        shown = [output for cell in json.loads(source.read_text())["cells"] for output in cell.get("outputs", ())]
        pictures = [output for output in shown if "image/png" in output.get("data", {})]
        assert len(re.findall(r'<img alt="[^"]+" src="\.\./_images/', text)) == len(pictures)
        assert ".ipynb)" not in text


def test_fenced_code_of_docstrings_is_code(built: Path) -> None:
    text = reference(built)
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
