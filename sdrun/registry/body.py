"""What is sent to a registry: bytes, or a piece of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol

PIECE = 1 << 16  # bytes that are read or sent at a time


class Body(Protocol):
    """What is sent."""

    @property
    def size(self) -> int:
        """How many bytes `read` gives."""
        ...

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, none at the end."""
        ...


@dataclass(slots=True)
class BytesBody:
    """Bytes to send."""

    data: bytes
    _at: int = 0

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    def read(self, count: int) -> bytes:
        """The next ones."""
        piece = self.data[self._at : self._at + count]
        self._at += len(piece)
        return piece


@dataclass(slots=True)
class FileBody:
    """The `size` bytes of an open file from where it stands; `told` hears of each piece that was sent."""

    file: IO[bytes]
    size: int
    told: Callable[[int], None] = lambda count: None

    def read(self, count: int) -> bytes:
        """The next ones."""
        piece = self.file.read(count)
        self.told(len(piece))
        return piece
