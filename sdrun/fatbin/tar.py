"""Tar archives read once from front to end: ustar, GNU long names, pax paths and sizes (POSIX.1-2001, GNU tar's manual).

Not `tarfile`: it keeps an object for every member (100 MB for a large image), and a made-up long name may claim any size and is
read into memory whole.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sdrun.fatbin.stream import Broken, Part, Stream

BLOCK = 512
_MAX_EXTRA = 1 << 20  # of one long name or pax header; paths end at 4096 bytes, file capabilities and ACLs at some kilobytes
_NULLS = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """One member. `path` has no leading slash or dot; `link` is where a link points, as written; `body` holds a file's bytes
    and is valid until the next member is asked for."""

    path: str
    kind: Literal["file", "folder", "hardlink", "symlink", "other"]
    link: str
    body: Part


@dataclass(slots=True)
class _Extra:
    """What came ahead of a member and overrides its header."""

    path: str | None = None
    link: str | None = None
    size: int | None = None


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with these bytes (512 needed) is a tar archive, by the checksum of its first header."""
    return len(head) >= BLOCK and head[:BLOCK] != _NULLS and _checksum_holds(head[:BLOCK])


def members(stream: Stream) -> Iterator[Member]:
    """The members in order; what of a body was not read is left out. Raises Broken where the archive is damaged."""
    extra = _Extra()
    while True:
        header = stream.read(BLOCK)
        if not header or header == _NULLS:
            return
        if len(header) < BLOCK or not _checksum_holds(header):
            raise Broken("the header of a tar member is damaged or cut off")
        flag, size = header[156:157], _number(header[124:136])
        if flag in b"xgLK":
            _read_extra(flag, stream, size, extra)
            continue
        size = extra.size if extra.size is not None else size
        if flag == b"S":
            _skip_sparse_map(header, stream)
        kind = _kind(flag, header)
        if kind in ("hardlink", "symlink", "folder"):
            size = 0
        body = Part(stream, size)
        yield Member(clean(extra.path if extra.path is not None else _name(header)), kind, _link(header, extra), body)
        _leave(body, stream, size)
        extra = _Extra()


def _leave(body: Part, stream: Stream, size: int) -> None:
    body.skip(body.left)
    stream.skip(-size % BLOCK)


def clean(path: str) -> str:
    """`usr/bin/x` for `./usr//bin/x` and `/usr/bin/x`; the empty string for the root."""
    return posixpath.normpath("/" + path).lstrip("/")


def _kind(flag: bytes, header: bytes) -> Literal["file", "folder", "hardlink", "symlink", "other"]:
    if flag in (b"0", b"\0", b"7"):
        return "folder" if _text(header[:100]).endswith("/") and flag == b"\0" else "file"
    if flag == b"5":
        return "folder"
    return "hardlink" if flag == b"1" else "symlink" if flag == b"2" else "other"


def _name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])


def _link(header: bytes, extra: _Extra) -> str:
    return extra.link if extra.link is not None else _text(header[157:257])


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256 for what eleven octal digits cannot say
        return int.from_bytes(field, "big") & (1 << 8 * len(field) - 1) - 1
    digits = field.strip(b" \0")
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError:
        raise Broken("a tar member of unreadable size") from None


def _checksum_holds(header: bytes) -> bool:
    try:
        stated = int(header[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(header) - sum(header[148:156]) + 8 * 32


def _read_extra(flag: bytes, stream: Stream, size: int, extra: _Extra) -> None:
    if size > _MAX_EXTRA:
        raise Broken(f"a tar member has a header of {size} bytes")
    data = stream.read(size)
    if len(data) < size:
        raise Broken("a tar archive ends early")
    stream.skip(-size % BLOCK)
    if flag == b"L":
        extra.path = _text(data)
    elif flag == b"K":
        extra.link = _text(data)
    elif flag == b"x":
        _read_pax(data, extra)


def _read_pax(data: bytes, extra: _Extra) -> None:
    at = 0
    while at < len(data):
        digits, _, _ = data[at : at + 12].partition(b" ")
        if not digits.isdigit() or int(digits) <= len(digits):
            return
        record = data[at + len(digits) + 1 : at + int(digits)].rstrip(b"\n")
        at += int(digits)
        key, _, value = record.partition(b"=")
        if key == b"path":
            extra.path = value.decode("utf-8", "replace")
        elif key == b"linkpath":
            extra.link = value.decode("utf-8", "replace")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            extra.size = int(value)


def _skip_sparse_map(header: bytes, stream: Stream) -> None:
    more = header[482]
    while more:
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise Broken("a tar archive ends early")
        more = block[504]
