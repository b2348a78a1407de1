"""Bytes that come once, in order: a file, a pipe, a part of either. What is packed: sdrun.fatbin.packed."""

from __future__ import annotations

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


class PlainStream:
    """A file or a pipe, from where it stands. `on_disk`: a plain file, in which bytes can be passed over and found again."""

    def __init__(self, file: IO[bytes], *, on_disk: bool = False) -> None:
        self._file = file
        self._on_disk = on_disk

    def read(self, length: int) -> bytes:
        """See Stream."""
        data = self._file.read(length)
        while len(data) < length and (more := self._file.read(length - len(data))):
            data += more
        return data

    def skip(self, length: int) -> None:
        """See Stream."""
        if not self._on_disk:
            discard(self, length)
            return
        self._file.seek(self._file.tell() + max(0, length - 1))
        if length > 0 and not self._file.read(1):
            raise Broken("it ends early")

    def place(self) -> tuple[int, int] | None:
        """See Stream."""
        return (self._file.fileno(), self._file.tell()) if self._on_disk else None


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
