"""What an ELF file asks of the dynamic loader, read from its program headers (System V gABI, chapter 5). Pure Python: nothing
of the file is run, and only its headers and dynamic section are read, however large it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 14, 15, 29
_MAX_SECTION = 1 << 20  # a dynamic section holds tens of entries; a longer one is damage


@dataclass(frozen=True, slots=True)
class Dynamic:
    """`needed`: sonames in link order; `interpreter`: path of the loader, for programs; `runpath`: folders to search first."""

    needed: tuple[str, ...] = ()
    interpreter: str | None = None
    soname: str | None = None
    runpath: tuple[str, ...] = ()


def is_elf(file: IO[bytes]) -> bool:
    """True if the file begins as an ELF file does."""
    file.seek(0)
    return file.read(4) == b"\x7fELF"


def read_dynamic(file: IO[bytes]) -> Dynamic:
    """The dynamic section of a 64-bit little-endian ELF file; empty for a static one. Raises ValueError for anything else."""
    segments = _segments(file)
    interpreter = None
    entries: list[tuple[int, int]] = []
    for kind, offset, _, size in segments:
        if kind == _PT_INTERP:
            interpreter = _read(file, offset, size).rstrip(b"\0").decode("utf-8", "replace")
        elif kind == _PT_DYNAMIC:
            entries = _entries(_read(file, offset, size))
    values = dict(entries)
    if _DT_STRTAB not in values:
        return Dynamic(interpreter=interpreter)
    strings = _file_offset(segments, values[_DT_STRTAB])
    runpath = values.get(_DT_RUNPATH, values.get(_DT_RPATH))
    return Dynamic(
        needed=tuple(_string(file, strings + value) for tag, value in entries if tag == _DT_NEEDED),
        interpreter=interpreter,
        soname=_string(file, strings + values[_DT_SONAME]) if _DT_SONAME in values else None,
        runpath=tuple(_string(file, strings + runpath).split(":")) if runpath is not None else (),
    )


def _segments(file: IO[bytes]) -> list[tuple[int, int, int, int]]:
    """(type, file offset, virtual address, size in the file) of every program header."""
    header = _read(file, 0, 64)
    if header[:4] != b"\x7fELF" or header[4:6] != b"\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    table, entry_size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
    if entry_size < 56:
        raise ValueError("program headers are too short")
    rows = _read(file, table, entry_size * count)
    found = []
    for at in range(0, entry_size * count, entry_size):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", rows, at)
        found.append((kind, offset, address, size))
    return found


def _entries(section: bytes) -> list[tuple[int, int]]:
    entries: list[tuple[int, int]] = []
    for tag, value in struct.iter_unpack("<QQ", section[: len(section) // 16 * 16]):
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    return entries


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError("the dynamic section points outside the file")


def _string(file: IO[bytes], offset: int) -> str:
    text, end, _ = _read(file, offset, 4096, short=True).partition(b"\0")
    if not end:
        raise ValueError("a name in the dynamic section has no end")
    return text.decode("utf-8", "replace")


def _read(file: IO[bytes], offset: int, size: int, *, short: bool = False) -> bytes:
    if size > _MAX_SECTION:
        raise ValueError("a section is implausibly long")
    try:
        file.seek(offset)
    except (OverflowError, OSError):
        raise ValueError("the file points outside itself") from None
    data = file.read(size)
    if len(data) < size and not short:
        raise ValueError("the file is cut off")
    return data
