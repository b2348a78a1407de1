"""As much of the ELF format as it takes to find GPU code: section headers, or loadable segments where those were stripped.

64-bit little-endian files only: CUDA has had no other host since toolkit 7. Layout: the System V ABI, chapter 4 and 5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from sdrun.fatbin.container import Fault
from sdrun.fatbin.source import Source

MAGIC = b"\x7fELF"
EM_CUDA = 190
FATBIN_SECTIONS = frozenset({b".nv_fatbin", b"__nv_relfatbin"})

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SHT_PROGBITS, _SHT_NOBITS, _SHN_XINDEX, _PT_LOAD = 1, 8, 0xFFFF, 1
_SHF_ALLOC, _SHF_EXECINSTR = 2, 4
_UNWINDING = frozenset({b".eh_frame", b".eh_frame_hdr", b".gcc_except_table"})  # a linker's and large
_MAX_HEADERS = 1 << 20  # far above any linker's output; -ffunction-sections objects reach some ten thousand
_MAX_NAMES = 1 << 24


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `start:end` of a file. `exact`: a section that holds containers only; else they have to be looked for in it.
    `name`: the section's, empty for a segment."""

    start: int
    end: int
    exact: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class ElfMap:
    """Where in an ELF file GPU code can stand, where the host program's constants stand, and what is wrong with the file.
    `data`: all that the program loads and does not execute, fatbin sections aside; a library may keep code of its own there.
    Ranges are sorted and do not overlap."""

    machine: int
    code: tuple[Range, ...] = ()
    constants: tuple[Range, ...] = ()
    data: tuple[Range, ...] = ()
    faults: tuple[Fault, ...] = ()


def is_elf(head: bytes) -> bool:
    """Whether a file that begins with `head` says it is ELF."""
    return head.startswith(MAGIC)


def read_map(source: Source) -> ElfMap:
    """The map of an ELF file; of a 32-bit or big-endian one, an empty map. Never raises: damage is told in `faults`."""
    head = source.read(0, _HEADER.size)
    if len(head) >= 6 and head[4:6] != b"\x02\x01":
        return ElfMap(0)
    if len(head) < _HEADER.size:
        return ElfMap(0, faults=(Fault(0, "the ELF header is cut off"),))
    _, _, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = _HEADER.unpack(head)
    if shoff == 0:
        return _by_segments(source, machine, phoff, phentsize, phnum)
    if shentsize != _SECTION.size or shoff + _SECTION.size > source.size:
        return ElfMap(machine, faults=(Fault(0, f"its section headers should start at byte {shoff} of {source.size}"),))
    return _by_sections(source, machine, shoff, shnum, shstrndx)


def _by_sections(source: Source, machine: int, shoff: int, shnum: int, shstrndx: int) -> ElfMap:
    first = _SECTION.unpack(source.read(shoff, _SECTION.size))
    count = shnum or min(first[5], _MAX_HEADERS)  # 65,280 sections or more: the real numbers stand in the first header
    names_at = first[6] if shstrndx == _SHN_XINDEX else shstrndx
    table = source.read(shoff, count * _SECTION.size)
    if len(table) < count * _SECTION.size or names_at >= count:
        return ElfMap(machine, faults=(Fault(shoff, f"its table of {count} section headers is cut off"),))
    rows = list(_SECTION.iter_unpack(table))
    names = source.read(rows[names_at][4], min(rows[names_at][5], _MAX_NAMES))
    code: list[Range] = []
    data: list[Range] = []
    faults: list[Fault] = []
    for name_at, kind, flags, _, start, size, *_ in rows:
        name = names[name_at : names.find(b"\0", name_at)] if name_at < len(names) else b""
        told = name in FATBIN_SECTIONS or name.startswith(b".rodata")
        loaded = kind == _SHT_PROGBITS and flags & _SHF_ALLOC and not flags & _SHF_EXECINSTR
        if kind == _SHT_NOBITS or not (told or (loaded and name not in _UNWINDING)):
            continue  # NOBITS: a file of debug symbols keeps the headers and drops the bytes
        if told and start + size > source.size:
            faults.append(Fault(start, f"section {name.decode()} ends at byte {start + size} of {source.size}"))
        place = min(start, source.size), min(start + size, source.size)
        part = Range(*place, exact=name in FATBIN_SECTIONS, name=name.decode("utf-8", "replace"))
        (code if part.exact else data).append(part)
    constants = [part for part in data if part.name.startswith(".rodata")]
    return ElfMap(machine, _disjoint(code), _disjoint(constants), _disjoint(data), tuple(faults[:8]))


def _by_segments(source: Source, machine: int, phoff: int, phentsize: int, phnum: int) -> ElfMap:
    if phnum == 0:
        return ElfMap(machine)
    table = source.read(phoff, phnum * _SEGMENT.size)
    if phentsize != _SEGMENT.size or len(table) < phnum * _SEGMENT.size:
        return ElfMap(machine, faults=(Fault(phoff, f"its table of {phnum} program headers is cut off"),))
    parts: list[Range] = []
    faults: list[Fault] = []
    for kind, _, start, _, _, size, _, _ in _SEGMENT.iter_unpack(table):
        if kind != _PT_LOAD:
            continue
        if start + size > source.size:
            faults.append(Fault(start, f"a segment ends at byte {start + size} of {source.size}"))
        parts.append(Range(min(start, source.size), min(start + size, source.size), exact=False))
    ranges = _disjoint(parts)
    return ElfMap(machine, ranges, ranges, ranges, tuple(faults[:8]))


def _disjoint(parts: list[Range]) -> tuple[Range, ...]:
    """Sorted, with overlaps cut away: a made-up file may name the same bytes ten thousand times."""
    out: list[Range] = []
    for part in sorted(parts, key=lambda part: part.start):
        start = max(part.start, out[-1].end) if out else part.start
        if start < part.end:
            out.append(replace(part, start=start))
    return tuple(out)
