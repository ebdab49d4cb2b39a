"""The project's own files agree with each other, and hold nothing that does not belong."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"dask": "dask-core", "pyyaml": "pyyaml"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(>=\s*[0-9.]+)?", line.strip())
        assert match, f"{line!r} has no plain lower bound"
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = (match[2] or "").replace(" ", "")
    return found


def test_environment_yml_lists_the_same_packages_with_the_same_bounds() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = bounds([line for line in environment if isinstance(line, str)])
    pip = bounds([line for block in environment if isinstance(block, dict) for line in block["pip"]])
    assert conda.pop("python") == PROJECT["requires-python"]
    conda.pop("pip")
    extras = [
        line
        for name in ("data", "calendars", "engines", "docs", "test")
        for line in PROJECT["optional-dependencies"][name]
        if "admf_dask" not in line
    ]
    wanted = bounds([*PROJECT["dependencies"], *extras])
    assert {**conda, **pip} == {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items()}


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") :].split("]", 1)[0]
    lines = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert len(lines) == len(PROJECT["dependencies"])
    assert [line for line in lines if "#" not in line] == []
    assert all(">=" in line for line in lines)


def listed(*options: str) -> list[Path]:
    found = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a checkout")
    return [ROOT / name for name in found.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    files = listed()
    assert ROOT / "pyproject.toml" in files
    return files


def test_nothing_generated_is_committed(committed: list[Path]) -> None:
    assert listed("--cached", "--ignored", "--exclude-standard") == []
    generated = re.compile(r"(\.log|\.egg-info|\.parquet|\.sqlite|\.feather|\.so|\.orig|\.rej|~)$")
    assert [path.name for path in committed if generated.search(path.name)] == []


@pytest.mark.parametrize(
    "name", ["a/__pycache__/b.pyc", "build/x", "dist/x.whl", ".mypy_cache/x", "dask-scratch-space/x", ".venv/x"]
)
def test_generated_files_are_ignored(name: str, committed: list[Path]) -> None:
    done = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT)
    assert done.returncode == 0


def test_no_path_of_one_machine_is_committed(committed: list[Path]) -> None:
    private = re.compile(r"(?<![\w.])/(home|root|work|Users)/\w")
    texts = [
        path
        for path in committed
        if path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".ipynb"} and path.exists()
    ]
    assert [path.name for path in texts if path.name != "test_packaging.py" and private.search(path.read_text())] == []


def test_the_top_level_is_what_the_house_says(committed: list[Path]) -> None:
    allowed = {
        ".ci", ".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "admf_dask", "benchmarks", "docs",
        "environment.yml", "notebooks", "pyproject.toml", "tests",
    }  # fmt: skip
    assert {path.relative_to(ROOT).parts[0] for path in committed} <= allowed


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"].partition(":")[0], citation["version"]) == (PROJECT["name"], PROJECT["version"])
    assert citation["license"] == PROJECT["license"]
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_the_version_stands_in_one_place_more_and_agrees() -> None:
    import admf_dask

    assert admf_dask.__version__ == PROJECT["version"]


def test_the_classifiers_begin_with_the_oldest_python() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert PROJECT["requires-python"] == f">={named[0]}"
    numbers = [int(name.partition(".")[2]) for name in named]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
