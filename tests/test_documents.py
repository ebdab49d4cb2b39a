"""The README's code and the practices run, and say what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    printed = run(BLOCKS[place], tmp_path)
    after = README.split(BLOCKS[place])[1]
    shown = re.match(r"```\n\nprints\n\n```\n(.*?)```", after, flags=re.DOTALL)
    if shown:
        assert printed == shown[1]


def test_the_readme_has_its_two_commands() -> None:
    commands = re.findall(r"```bash\n(python3 -m venv .*?)\n```", README)
    assert len(commands) == 2
    assert commands[0].endswith("admf-dask optimize")
    assert commands[1].endswith("python -m pytest")


PRACTICES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "best-practices.md").read_text(), flags=re.DOTALL)


def test_there_are_ten_practices_with_an_example_each() -> None:
    titles = re.findall(r"^## (\d+)\. ", (ROOT / "docs" / "best-practices.md").read_text(), flags=re.MULTILINE)
    assert titles == [str(number) for number in range(1, 11)]
    assert len(PRACTICES) == 10


@pytest.mark.parametrize("place", range(len(PRACTICES)))
def test_the_practices_run(place: int, tmp_path: Path) -> None:
    run(PRACTICES[place], tmp_path)
