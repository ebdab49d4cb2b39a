"""A value as bytes that can be used where they lie: a pickle without its arrays, and the arrays behind it.

Pickle's protocol 5 hands out the memory of every array, index, mask and Arrow buffer instead of copying it, and puts a value
together again over any memory. So whatever pandas can pickle comes back exact (index, time zones, categories, nullable and
Arrow-backed columns, blocks of one dtype still in one piece), and its arrays are views of the mapped file. Arrow IPC would
give the columns only, and a frame of one dtype would be copied once more to be a block again. What NumPy alone would leave in
the pickle (`arrays` knows) is brought into such a form.

    magic, bytes of the head, head = pickle((body, [(offset, length), ...])), buffers at multiples of 64
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import pickle
import struct
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import numpy as np

from admf_dask.runtime.shared.arrays import reduce_array

_MAGIC = b"ADMFSH01"
_START = struct.Struct("<8sQ")
_ALIGN = 64
_SEGMENT = 8 * 2**20
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parcel:
    """A value in pieces that are still its own memory; nothing large has been copied."""

    head: bytes
    pieces: tuple[tuple[int, memoryview], ...]
    """Offset in the file and content."""
    size: int
    """Bytes of the file."""

    @classmethod
    def of(cls, value: Any, *, least: int = 1) -> Parcel:
        """Arrays below `least` bytes stay in the pickle. Raises what pickling raises, for a value that cannot travel."""
        body, buffers = dumps(value, least)
        lengths = [buffer.nbytes for buffer in buffers]
        # The head's length depends on the offsets it holds, so those count from the end of the head.
        offsets: list[int] = []
        end = 0
        for length in lengths:
            offsets.append(end)
            end = _aligned(end + length)
        head = pickle.dumps((body, list(zip(offsets, lengths, strict=True))), protocol=5)
        base = _aligned(_START.size + len(head))
        pieces = tuple((base + offset, buffer) for offset, buffer in zip(offsets, buffers, strict=True))
        return cls(_START.pack(_MAGIC, len(head)) + head, pieces, base + end)

    def write(self, path: Path) -> str:
        """Write the file and return its content's key, 32 hexadecimal digits. Raises OSError (ENOSPC) where there is no room.

        Costs 0.7 s for a gigabyte on two cores.
        """

        def one(offset: int, segment: memoryview) -> bytes:
            _write_all(file.fileno(), segment, offset)
            return hashlib.sha1(segment, usedforsecurity=False).digest()

        whole = hashlib.sha1(self.head, usedforsecurity=False)
        with open(path, "xb") as file:
            file.write(self.head)
            file.truncate(self.size)
            file.flush()
            if hasattr(os, "posix_fallocate"):
                # All room at once: what lacks fails before it is begun, and pages that lie side by side are read faster.
                os.posix_fallocate(file.fileno(), 0, self.size)
            for digest in _in_threads(one, list(self._segments())):
                whole.update(digest)
        return whole.hexdigest()[:32]

    def is_in(self, path: str) -> bool:
        """Whether the file holds just this, to the last bit. Costs 0.1 s for a gigabyte on two cores."""
        with open(path, "rb") as file:
            # All pages at once: a fault for each would cost more than the comparison.
            mapped = memoryview(mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | _POPULATE, prot=mmap.PROT_READ))
        if mapped.nbytes != self.size or mapped[: len(self.head)] != self.head:
            return False

        def same(offset: int, segment: memoryview) -> bool:
            return bool(np.array_equal(_words(segment), _words(mapped[offset : offset + segment.nbytes])))

        return all(_in_threads(same, list(self._segments())))

    def _segments(self) -> Iterator[tuple[int, memoryview]]:
        for offset, content in self.pieces:
            for low in range(0, content.nbytes, _SEGMENT):
                yield offset + low, content[low : low + _SEGMENT]


def dumps(value: Any, least: int = 1) -> tuple[bytes, list[memoryview]]:
    """The pickle of a value without its buffers of `least` bytes or more, and those. Raises what pickling raises."""
    file = io.BytesIO()
    pickler = _Pickler(file, max(1, least))
    pickler.dump(value)
    return file.getvalue(), pickler.buffers


def load(path: str) -> Any:
    """The value over the mapped file; its arrays cannot be written. Raises OSError if there is no such file."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    view = memoryview(mapped)
    magic, length = _START.unpack_from(view)
    if magic != _MAGIC:
        raise ValueError(f"{path} does not hold shared data")
    body, places = pickle.loads(view[_START.size : _START.size + length])
    base = _aligned(_START.size + length)
    return pickle.loads(body, buffers=_views(view, base, places))


def _views(view: memoryview, base: int, places: Sequence[tuple[int, int]]) -> Iterator[memoryview]:
    for offset, length in places:
        yield view[base + offset : base + offset + length]


def _in_threads(function: Callable[[int, memoryview], T], segments: list[tuple[int, memoryview]]) -> Iterator[T]:
    """Results in order; what the function does lets go of the interpreter."""
    if len(segments) < 2:
        yield from (function(*segment) for segment in segments)
        return
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1, len(segments))) as pool:
        yield from pool.map(lambda segment: function(*segment), segments)


def _words(content: memoryview) -> np.ndarray[Any, Any]:
    """As eight-byte words where the length allows."""
    return np.frombuffer(content, np.uint64 if content.nbytes % 8 == 0 else np.uint8)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Takes functions of scripts and notebooks, which keep the names of their files."""

    def reducer_override(self, value: Any) -> Any:
        """Only code is reduced otherwise than cloudpickle does."""
        return reduce_code(value) if isinstance(value, types.CodeType) else super().reducer_override(value)


def reduce_code(code: types.CodeType) -> Any:
    """As cloudpickle does, with the name of the file: from 3.1.3 on it writes <dynamic-code>, and a traceback told no place."""
    function, arguments = Pickler.dispatch_table[types.CodeType](code)
    return function, tuple(code.co_filename if part == "<dynamic-code>" else part for part in arguments)


class _Pickler(Pickler):
    """Puts large buffers aside."""

    def __init__(self, file: io.BytesIO, least: int) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._put_aside)
        self.buffers: list[memoryview] = []
        self._least = least

    def _put_aside(self, buffer: pickle.PickleBuffer) -> bool:
        # What is false here is out of the pickle.
        raw = buffer.raw()
        if raw.nbytes < self._least:
            return True
        self.buffers.append(raw)
        return False

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.nbytes >= self._least:
            reduced = reduce_array(value)
            if reduced is not NotImplemented:
                return reduced
        return super().reducer_override(value)


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _write_all(descriptor: int, content: memoryview, offset: int) -> None:
    while content.nbytes:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
