"""A `ParallelProgress` from other processes of this machine: a socket on loopback, opened when it is first sent to one.

A copy says the token that came with it, then one message of eight bytes for each call, and waits for the answer: so a count has
arrived when `update` returns, and nothing has to be flushed at the end of a task. Nothing received is ever unpickled.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
import secrets
import selectors
import socket
import struct
import threading
import weakref
from collections.abc import Callable

from admf_dask.progress.watchers import Counter

LOOPBACK = "127.0.0.1"
DISPLAY, STATISTICS = -1, -2
"""Messages; anything from 0 on is an increment."""
_MESSAGE, _ANSWER = struct.Struct("<q"), struct.Struct("<?dddd")
_TOKEN_BYTES = 32
MOST_LINKS = 16
"""Originals to which a process stays connected, the latest, also while it has no copy of them."""
logger = logging.getLogger("admf_dask")


class Relay:
    """The side of the original. Ends with it: nothing keeps a counter alive that nobody has any more."""

    def __init__(self, owner: Counter) -> None:
        """Raises OSError where no socket can be had."""
        self._owner = weakref.ref(owner)
        self.token = secrets.token_bytes(_TOKEN_BYTES)
        self._server = socket.create_server((LOOPBACK, 0))
        self.address: tuple[str, int] = self._server.getsockname()
        self._wake, waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="admf-dask-progress", daemon=True)
        self._thread.start()
        self.close: Callable[[], object] = weakref.finalize(owner, waker.close)

    def _serve(self) -> None:
        callers: dict[socket.socket, _Caller] = {}
        with selectors.DefaultSelector() as selector, self._server, self._wake:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        for connection in callers:
                            connection.close()
                        return
                    if key.fileobj is self._server:
                        connection, _ = self._server.accept()
                        callers[connection] = _Caller(connection, self.token, self._owner)
                        selector.register(connection, selectors.EVENT_READ)
                    elif not callers[connection := key.fileobj].hear():  # type: ignore[index, assignment]
                        selector.unregister(connection)
                        callers.pop(connection).connection.close()


class _Caller:
    """A connection: what came of a message so far."""

    def __init__(self, connection: socket.socket, token: bytes, owner: weakref.ref[Counter]) -> None:
        self.connection, self._token, self._owner = connection, token, owner
        self._known = False
        self._piece = b""

    def hear(self) -> bool:
        """Take what has come, and answer; False when the connection is over."""
        try:
            came = self.connection.recv(65_536)
            self._piece += came
            return bool(came) and self._recognised() and all(map(self._answer, self._messages()))
        except OSError:
            return False

    def _recognised(self) -> bool:
        if not self._known and len(self._piece) >= _TOKEN_BYTES:
            said, self._piece = self._piece[:_TOKEN_BYTES], self._piece[_TOKEN_BYTES:]
            self._known = hmac.compare_digest(said, self._token)
            return self._known
        return True

    def _messages(self) -> list[int]:
        if not self._known:
            return []
        whole = len(self._piece) // _MESSAGE.size * _MESSAGE.size
        messages, self._piece = self._piece[:whole], self._piece[whole:]
        return [message for (message,) in _MESSAGE.iter_unpack(messages)]

    def _answer(self, message: int) -> bool:
        owner = self._owner()
        if owner is None:
            return False
        shown = False
        if message >= 0:
            shown = owner.update(message)
        elif message == DISPLAY:
            owner.display()
        now = owner.statistics()
        left = math.nan if now.remaining is None else now.remaining
        self.connection.sendall(_ANSWER.pack(shown, now.completed, now.elapsed, now.rate, left))
        return True


class Link:
    """The side of the copies in a process: one connection for all of them, opened by the first call."""

    def __init__(self, address: tuple[str, int], token: bytes, host: str) -> None:
        """Nothing is opened yet."""
        self._address, self._token, self._host = address, token, host
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._broken = False

    def ask(self, message: int) -> tuple[bool, int, float, float, float | None] | None:
        """Whether a line was shown, completed, elapsed, rate, remaining; None if the original cannot be reached."""
        with self._lock:
            if self._broken:
                return None
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._connection.sendall(_MESSAGE.pack(message))
                shown, completed, elapsed, rate, left = _ANSWER.unpack(_exactly(self._connection, _ANSWER.size))
            except OSError as error:
                # The work is worth more than its count.
                self._broken = True
                if self._connection is not None:
                    self._connection.close()
                logger.warning("a ParallelProgress is not counted from here any more: %s", error)
                return None
        return shown, int(completed), elapsed, rate, None if math.isnan(left) else left

    def _connect(self) -> socket.socket:
        if socket.gethostname() != self._host:
            raise OSError(f"it lives on {self._host}, and is reached from processes of that machine only")
        connection = socket.create_connection(self._address, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(self._token)
        weakref.finalize(self, connection.close)
        return connection


def _exactly(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            raise OSError("the process that shows it is gone")
        got += piece
    return got


_links: dict[tuple[int, bytes], Link] = {}
_links_lock = threading.Lock()


def link_to(address: tuple[str, int], token: bytes, host: str) -> Link:
    """The one link of this process to an original."""
    with _links_lock:
        # A process that was forked has the dictionary of its parent, and needs connections of its own.
        key = os.getpid(), token
        link = _links[key] = _links.pop(key) if key in _links else Link(address, token, host)
        for oldest in list(_links)[:-MOST_LINKS]:
            # Its connection ends with the last copy that counts through it.
            del _links[oldest]
        return link
