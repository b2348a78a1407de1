"""Random access to bytes that may be larger than memory.

Reads go through pread with a small window and not through mmap: a walk over the entries of a library touches one page in a
hundred, and every touched page of a mapping (with the neighbours the kernel maps along) counts as memory of the process.
"""

from __future__ import annotations

import os
from typing import Protocol

_WINDOW = 16 * 1024  # covers an entry's header and, mostly, the next small one


class Source(Protocol):
    """Bytes of a known size. `read` gives fewer bytes than asked for where the source ends, never an error."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        ...


class MemorySource:
    """Bytes already in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        return self._data[offset : offset + length] if offset >= 0 and length > 0 else b""


class FileSource:
    """An open file, or `size` bytes of it from `start`. The descriptor stays its owner's to close."""

    __slots__ = ("_descriptor", "_size", "_start", "_window", "_window_at")

    def __init__(self, descriptor: int, start: int = 0, size: int | None = None) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = os.fstat(descriptor).st_size - start if size is None else size
        self._window = b""
        self._window_at = 0

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        length = min(length, self._size - offset)
        if offset < 0 or length <= 0:
            return b""
        if length > _WINDOW:
            return os.pread(self._descriptor, length, self._start + offset)
        at = offset - self._window_at
        if at < 0 or at + length > len(self._window):
            self._window = os.pread(self._descriptor, min(_WINDOW, self._size - offset), self._start + offset)
            self._window_at, at = offset, 0
        return self._window[at : at + length]


class SliceSource:
    """A part of another source: a member of a static library."""

    __slots__ = ("_size", "_source", "_start")

    def __init__(self, source: Source, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self._size = max(0, min(size, source.size - start))

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        length = min(length, self._size - offset)
        return self._source.read(self._start + offset, length) if offset >= 0 and length > 0 else b""
