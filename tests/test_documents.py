"""The README's code and the practices run, and say what they say."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import leaks
import pytest

from admf_dask.cli import STUDY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(code: str, folder: Path) -> str:
    script = folder / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=150, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.cluster
@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_the_readme_runs(place: int, tmp_path: Path) -> None:
    if 'data="prices"' in BLOCKS[place]:
        write_real_prices(tmp_path)
    printed = run(BLOCKS[place], tmp_path)
    after = README.split(BLOCKS[place])[1]
    shown = re.match(r"```\n\n[^`]*prints\n\n```\n(.*?)```", after, flags=re.DOTALL)
    if shown:
        assert printed == shown[1]


def write_real_prices(folder: Path) -> None:
    """A file for each of 524 members of the S&P 500."""
    (folder / "prices").mkdir()
    runpy.run_path(str(ROOT / "benchmarks" / "symbol_work.py"))["write_real"](folder / "prices")


@pytest.mark.cluster
def test_the_readmes_symbol_script_goes_on_after_kill_9(tmp_path: Path) -> None:
    write_real_prices(tmp_path)
    (script,) = (block for block in BLOCKS if 'data="prices"' in block)
    assert len([line for line in script.splitlines() if line]) <= 10
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    out = tmp_path / "features"
    with subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as first:
        while len(list(out.glob("[!.]*.parquet"))) < 150:
            assert first.poll() is None
        first.kill()
    assert not leaks.still_there(str(tmp_path)), "an orphan"
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("[!.]*.parquet")}
    assert 150 <= len(done) < 524
    printed = run(script, tmp_path)
    assert printed == f"<SymbolResults: 524 ok ({len(done)} of them skipped), 0 failed>\n"
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done, "one was done twice"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [".journal", *(path.name for path in (tmp_path / "prices").iterdir())]
    ), "one is missing, or half"


def test_the_readme_has_its_two_commands() -> None:
    commands = re.findall(r"```bash\n(python3 -m venv .*?)\n```", README)
    assert len(commands) == 2
    assert commands[0].endswith("admf-dask optimize")
    assert commands[1].endswith("python -m pytest")


def test_the_readmes_study_is_the_one_that_help_shows() -> None:
    assert f"```yaml\n{STUDY}```" in README


PRACTICES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "best-practices.md").read_text(), flags=re.DOTALL)


def test_there_are_ten_practices_with_an_example_each() -> None:
    titles = re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "best-practices.md").read_text(), flags=re.MULTILINE)
    assert titles == [str(number) for number in range(1, 11)]
    assert len(PRACTICES) == 10


@pytest.mark.parametrize("place", range(len(PRACTICES)))
def test_the_practices_run(place: int, tmp_path: Path) -> None:
    run(PRACTICES[place], tmp_path)
