"""The containers of compiled GPU code ("fatbins") that nvcc leaves in a host binary, and the entries inside them.

Layout (little-endian), from NVIDIA's fatbinary_section.h, the published work of n-eiling/cuda-fatbin-decompression and
VivekPanyam/cudaparsers, and comparison with cuobjdump: a 16-byte container header, then entries back to back, each a header of
at least 64 bytes and a payload. Nothing has to be decompressed to list what is there.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sdrun.core.capability import Arch
from sdrun.core.index import Compression
from sdrun.fatbin.source import Source

MAGIC = struct.pack("<I", 0xBA55ED50)
ALIGNMENT = 8
MAX_ENTRIES = 1_000_000  # two hundred times the largest library NVIDIA ships; only a made-up file has more

_CONTAINER = struct.Struct("<IHHQ")  # magic, version, header bytes, payload bytes
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_RECORD = struct.Struct("<HHII12xHHI8xQ16x")  # one record of a concat group; 64 bytes: kind, ?, where, size, ...
_KINDS: dict[int, Literal["ptx", "cubin", "lto"]] = {1: "ptx", 2: "cubin", 8: "lto"}
_CONCAT = 256
_LZ4, _ZSTD, _ARCH_SPECIFIC, _FAMILY = 0x2000, 0x8000, 0x100000, 0x200000
_SEARCH_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of GPU code. `version` is the PTX ISA version of PTX and the cubin ABI (1.7, 1.8) of machine code; `offset`,
    `stored` and `size` are where its payload stands in the source, its bytes there, and its bytes unpacked (0: not said).
    `container` is where the container begins that it is in; `inner` where in its unpacked payload it begins (in a group)."""

    kind: Literal["ptx", "cubin", "lto"]
    arch: Arch
    compression: Compression
    version: tuple[int, int]
    offset: int
    stored: int
    size: int
    container: int = -1
    inner: int = 0


class _Place(NamedTuple):
    """Where an entry's header and payload begin, the payload's length, and where the container begins."""

    header: int
    body: int
    stored: int
    container: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks the format, at a byte of the source. What stands before it was read; what follows may be lost."""

    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.reason} (at byte {self.offset})"


def is_container(source: Source, at: int, end: int) -> bool:
    """Whether a container with a believable header starts at `at` and fits before `end`. For places that may hold anything."""
    header = source.read(at, _CONTAINER.size)
    if len(header) < _CONTAINER.size or header[:4] != MAGIC:
        return False
    _, version, header_bytes, payload = _CONTAINER.unpack(header)
    if version != 1 or header_bytes != _CONTAINER.size or not _ENTRY.size <= payload <= end - at - header_bytes:
        return False
    first = source.read(at + header_bytes, 8)
    kind, _, entry_header = struct.unpack("<HHI", first)
    return bool((kind in _KINDS or kind == _CONCAT) and _ENTRY.size <= entry_header <= payload)


def containers(source: Source, start: int, end: int) -> Iterator[Entry | Fault]:
    """Every entry of the containers in `start:end`, a range that holds containers and padding only (an ELF section)."""
    at, budget = start, MAX_ENTRIES
    while at < end:
        found = _next_magic(source, at, end)
        if _holds_bytes(source, at, found):
            yield Fault(at, "bytes that belong to no container of GPU code")
        if found >= end:
            return
        at = found
        for item in _container(source, at, end):
            yield item
            budget -= 1
            if budget <= 0:
                break
        if (budget := budget - 1) <= 0:
            yield Fault(at, f"more than {MAX_ENTRIES} entries")
            return
        at = _after(source, at, end)


def _container(source: Source, at: int, end: int) -> Iterator[Entry | Fault]:
    """The entries of the one container at `at`."""
    header = source.read(at, _CONTAINER.size)
    if at + _CONTAINER.size > end or len(header) < _CONTAINER.size:
        yield Fault(at, "the header of a container is cut off")
        return
    _, version, header_bytes, payload = _CONTAINER.unpack(header)
    if version != 1 or header_bytes < _CONTAINER.size:
        yield Fault(at, f"a container of unknown version {version}")
        return
    entry, stop = at + header_bytes, at + header_bytes + payload
    if stop > min(end, source.size):
        yield Fault(at, f"a container of {payload} bytes where {max(0, min(end, source.size) - entry)} are left")
        stop = min(end, source.size)
    while entry < stop:
        advance = yield from _entry(source, entry, stop, at)
        if advance == 0:
            return
        entry += advance


def _after(source: Source, at: int, end: int) -> int:
    """Where to look for the next container: behind the one at `at`, or right behind its magic where its size is nonsense."""
    header = source.read(at, _CONTAINER.size)
    if len(header) == _CONTAINER.size:
        _, version, header_bytes, payload = _CONTAINER.unpack(header)
        if version == 1 and header_bytes >= _CONTAINER.size and at + header_bytes + payload <= end:
            stop = at + header_bytes + payload
            return int(stop + (at - stop) % ALIGNMENT)
    return at + ALIGNMENT


def _entry(source: Source, at: int, stop: int, container: int) -> Generator[Entry | Fault, None, int]:
    """Yields what stands at `at` and returns how far on the next entry is, 0 where there is none."""
    header = source.read(at, _ENTRY.size)
    if at + _ENTRY.size > stop or len(header) < _ENTRY.size:
        yield Fault(at, "the header of an entry is cut off")
        return 0
    kind, _, header_bytes, payload, compressed, options, minor, major, sm, _, _, flags, _, size = _ENTRY.unpack(header)
    if header_bytes < _ENTRY.size or at + header_bytes + payload > stop:
        yield Fault(at, f"an entry of {header_bytes} + {payload} bytes where {stop - at} are left")
        return 0
    packing = flags & (_LZ4 | _ZSTD)
    stored = compressed if packing and 0 < compressed <= payload else payload
    place = _Place(at, at + header_bytes, stored, container)
    if kind == _CONCAT:
        yield from _concat_group(source, options, packing, place)
    elif kind in _KINDS:
        yield _made(kind, sm, flags, (major, minor), place, size)
    return int(header_bytes + payload)


def _concat_group(source: Source, options: int, packing: int, place: _Place) -> Iterator[Entry | Fault]:
    """nvcc --concat (13.4 on): one payload, packed as a whole, for several entries, each described by a 64-byte record. Every
    entry is said to stand where the group's payload starts."""
    at = place.header
    records = at + options
    count = int.from_bytes(source.read(records, 4), "little")
    if options < _ENTRY.size or records + 8 + count * _RECORD.size > place.body:
        yield Fault(at, f"a group of {count} entries that do not fit its header")
        return
    for number in range(count):
        record = source.read(records + 8 + number * _RECORD.size, _RECORD.size)
        if len(record) < _RECORD.size:
            yield Fault(at, "the records of a group are cut off")
            return
        kind, _, inner, size, minor, major, sm, flags = _RECORD.unpack(record)
        if kind in _KINDS:
            yield _made(kind, sm, flags | packing, (major, minor), place, size, inner)


