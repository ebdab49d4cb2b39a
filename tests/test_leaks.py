"""The watch sees what it should see."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import leaks


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
