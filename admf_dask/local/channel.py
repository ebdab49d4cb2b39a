"""Messages between an isolated call and its caller: one byte of kind, eight of length, the rest."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import resource

RESULT, FAILURE, LOG = b"R", b"F", b"L"
_HEADER = struct.Struct("<cQ")
STATUS = struct.Struct("<iQ")
"""How a child ended: its exit code, or minus the signal, and the most bytes that were resident."""


def peak_bytes(used: resource.struct_rusage) -> int:
    """The largest resident size of an ended process; the kernels count it in different units."""
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def send(channel: socket.socket, kind: bytes, payload: bytes) -> None:
    """Send one message of any size."""
    channel.sendall(_HEADER.pack(kind, len(payload)))
    channel.sendall(payload)


class Inbox:
    """Puts messages together from what arrives in pieces."""

    def __init__(self) -> None:
        """Empty."""
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """The messages that are complete with this piece."""
        self._buffer += piece
        found: list[tuple[bytes, bytes]] = []
        while len(self._buffer) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + size:
                break
            found.append((kind, bytes(self._buffer[_HEADER.size : _HEADER.size + size])))
            del self._buffer[: _HEADER.size + size]
        return found


def receive(channel: socket.socket) -> bytes:
    """One whole message, blocking; its payload. Raises EOFError if the other end is gone."""
    _, size = _HEADER.unpack(_exactly(channel, _HEADER.size))
    return _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = channel.recv(min(1 << 20, size - len(pieces)))
        if not piece:
            raise EOFError("the other end closed the channel")
        pieces += piece
    return bytes(pieces)
