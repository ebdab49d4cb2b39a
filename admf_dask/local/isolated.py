"""`run_isolated_process`: a call in a fresh process, whose end, however it comes, is an answer."""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import pickle
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import psutil

from admf_dask.endings import Ending
from admf_dask.errors import TaskError, TaskFailed, TaskTimeout
from admf_dask.functions import misfit
from admf_dask.local.channel import FAILURE, LOG, RESULT, Inbox, send
from admf_dask.local.start import Child, Server, start_from_nothing
from admf_dask.text import format_bytes, parse_bytes

LOOK_SECONDS = 0.02
"""Between two looks at the memory of a child with a limit."""
_server = Server()
_utf8 = codecs.getincrementaldecoder("utf-8")


class RemoteTraceback(Exception):
    """The traceback in the child, as text; the cause of an error that an isolated call raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


OPTIONS = ("timeout", "memory_limit", "env", "cwd")


@dataclass(frozen=True)
class IsolatedCall:
    """`run_isolated_process` with options; made by `run_isolated_process.options(...)`."""

    timeout: float | None = None
    memory_limit: int | None = None
    env: Mapping[str, str] | None = None
    cwd: str | None = None

    def options(
        self,
        *,
        timeout: float | None = None,
        memory_limit: int | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> IsolatedCall:
        """The same call with limits: `run_isolated_process.options(timeout=5, memory_limit="1GB")(function, ...)`.

        timeout
            Seconds, after which the child and all processes it started are killed: TaskTimeout. Holds for C code too.
        memory_limit
            Bytes or a size such as `"1GB"` of resident memory, over the child and all processes it started, looked at
            every 20 ms; above it they are killed: WorkerDied with the figures.
        env
            Variables set on top of this process's. The child then starts from nothing (0.1 s and its imports), because some
            of them count only before libraries are loaded.
        cwd
            The folder to run in.
        """
        given: Any = timeout
        if given is not None and not (isinstance(given, (int, float)) and given > 0):
            raise ValueError(f"timeout counts seconds and must be above 0, but is {timeout!r}")
        limit = None if memory_limit is None else parse_bytes(memory_limit)
        return IsolatedCall(timeout, limit, env, None if cwd is None else os.fspath(cwd))

    def __call__(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `func(*args, **kwargs)` in a fresh process and return its result.

        Nothing of this process is inherited but environment, folder and import path; lambdas, closures and functions of
        notebooks travel by value, and the main script is not imported again. What the child prints goes to this process's
        `sys.stdout` and `sys.stderr`, what it logs to the loggers of the same names.

        Raises the function's own exception, with the child's traceback as its cause; WorkerDied, with signal or exit code,
        for a child that ended without an answer; TaskTimeout; TaskFailed for a function that cannot be sent, or a result or
        exception that cannot come back. Ctrl-C ends the child. No process, zombie or descriptor is left.

        Costs about 20 ms on Linux, forked from a warm server that has one thread and NumPy and pandas loaded if this process
        has; the first call and other platforms start from nothing. May be called from any thread. In the child BLAS and
        OpenMP have one thread, unless `env` says otherwise.
        """
        if not callable(func):
            raise TypeError(
                f"expected a function, but got {func!r:.60} ({type(func).__name__}); write run_isolated_process(func, *args), "
                "without calling it"
            )
        options = ", ".join(f"{name}=..." for name in OPTIONS if name in kwargs)
        if options and (why := misfit(func, *args, **kwargs)):
            raise TypeError(
                f"what stands beside the function is given to it, but {getattr(func, '__name__', func)!s}: {why}; for limits of "
                f"the process write run_isolated_process.options({options})(func, ...)"
            )
        try:
            packed = cloudpickle.dumps((func, args, kwargs), protocol=5)
        except Exception as error:
            raise TaskFailed(
                f"the call must survive pickling to reach the child, but {func!r:.80} or its arguments do not: {error}",
                item=func,
            ) from error
        return _Conversation(self, func).run(packed)

    def close(self) -> None:
        """End the warm server now rather than at exit; the next call starts another."""
        _server.close()


run_isolated_process = IsolatedCall()


