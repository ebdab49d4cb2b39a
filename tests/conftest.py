"""Fixtures shared by all tests: clusters opened once, and a watch that nothing is left behind."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leaks
import pytest

_SHARED = ("process_session", "thread_session", "hybrid_session", "any_session", "killable_session", "remote_address")
# A temporary folder of our own, so that other programs on the machine do not look like leaks.
_HOME = tempfile.mkdtemp(prefix="admf-dask-tests-")
os.environ["TMPDIR"] = _HOME
tempfile.tempdir = _HOME
# A shell that starts the tests in the background has them ignore Ctrl-C, which many of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the temporary folder."""
    import shutil

    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, thread, port or file behind.

    Sessions shared by many tests are opened before the first look, so they are not taken for leaks.
    """
    for name in request.fixturenames:
        if name in _SHARED:
            request.getfixturevalue(name)
    before = leaks.look(_HOME)
    yield
    left = leaks.wait_until_gone(_HOME, before)
    if left:
        pytest.fail("left behind: " + "; ".join(left))


def _session(mode: str, **options: Any) -> Iterator[Any]:
    from admf_dask import Session

    with Session(mode=mode, dashboard=None, **options) as session:
        yield session


@pytest.fixture(scope="session")
def process_session() -> Iterator[Any]:
    """Two worker processes."""
    yield from _session("process", workers=2)


@pytest.fixture(scope="session")
def hybrid_session() -> Iterator[Any]:
    """Two worker processes of two threads."""
    yield from _session("hybrid", workers=4, threads_per_process=2)


@pytest.fixture(scope="session")
def thread_session() -> Iterator[Any]:
    """Two threads of this process, both started, so that no test is blamed for them."""
    both = threading.Barrier(2)
    for session in _session("thread", workers=2):
        session.map(lambda _: both.wait(30), [0, 1], progress=False)
        yield session


@pytest.fixture(scope="session")
def inline_session() -> Iterator[Any]:
    """The calling thread."""
    from admf_dask import ParallelConfig, Session

    with Session(ParallelConfig(enabled=False)) as session:
        yield session


@pytest.fixture(params=["process", "thread", "hybrid", "inline"])
def any_session(request: pytest.FixtureRequest) -> Any:
    """Each of the modes in turn."""
    return request.getfixturevalue(f"{request.param}_session")


@pytest.fixture(params=["process", "hybrid"])
def killable_session(request: pytest.FixtureRequest) -> Any:
    """Each of the modes in which a worker can be ended."""
    return request.getfixturevalue(f"{request.param}_session")


@pytest.fixture
def here() -> Path:
    """The folder of the tests."""
    return Path(__file__).parent
