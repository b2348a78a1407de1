"""Members of a static library (`ar`, System V flavour): their bytes where they stand, without unpacking."""

from __future__ import annotations

from collections.abc import Iterator

from sdrun.fatbin.container import Fault
from sdrun.fatbin.source import SliceSource, Source

MAGIC = b"!<arch>\n"
_HEADER = 60
_END = b"`\n"


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with `head` says it is a static library."""
    return head.startswith(MAGIC)


def members(source: Source) -> Iterator[SliceSource | Fault]:
    """The members in order, symbol tables and name tables among them. A broken header ends the walk with a Fault."""
    at = len(MAGIC)
    while at < source.size:
        header = source.read(at, _HEADER)
        digits = header[48:58].strip()
        if len(header) < _HEADER or header[58:60] != _END or not digits.isdigit():
            yield Fault(at, "the header of a library member is broken")
            return
        size = int(digits)
        if at + _HEADER + size > source.size:
            yield Fault(at, f"a library member of {size} bytes where {source.size - at - _HEADER} are left")
        yield SliceSource(source, at + _HEADER, size)
        at += _HEADER + size + size % 2