@dataclass
class _Conversation:
    """One call: the child, what it says, and how it ends."""

    call: IsolatedCall
    func: Callable[..., Any]
    inbox: Inbox = field(default_factory=Inbox)
    decoders: dict[str, codecs.IncrementalDecoder] = field(
        default_factory=lambda: {name: _utf8("replace") for name in ("stdout", "stderr")}
    )
    answer: tuple[bytes, bytes] | None = None
    peak: int = 0

    def run(self, packed: bytes) -> Any:
        ours, theirs = socket.socketpair()
        output, output_end = os.pipe()
        errors, errors_end = os.pipe()
        child: Child | None = None
        stopped = ""
        try:
            try:
                child = self._start(theirs, output_end, errors_end)
            finally:
                theirs.close()
                os.close(output_end)
                os.close(errors_end)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send(ours, b"S", pickle.dumps(self._settings()))
                send(ours, b"C", packed)
            stopped = self._listen(child, ours, output, errors)
        except BaseException:
            # Ctrl-C, above all: the child goes before the caller hears of it.
            if child is not None:
                child.kill()
            raise
        finally:
            ending = child.ending() if child is not None else Ending()
            ours.close()
            os.close(output)
            os.close(errors)
        return self._conclude(stopped, replace(ending, memory_limit=self.call.memory_limit))

    def _start(self, theirs: socket.socket, output: int, errors: int) -> Child:
        if self.call.env is None and (forked := _server.start_child(theirs, output, errors)) is not None:
            return forked
        return start_from_nothing(theirs, output, errors, {**os.environ, **(self.call.env or {})})

    def _settings(self) -> dict[str, Any]:
        return {
            "environment": {**os.environ, **(self.call.env or {})},
            "folder": os.path.abspath(self.call.cwd or os.getcwd()),
            "path": sys.path,
            "arguments": sys.argv,
            "log_level": logging.root.getEffectiveLevel(),
        }

    def _listen(self, child: Child, channel: socket.socket, output: int, errors: int) -> str:
        """Read until all three ends are closed; returns why the child was stopped, if it was."""
        deadline = None if self.call.timeout is None else time.monotonic() + self.call.timeout
        with selectors.DefaultSelector() as ends:
            ends.register(channel, selectors.EVENT_READ, None)
            ends.register(output, selectors.EVENT_READ, "stdout")
            ends.register(errors, selectors.EVENT_READ, "stderr")
            while ends.get_map():
                for key, _ in ends.select(self._patience(deadline)):
                    if not self._read(key.fileobj, key.data):
                        ends.unregister(key.fileobj)
                        if key.data is None:
                            # It has answered or it is dead: what it started may not hold the pipes open for ever.
                            deadline = min(deadline or float("inf"), time.monotonic() + 1.0)
                if why := self._overstepped(child, deadline, answering=channel in ends.get_map()):
                    child.kill()
                    return why
                if channel not in ends.get_map() and deadline is not None and time.monotonic() > deadline:
                    child.kill()
                    return ""
        return ""

    def _patience(self, deadline: float | None) -> float | None:
        if self.call.memory_limit is not None:
            return LOOK_SECONDS
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def _overstepped(self, child: Child, deadline: float | None, *, answering: bool) -> str:
        if not answering:
            return ""
        if deadline is not None and time.monotonic() >= deadline:
            return "timeout"
        if self.call.memory_limit is not None:
            self.peak = max(self.peak, _resident(child.pid))
            if self.peak > self.call.memory_limit:
                return "memory"
        return ""

    def _read(self, end: Any, name: str | None) -> bool:
        """Take what there is; False at the end."""
        try:
            piece = end.recv(1 << 20) if name is None else os.read(end, 1 << 16)
        except ConnectionResetError:
            piece = b""
        if name is not None:
            # A piece may end within a character.
            stream, words = getattr(sys, name), self.decoders[name].decode(piece, final=not piece)
            if words and stream is not None:  # A service may have no streams, or closed ones.
                stream.write(words)
                stream.flush()
            return bool(piece)
        for kind, payload in self.inbox.feed(piece):
            if kind == LOG:
                record = logging.makeLogRecord(pickle.loads(payload))
                logging.getLogger(record.name).handle(record)
            else:
                self.answer = kind, payload
        return bool(piece)

    def _conclude(self, stopped: str, ending: Ending) -> Any:
        if stopped == "timeout":
            raise TaskTimeout(
                f"the call took longer than timeout={self.call.timeout:g} seconds and was killed", item=self.func
            )
        if stopped == "memory":
            # The kernel counts the child alone, we those it started too.
            peak = max(self.peak, ending.peak_memory or 0)
            raise replace(ending, peak_memory=peak).error(
                f"the isolated process outgrew memory_limit={format_bytes(self.call.memory_limit or 0)} (it had "
                f"{format_bytes(self.peak)}) and was killed",
                item=self.func,
            )
        if self.answer is None:
            raise ending.error(f"the isolated process {ending} without an answer", item=self.func)
        kind, payload = self.answer
        if kind == RESULT:
            try:
                return pickle.loads(payload)
            except Exception as error:
                raise TaskFailed(f"the result cannot be unpickled here: {error}", item=self.func) from error
        assert kind == FAILURE
        failure = pickle.loads(payload)
        raised = failure.exception(self.func)
        if isinstance(raised, TaskError):
            raise raised
        # The cause shows the traceback; as a note it would be there twice.
        raised.__notes__ = []
        raise raised from RemoteTraceback(failure.traceback)


def _resident(pid: int) -> int:
    """Resident bytes of a process and of all it started; 0 once it is gone."""
    total = 0
    try:
        child = psutil.Process(pid)
        for process in [child, *child.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    except psutil.Error:
        return total
    return total
