"""The watch sees what it should see."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import leaks
import pytest

pytest_plugins = ["pytester"]


def test_each_kind_of_leak_is_named_and_gone_when_it_is_gone() -> None:
    folder = tempfile.gettempdir()
    before = leaks.look(folder)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")
    thread.start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left_file = Path(folder, "left.txt")
    left_file.touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = " ".join(leaks.wait_until_gone(folder, before, seconds=0.0))
    assert "thread 'forgotten'" in words
    assert f"process {child.pid}" in words
    assert f"listening port 127.0.0.1:{port}" in words
    assert "left.txt" in words
    stop.set()
    thread.join()
    child.communicate(b"\n")
    left_file.unlink()
    assert leaks.wait_until_gone(folder, before) == []


def test_what_goes_away_by_itself_is_waited_for() -> None:
    folder = tempfile.gettempdir()
    before = leaks.look(folder)
    going = threading.Event()
    thread = threading.Thread(target=going.wait, name="on its way out")
    thread.start()
    threading.Timer(0.1, going.set).start()
    assert leaks.wait_until_gone(folder, before) == []
    assert not thread.is_alive()


def test_threads_that_a_process_keeps_are_tolerated() -> None:
    before = leaks.look(tempfile.gettempdir())
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait, name=f"{name}-0") for name in leaks.TOLERATED_THREADS]
    for thread in threads:
        thread.start()
    try:
        assert leaks.describe(before, leaks.look(tempfile.gettempdir()), tempfile.gettempdir()) == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_worker_that_its_nanny_replaced_is_no_leak_but_one_more_is() -> None:
    me = os.getpid()
    nothing = leaks.Seen(*[frozenset()] * 5)
    assert (
        leaks.describe(replace(nothing, processes=frozenset({1})), replace(nothing, processes=frozenset({me})), "")
        == []
    )
    (words,) = leaks.describe(nothing, replace(nothing, processes=frozenset({me})), "")
    assert words.startswith(f"process {me} (")


def test_a_test_that_leaks_fails_and_says_what(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makepyfile(
        """
        import tempfile
        from pathlib import Path

        import leaks

        leaks.wait_until_gone.__defaults__ = (0.0,)  # what it waits for here never goes

        def test_clean(tmp_path):
            (tmp_path / "mine.txt").touch()

        def test_leaking():
            Path(tempfile.gettempdir(), "left.txt").touch()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*Failed: left behind: file *left.txt"])


def test_a_child_that_ended_but_was_never_waited_for_is_a_leak() -> None:
    folder = tempfile.gettempdir()
    before = leaks.look(folder)
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert leaks.wait_until_gone(folder, before, seconds=0.0) == [f"process {child.pid} (ended, and never waited for)"]
    child.wait()
    assert leaks.wait_until_gone(folder, before) == []


def test_the_replacement_of_a_killed_worker_is_waited_for() -> None:
    folder = tempfile.gettempdir()
    command = [sys.executable, "-c", "input()"]
    first = subprocess.Popen(command, stdin=subprocess.PIPE)
    before = leaks.look(folder)
    first.communicate(b"\n")
    second: list[subprocess.Popen[bytes]] = []
    later = threading.Timer(0.2, lambda: second.append(subprocess.Popen(command, stdin=subprocess.PIPE)))
    later.name = leaks.TOLERATED_THREADS[0]
    later.start()
    try:
        assert leaks.wait_until_gone(folder, before) == []
        assert len(leaks.look(folder).processes) == len(before.processes)
    finally:
        later.join()
        second[0].communicate(b"\n")


def test_the_resource_tracker_of_multiprocessing_stays_and_is_no_leak() -> None:
    folder = tempfile.gettempdir()
    before = leaks.look(folder)
    code = "from multiprocessing.resource_tracker import main; input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert leaks.wait_until_gone(folder, before, seconds=0.0) == []
    assert child.poll() is None
    child.communicate(b"\n")