def _made(kind: int, sm: int, flags: int, version: tuple[int, int], place: _Place, size: int, inner: int = 0) -> Entry | Fault:
    if not 10 <= sm <= 999:
        return Fault(place.header, f"an entry for the unbelievable arch {sm}")
    suffix: Literal["", "a", "f"] = "a" if flags & _ARCH_SPECIFIC else "f" if flags & _FAMILY else ""
    compression: Compression = "zstd" if flags & _ZSTD else "lz4" if flags & _LZ4 else "none"
    arch = Arch(sm, suffix)
    return Entry(_KINDS[kind], arch, compression, version, place.body, place.stored, size, place.container, inner)


def _next_magic(source: Source, at: int, end: int) -> int:
    """The next 8-byte aligned place (counted from `at`) where a container may start, or `end`."""
    origin = at
    if source.read(at, 4) == MAGIC:
        return at
    while at < end:
        chunk = source.read(at, min(_SEARCH_STEP, end - at))
        if len(chunk) < 4:
            return end
        found = chunk.find(MAGIC)
        while found >= 0 and (at + found - origin) % ALIGNMENT:
            found = chunk.find(MAGIC, found + 1)
        if found >= 0:
            return at + found
        at += len(chunk)
    return end


def _holds_bytes(source: Source, at: int, end: int) -> bool:
    while at < end:
        chunk = source.read(at, min(_SEARCH_STEP, end - at))
        if not chunk:
            return False
        if chunk.count(0) != len(chunk):
            return True
        at += len(chunk)
    return False


def find_containers(source: Source, start: int, end: int) -> Iterator[Entry | Fault]:
    """Entries of believable containers anywhere in `start:end`, which may hold anything else too: for binaries whose section
    headers were stripped. A magic number that is followed by nonsense is taken as data, not as a fault."""
    at, budget = start + -start % ALIGNMENT, MAX_ENTRIES
    while budget > 0 and (at := _next_magic(source, at, end)) < end:
        if not is_container(source, at, end):
            at += ALIGNMENT
            budget -= 1
            continue
        for item in _container(source, at, end):
            yield item
            budget -= 1
            if budget <= 0:
                break
        at = _after(source, at, end)
    if budget <= 0:
        yield Fault(at, f"more than {MAX_ENTRIES} entries")
