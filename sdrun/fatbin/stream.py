"""Bytes that come once, in order: a file, a pipe, a part of either. What is packed: sdrun.fatbin.packed."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Protocol

_CHUNK = 1 << 20


class Broken(ValueError):
    """A stream ends early or cannot be unpacked."""


class Stream(Protocol):
    """`read` gives exactly what was asked for, less at the end only. `skip` leaves bytes out and raises Broken where they are
    not there."""

    def read(self, length: int) -> bytes:
        """The next bytes."""
        ...

    def skip(self, length: int) -> None:
        """Leaves out the next bytes."""
        ...

    def place(self) -> tuple[int, int] | None:
        """Descriptor and offset where the next byte stands in a plain file, or None where it stands in none."""
        ...


class ReadStream:
    """A pipe, or an answer of a server: what `read` gives, which may be less at a time than was asked for, and is nothing at
    the end only."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def read(self, length: int) -> bytes:
        """See Stream."""
        data = self._read(length)
        if len(data) == length or not data:
            return data
        parts, missing = [data], length - len(data)
        while missing > 0 and (more := self._read(missing)):
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)

    def skip(self, length: int) -> None:
        """See Stream."""
        discard(self, length)

    def place(self) -> tuple[int, int] | None:
        """See Stream."""
        return None


class FileStream(ReadStream):
    """A plain file on disk from where it stands, in which bytes can be passed over and found again."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file.read)
        self._file = file

    def skip(self, length: int) -> None:
        """See Stream."""
        self._file.seek(self._file.tell() + max(0, length - 1))
        if length > 0 and not self._file.read(1):
            raise Broken("it ends early")

    def place(self) -> tuple[int, int] | None:
        """See Stream."""
        return self._file.fileno(), self._file.tell()


class Part:
    """The next `size` bytes of another stream, which must not be read meanwhile."""

    def __init__(self, whole: Stream, size: int) -> None:
        self._whole = whole
        self._head = b""
        self.left = size

    def peek(self, length: int) -> bytes:
        """The next bytes, which stay where they are."""
        if len(self._head) < length:
            self._head += self._whole.read(min(length, self.left) - len(self._head))
        return self._head[:length]

    def read(self, length: int) -> bytes:
        """See Stream."""
        length = min(length, self.left)
        data, self._head = self._head[:length], self._head[length:]
        if len(data) < length:
            data += self._whole.read(length - len(data))
        self.left -= len(data)
        return data

    def skip(self, length: int) -> None:
        """See Stream."""
        if length > self.left:
            raise Broken("it ends early")
        self.left -= length
        held, self._head = len(self._head[:length]), self._head[length:]
        if length > held:
            self._whole.skip(length - held)

    def place(self) -> tuple[int, int] | None:
        """See Stream."""
        there = self._whole.place()
        return None if there is None else (there[0], there[1] - len(self._head))


def discard(stream: Stream, length: int) -> None:
    """Skips by reading."""
    while length > 0:
        data = stream.read(min(length, _CHUNK))
        if not data:
            raise Broken("it ends early")
        length -= len(data)
