"""The child's side of an isolated call: become a process of its own, call, answer, end.

Run as `python -m admf_dask.local.child FD` for a call that starts from nothing; a fork server calls `serve` after forking.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import cloudpickle

from admf_dask.local.channel import FAILURE, LOG, RESULT, receive, send
from admf_dask.outcomes import Failure

_PR_SET_PDEATHSIG = 1
_OF_ARROW = "jemalloc_bg_thd"
"""The thread's name. pandas brings it along."""
_speaking = threading.RLock()
"""Held for a whole message: threads that the function has started may log while the result is sent."""


def _say(channel: socket.socket, kind: bytes, payload: bytes) -> None:
    with _speaking:
        send(channel, kind, payload)


class _ToCaller(logging.Handler):
    """Log records go to the caller's loggers of the same names; of processes that the function has forked, to stderr."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel, self._pid = channel, os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Send it with its message made, since arguments may not travel."""
        if os.getpid() != self._pid:
            # Two processes on one channel would speak into each other's messages.
            sys.stderr.write(f"{record.getMessage()}\n")
            return
        plain = logging.makeLogRecord(record.__dict__)
        plain.msg, plain.args = record.getMessage(), None
        if record.exc_info:
            plain.exc_text = logging.Formatter().formatException(record.exc_info)
            plain.exc_info = None
        try:
            _say(self._channel, LOG, pickle.dumps(plain.__dict__))
        except (pickle.PicklingError, AttributeError, TypeError):
            kept = {key: value for key, value in plain.__dict__.items() if isinstance(value, (str, int, float))}
            _say(self._channel, LOG, pickle.dumps(kept))


def serve(channel: socket.socket) -> NoReturn:
    """Read the call, run it, send what became of it, end the process. Never returns into code of the parent's."""
    code = 1
    try:
        code = _serve(channel)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)


def _serve(channel: socket.socket) -> int:
    settings = pickle.loads(receive(channel))
    packed = receive(channel)
    _settle_in(settings)
    logging.root.handlers[:] = [_ToCaller(channel)]
    logging.root.setLevel(settings["log_level"])
    try:
        function, args, kwargs = pickle.loads(packed)
        came = classes_by_value()
        value = function(*args, **kwargs)
    except SystemExit as end:
        # As it would end any process; the caller is told the code.
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001 - raised again by the caller
        _say(channel, FAILURE, pickle.dumps(Failure.from_exception(error, inside=os.path.dirname(__file__))))
        return 0
    answer: bytes | None
    try:
        answer = pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - classes of notebooks and lambdas go by value
        answer = _by_value(channel, value, came)
    if answer is not None:
        _say(channel, RESULT, answer)
    return 0


class _Homeward(cloudpickle.Pickler):  # type: ignore[misc]
    """Classes that came by value with the call go back by name: by value they would replace the methods of the caller's own."""

    def __init__(self, file: io.BytesIO, came: Mapping[type, str]) -> None:
        super().__init__(file, protocol=5)
        self._came = came

    def reducer_override(self, obj: Any) -> Any:
        """As the stock one, but for those classes."""
        if isinstance(obj, type) and obj in self._came:
            return class_of_caller, (self._came[obj],)
        return super().reducer_override(obj)


def classes_by_value() -> dict[type, str]:
    """The classes that this process has by value, and the names under which both sides know them."""
    return dict(cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS)


def class_of_caller(name: str) -> type:
    """The caller's own class, in the caller."""
    found: type = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[name]
    return found


def _by_value(channel: socket.socket, value: Any, came: Mapping[type, str]) -> bytes | None:
    file = io.BytesIO()
    try:
        _Homeward(file, came).dump(value)
    except Exception as error:  # noqa: BLE001 - __reduce__ is user code
        words = f"a result must survive pickling to travel back, but {type(value).__name__} does not ({error})"
        _say(channel, FAILURE, pickle.dumps(Failure("error", "TypeError", words, "")))
        return None
    return file.getvalue()


def _settle_in(settings: Mapping[str, Any]) -> None:
    """Take over what a call may rely on: environment, folder, import path, arguments; nothing else of anybody's."""
    os.environ.clear()
    os.environ.update(settings["environment"])
    os.chdir(settings["folder"])
    sys.path[:] = settings["path"]
    sys.argv[:] = settings["arguments"]


def new_group() -> None:
    """A process group of its own, so that all of it can be ended; signals as in a fresh process, but not Ctrl-C."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)


def die_with_parent() -> None:
    """End when the process that started this one ends, however it ends (Linux)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def threads_here() -> int:
    """Threads of this process that forbid a fork: all but that of Arrow's allocator, which knows how to be forked."""
    try:
        names = [Path("/proc/self/task", task, "comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    except OSError:
        return threading.active_count()
    return len([name for name in names if name != _OF_ARROW])


if __name__ == "__main__":
    new_group()
    serve(socket.socket(fileno=int(sys.argv[1])))
