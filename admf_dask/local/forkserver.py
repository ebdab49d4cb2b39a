"""A small process that forks one child for each isolated call: the interpreter and the imports are paid once.

It has one thread for all its life, so that forking it is safe: what would start threads is not imported into it. It reads
requests (three descriptors each) from a socket; when that closes, however the parent ended, it ends and its children with it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import socket
import sys

from admf_dask.local.channel import STATUS, peak_bytes
from admf_dask.local.child import die_with_parent, new_group, serve, threads_here


def main(control: socket.socket, preload: list[str]) -> None:
    """Serve until the control socket closes."""
    for name in preload:
        # A package that cannot be imported here will say so in the call that needs it.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if threads_here() > 1:
        # Not safe to fork any more; the parent starts from nothing instead.
        control.sendall(b"T")
        return
    control.sendall(b"S")
    wake, awake = socket.socketpair()
    awake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(awake.fileno())
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            wake.recv(4096)
        _reap(children)
        if control in ready:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 3)
            if len(descriptors) != 3:
                break
            _start(control, children, descriptors, (wake, awake))
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _start(
    control: socket.socket,
    children: dict[int, int],
    descriptors: list[int],
    wakers: tuple[socket.socket, socket.socket],
) -> None:
    channel, output, errors = descriptors
    status_read, status = os.pipe()
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        new_group()
        os.dup2(output, 1)
        os.dup2(errors, 2)
        for descriptor in (output, errors, status, status_read, *children.values()):
            os.close(descriptor)
        for waker in (control, *wakers):
            waker.close()
        serve(socket.socket(fileno=channel))
    for descriptor in descriptors:
        os.close(descriptor)
    children[pid] = status
    # The caller reads how the child ended from a pipe of its own.
    socket.send_fds(control, [pid.to_bytes(8, "little")], [status_read])
    os.close(status_read)


def _reap(children: dict[int, int]) -> None:
    for pid, status in list(children.items()):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            continue
        # While the dead child is not yet reaped its number cannot belong to another process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, code, used = os.wait4(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(status, STATUS.pack(os.waitstatus_to_exitcode(code), peak_bytes(used)))
        os.close(status)
        del children[pid]


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
