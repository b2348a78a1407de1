"""GPU code that stands outside fatbin sections: a library's own store, which it hands to the driver itself.

Measured on NVIDIA's libraries: libcublasLt 12.4 keeps 215 cubins in .data, each a zstd frame, which 12.4's nvprune leaves
alone; 13.0 has 393 of these in .ldata and .data, and 383 fatbins in a section .cask_resource. cuobjdump lists none. Which of
them the library takes for which GPU is its own affair, so they say nothing about where a file runs; but none may get lost.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sdrun.core.capability import Arch
from sdrun.core.index import Compression
from sdrun.fatbin import elf, zstd
from sdrun.fatbin.container import Entry, find_containers
from sdrun.fatbin.elf import Range
from sdrun.fatbin.lz4 import Corrupt
from sdrun.fatbin.packed import first_bytes
from sdrun.fatbin.source import Source

_CUBIN = elf.MAGIC + b"\x02\x01"
_HEADER = 64
_STEP = 1 << 22
_BLOCK = (1 << 17) + 64  # a frame's first block with what stands before it: what it takes to see how its content begins
_MAX_FRAME_BLOCKS = 1 << 14  # of 128 KiB: 2 GiB
MAX_TRIED = 10_000  # places in a file that look like the beginning of a cubin; the largest library has 780

# e_flags of a cubin, as LLVM's ELF.h names them: its arch in the lowest byte, from ABI 8 on in the second, and the mark of `a`
_ABI_AT, _NEW_ABI, _OLD_A, _NEW_A = 8, 8, 0x800, 0x8


@dataclass(slots=True)
class Tries:
    """How many places may still be tried in one file: only a made-up one has more than MAX_TRIED."""

    left: int = MAX_TRIED


def find_stored(source: Source, parts: Iterable[Range], tries: Tries) -> Iterator[tuple[Range, Entry]]:
    """Every piece of GPU code in `parts`, ranges that may hold anything, with the range it is in: fatbins, plain cubins, cubins
    in a zstd frame. A letter f is not known of cubins outside a fatbin. What looks like one and is none is passed over."""
    for part in parts:
        taken = part.start
        inside: deque[tuple[int, int]] = deque()
        for item in find_containers(source, part.start, part.end):
            if isinstance(item, Entry):
                inside.append((item.offset, item.offset + item.stored))
                if part.name:  # in a file without section headers fatbins are looked for everywhere, and found by others
                    yield part, item
        for at in _marks(source, part):
            while inside and inside[0][1] <= at:
                inside.popleft()
            if at < taken or (inside and inside[0][0] <= at):
                continue
            tries.left -= 1
            if tries.left < 0:
                return
            if (entry := _cubin_at(source, at, part.end)) is not None:
                taken = at + entry.stored
                yield part, entry


def _marks(source: Source, part: Range) -> Iterator[int]:
    """Where a zstd frame or an ELF file may begin, ascending."""
    for start in range(part.start, part.end, _STEP):
        chunk = source.read(start, min(_STEP + _HEADER, part.end - start))
        found = {at for magic in (zstd.MAGIC, _CUBIN) for at in _places(chunk, magic) if at < _STEP}
        yield from (start + at for at in sorted(found))


def _places(chunk: bytes, magic: bytes) -> Iterator[int]:
    at = chunk.find(magic)
    while at >= 0:
        yield at
        at = chunk.find(magic, at + 1)


def _cubin_at(source: Source, at: int, end: int) -> Entry | None:
    head = source.read(at, min(_HEADER, end - at))
    compression: Compression = "none"
    size: int | None = None
    if head.startswith(zstd.MAGIC):
        compression, size = "zstd", _frame_size(source, at, end)
        head = first_bytes(source.read(at, min(_BLOCK, end - at)), _HEADER) if size is not None else b""
    arch = _arch_of(head)
    if arch is None:
        return None
    if size is None:
        size = min(_elf_size(head), end - at)
    return Entry("cubin", arch, compression, (1, head[_ABI_AT]), at, size, 0)


def _arch_of(head: bytes) -> Arch | None:
    """The arch in a cubin's ELF header, None for anything else."""
    if len(head) < _HEADER or not head.startswith(_CUBIN) or struct.unpack_from("<H", head, 18)[0] != elf.EM_CUDA:
        return None
    (flags,) = struct.unpack_from("<I", head, 48)
    new = head[_ABI_AT] >= _NEW_ABI
    number = flags >> 8 & 0xFF if new else flags & 0xFF
    if number < 10:
        return None
    return Arch(number, "a" if flags & (_NEW_A if new else _OLD_A) else "")


def _elf_size(head: bytes) -> int:
    """Where the later of its two tables ends; compilers and linkers write nothing behind both."""
    phoff, shoff = struct.unpack_from("<QQ", head, 32)
    phentsize, phnum, shentsize, shnum = struct.unpack_from("<HHHH", head, 54)
    return int(max(_HEADER, phoff + phentsize * phnum, shoff + shentsize * shnum))


def _frame_size(source: Source, at: int, end: int) -> int | None:
    """Bytes of the zstd frame at `at`, by its blocks' headers (RFC 8878 section 3.1.1); None where it is broken or reaches
    beyond `end`."""
    head = source.read(at, 18)
    try:
        place = at + zstd.frame_header(head)
    except (Corrupt, IndexError):
        return None
    for _ in range(_MAX_FRAME_BLOCKS):
        header = source.read(place, 3)
        word = int.from_bytes(header, "little")
        last, kind, size = word & 1, word >> 1 & 3, word >> 3
        if len(header) < 3 or kind == 3:
            return None
        place += 3 + (1 if kind == 1 else size)
        if last:
            place += 4 if head[4] & 4 else 0  # its checksum
            return place - at if place <= end else None
    return None
