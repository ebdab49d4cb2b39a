"""Importing the package, or asking it for light names, loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["bokeh", "dask", "distributed", "distributed.http.proxy", "numba", "pandas", "pyarrow"]


def loaded(code: str) -> set[str]:
    report = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_loads_nothing_heavy() -> None:
    assert loaded("import admf_dask") == set()


@pytest.mark.parametrize(
    "name", ["ParallelConfig", "ResourceManager", "IntRange", "AdmfError", "batch_objective", "steps"]
)
def test_light_names_load_nothing_heavy(name: str) -> None:
    assert loaded(f"from admf_dask import {name}") == set()


def test_a_session_without_a_page_loads_nothing_that_only_pages_need_and_no_numba() -> None:
    code = (
        "from admf_dask import Session\n"
        "with Session(mode='thread', workers=1, dashboard=None) as session:\n"
        "    session.map(abs, [1], progress=False)"
    )
    assert not loaded(code) & {"bokeh", "distributed.http.proxy", "numba"}
