"""What layers and saved images are packed with, by their first bytes: gzip, zstd, xz, or nothing.

gzip and xz are the standard library's; zstd is from Python 3.14 on, and before that backports.zstd, the same module. Not the
decoder beside this one (sdrun.fatbin.zstd), made for cubins of some kilobytes: it unpacks 2.5 MB/s where libzstd does 450
(measured on 4 MiB of a program), and layers have hundreds of megabytes.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from sdrun.fatbin.stream import Broken, Part, Stream, discard

MAX_UNPACKED = 64 << 30  # of one stream; a layer is a few GiB, a bomb has no end
_FED = 1 << 16  # small, because what a short gzip member or zstd frame leaves over is copied for the next one
_TAKEN = 1 << 20
_SKIPPABLE = tuple(bytes((number, 0x2A, 0x4D, 0x18)) for number in range(0x50, 0x60))  # zstd frames without content (RFC 8878)
HEAD = 6  # bytes by which a packing is known


class Decompressor(Protocol):
    """One member or frame, as the modules `bz2`, `lzma` and `zstd` take them apart."""

    @property
    def eof(self) -> bool:
        """Whether its end was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before something goes in."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was put in and stands behind its end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """The next bytes, at most `max_length`."""
        ...


class _Gzip:
    """zlib's object in that form."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        out = self._object.decompress(self._object.unconsumed_tail + data, max_length)
        self.needs_input = not self._object.unconsumed_tail and len(out) < max_length
        return out


class PackedStream:
    """What a packed stream unpacks to, all its members one after the other. Raises Broken for damage, and where more than
    MAX_UNPACKED bytes come out."""

    def __init__(self, packed: Stream, kind: str) -> None:
        self._packed = packed
        self._kind = kind
        self._new, self._damage = _decompressor(kind)
        self._engine = self._new()
        self._ready = b""
        self._left = MAX_UNPACKED

    def _more(self) -> bool:
        while not self._ready:
            if self._engine.eof:
                fed = self._engine.unused_data or self._packed.read(_FED)
                if not fed.strip(b"\0"):
                    return False
                self._engine = self._new()
            else:
                fed = self._packed.read(_FED) if self._engine.needs_input else b""
                if not fed and self._engine.needs_input:
                    raise Broken(f"a {self._kind} stream ends early")
            try:
                self._ready = self._engine.decompress(fed, _TAKEN)
            except self._damage as fault:
                raise Broken(f"a {self._kind} stream is damaged: {fault}") from None
        self._left -= len(self._ready)
        if self._left < 0:
            raise Broken(f"a {self._kind} stream unpacks to more than {MAX_UNPACKED >> 30} GiB")
        return True

    def read(self, length: int) -> bytes:
        """See Stream."""
        parts, missing = [], length
        while missing > 0 and (self._ready or self._more()):
            part, self._ready = self._ready[:missing], self._ready[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def skip(self, length: int) -> None:
        """See Stream."""
        discard(self, length)

    def place(self) -> tuple[int, int] | None:
        """See Stream."""
        return None


def packing(head: bytes) -> str | None:
    """`gzip`, `zstd` or `xz`, by the first HEAD bytes; None for anything else."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith((b"\x28\xb5\x2f\xfd", *_SKIPPABLE)):
        return "zstd"
    return "xz" if head.startswith(b"\xfd7zXZ\0") else None


def unpacked(stream: Stream) -> Part:
    """The bytes of `stream`, unpacked where they are packed."""
    part = Part(stream, 1 << 62)
    kind = packing(part.peek(HEAD))
    return part if kind is None else Part(PackedStream(part, kind), 1 << 62)


def first_bytes(data: bytes, length: int) -> bytes:
    """The first `length` bytes of what the zstd frame in `data` unpacks to; fewer where `data` is cut off, none where it is no
    frame."""
    new, damage = _decompressor("zstd")
    try:
        return new().decompress(data, length)
    except damage:
        return b""


def _decompressor(kind: str) -> tuple[Callable[[], Decompressor], type[Exception]]:
    """How one is made, and what it raises for damage. Imported when needed: most layers are gzip."""
    if kind == "gzip":
        return _Gzip, zlib.error
    if kind == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(memlimit=256 << 20), lzma.LZMAError
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor, zstd.ZstdError
