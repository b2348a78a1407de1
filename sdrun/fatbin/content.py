"""What an entry is, whatever it is packed with: digests by which the same code is known again."""

from __future__ import annotations

import hashlib

from sdrun.fatbin import lz4
from sdrun.fatbin.container import Entry
from sdrun.fatbin.packed import PackedStream
from sdrun.fatbin.source import Source
from sdrun.fatbin.stream import Broken, ReadStream

MAX_SIZE = 1 << 29  # of one entry unpacked; the largest known has 20 MB
_STEP = 1 << 20


def stored_digest(source: Source, entry: Entry) -> bytes:
    """A digest of the bytes as they are stored, their packing, and which part of them the entry is. Equal ones are equal code;
    different ones may be, too."""
    part = f"{entry.compression} {entry.inner} {entry.size}"
    digest = hashlib.sha256(part.encode())
    for at in range(entry.offset, entry.offset + entry.stored, _STEP):
        digest.update(source.read(at, min(_STEP, entry.offset + entry.stored - at)))
    return digest.digest()


def content_digest(source: Source, entry: Entry) -> bytes:
    """A digest of the code itself, unpacked, without the zeros that fill it up. Takes as much memory as that has bytes, 512 MiB
    at most. Raises lz4.Corrupt where it cannot be unpacked."""
    if entry.compression == "zstd":
        data = _unzstd(source, entry)
    elif entry.compression == "lz4":
        data = lz4.decompress(source.read(entry.offset, entry.stored), MAX_SIZE)
    else:
        data = source.read(entry.offset, min(entry.stored, MAX_SIZE))
    if entry.size and len(data) < entry.inner + entry.size:
        raise lz4.Corrupt(f"{len(data)} bytes where {entry.inner + entry.size} are promised")
    data = data[entry.inner : entry.inner + entry.size] if entry.size else data
    return hashlib.sha256(data.rstrip(b"\0")).digest()


def _unzstd(source: Source, entry: Entry) -> bytes:
    at, end = entry.offset, entry.offset + entry.stored

    def read(length: int) -> bytes:
        nonlocal at
        data = source.read(at, min(length, end - at))
        at += len(data)
        return data

    try:
        return PackedStream(ReadStream(read), "zstd").read(MAX_SIZE)
    except Broken as fault:
        raise lz4.Corrupt(str(fault)) from None
