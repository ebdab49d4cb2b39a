"""How the child of an isolated call comes to be: forked from a warm server, or from nothing."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

from admf_dask.endings import Ending
from admf_dask.local.channel import STATUS

_PRELOAD = ("numpy", "pandas", "admf_dask.runtime")
"""Loaded into the server where this process has them: the last for items that are done again."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(slots=True)
class Child:
    """A started child: its process group, and where its end is told (None for a process of our own)."""

    pid: int
    status: int | None
    process: subprocess.Popen[bytes] | None = None

    def ending(self) -> Ending:
        """How it ended. Waits for it; closes what was open."""
        if self.process is not None:
            self._end_group()
            # What the kernel tells of its memory counts this process too, whose image it was before its own began.
            return Ending(self.process.wait())
        assert self.status is not None
        told = b""
        while len(told) < STATUS.size and (piece := os.read(self.status, STATUS.size - len(told))):
            told += piece
        os.close(self.status)
        if len(told) < STATUS.size:
            # The server was killed, and its children die with it.
            return Ending(-signal.SIGKILL)
        code, peak = STATUS.unpack(told)
        return Ending(code, peak_memory=peak)

    def kill(self) -> None:
        """End the whole process group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _end_group(self) -> None:
        """What the child left behind ends with it, before its number can be another's."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()


class Server:
    """The fork server of this process: started with the first call, ended at exit or by `close`. Thread-safe."""

    def __init__(self) -> None:
        """Nothing is started."""
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self.usable = sys.platform == "linux"

    def start_child(self, channel: socket.socket, output: int, errors: int) -> Child | None:
        """A forked child at the other end of `channel`; None where forking is not safe."""
        with self._lock:
            for _ in range(2):
                if not self._ready():
                    return None
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"C"], [channel.fileno(), output, errors])
                    answer, descriptors, _, _ = socket.recv_fds(self._control, 8, 1)
                except OSError:
                    answer, descriptors = b"", []
                if len(answer) == 8 and descriptors:
                    os.set_inheritable(descriptors[0], False)
                    return Child(int.from_bytes(answer, "little"), descriptors[0])
                # The server was killed by somebody; one more try with another.
                self._end()
            return None

    def close(self) -> None:
        """End the server; the next call starts another."""
        with self._lock:
            self._end()

    def _ready(self) -> bool:
        if not self.usable:
            return False
        if self._control is not None and self._owner != os.getpid():
            # A fork of the process that started it: the server is not ours.
            self._control.close()
            self._control = self._process = None
        if self._control is None:
            self._start()
        return self.usable

    def _start(self) -> None:
        # With less in it if something there starts threads all the same; then not at all.
        for preload in ([name for name in _PRELOAD if name in sys.modules], []):
            if self._start_with(preload):
                return
            self._end()
        self.usable = False

    def _start_with(self, preload: list[str]) -> bool:
        atexit.register(self.close)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "admf_dask.local.forkserver", str(theirs.fileno()), *preload],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        self._control, self._owner = ours, os.getpid()
        return ours.recv(1) == b"S"

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None and self._owner == os.getpid():
            self._process.wait()
            atexit.unregister(self.close)
        self._control = self._process = None


def start_from_nothing(channel: socket.socket, output: int, errors: int, environment: dict[str, str]) -> Child:
    """A new interpreter at the other end of `channel`, with this environment from its first moment."""
    process = subprocess.Popen(
        [sys.executable, "-m", "admf_dask.local.child", str(channel.fileno())],
        pass_fds=[channel.fileno()], stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    return Child(process.pid, None, process)
