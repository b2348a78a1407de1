"""gzip on all cores, the same bytes on any number of them: blocks are packed independently, each with the 32 KiB before it as
dictionary, and put in order (as pigz does; RFC 1951 and 1952). Any program that reads gzip reads it."""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

LEVEL = 6
_BLOCK = 1 << 20
_WINDOW = 1 << 15
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no date, no system: the same bytes everywhere


class GzipCompressor:
    """`compress` takes bytes and gives what is ready, `flush` the rest. zlib lets go of the interpreter while it packs."""

    def __init__(self, threads: int | None = None) -> None:
        count = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="gzip")
        self._waiting: deque[Future[bytes]] = deque()
        self._most = 2 * count
        self._rest = bytearray()
        self._before = b""
        self._crc = 0
        self._size = 0
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        """What is ready after these bytes."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._rest += data
        ready = self._header()
        while len(self._rest) > _BLOCK:  # one is kept back: the last block is ended otherwise
            self._submit(bytes(self._rest[:_BLOCK]), last=False)
            del self._rest[:_BLOCK]
            if len(self._waiting) >= self._most:
                ready += self._waiting.popleft().result()
        return ready

    def flush(self) -> bytes:
        """The rest; nothing can be added afterwards."""
        ready = self._header()
        self._submit(bytes(self._rest), last=True)
        ready += b"".join(block.result() for block in self._waiting)
        self._pool.shutdown()
        return ready + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)

    def _header(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _HEADER

    def _submit(self, block: bytes, *, last: bool) -> None:
        self._waiting.append(self._pool.submit(_pack, block, self._before, last))
        self._before = block[-_WINDOW:]


def _pack(block: bytes, before: bytes, last: bool) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before) if before else _first()
    return packer.compress(block) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def _first() -> zlib._Compress:
    return zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
