"""Text in PNG files: written beside the pixels without touching them, read back from anybody's file.

Standard library only. Source: the PNG specification (W3C, third edition), chunks tEXt, zTXt and iTXt.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from sdrun.launch.png import SIGNATURE, BadPicture

TEXT_MAX = 4 << 20  # bytes of one text, unpacked; prompts are limited to 128 KiB by the system
_TEXTS_MAX = 64
_CHUNKS_MAX = 1 << 20
_COPIED = 1 << 20


def insert_text(path: Path, keyword: str, text: str) -> None:
    """Puts an iTXt chunk after the header of the PNG at `path`. In one pass, into a new file that then takes the old one's
    place: it is there whole or not at all. Every other chunk is copied as it stands. Raises BadPicture, OSError."""
    copy = path.with_name(f"{path.name}.text")
    try:
        with path.open("rb") as source, copy.open("xb") as target:
            start = source.read(len(SIGNATURE) + 25)  # the header's chunk comes first and has 13 bytes
            if len(start) != len(SIGNATURE) + 25 or not start.startswith(SIGNATURE) or start[12:16] != b"IHDR":
                raise BadPicture("it is no PNG")
            target.write(start)
            target.write(_international(keyword, text))
            while data := source.read(_COPIED):
                target.write(data)
        copy.replace(path)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def _international(keyword: str, text: str) -> bytes:
    """An iTXt chunk: UTF-8, not compressed (so that other tools find it by a search), no language."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def read_texts(path: Path) -> Mapping[str, str]:
    """The texts of a PNG by keyword, the first where one stands twice. Damaged ones, and those longer than TEXT_MAX, are left
    out. Raises BadPicture where the file is no PNG, OSError where it cannot be read; reads no pixels."""
    found: dict[str, str] = {}
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if stream.read(len(SIGNATURE)) != SIGNATURE:
            raise BadPicture("it is no PNG")
        for kind, body in _text_chunks(stream, size):
            entry = _decoded(kind, body)
            if entry is not None:
                found.setdefault(*entry)
            if len(found) >= _TEXTS_MAX:
                break
    return found


def _text_chunks(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    for _ in range(_CHUNKS_MAX):
        head = stream.read(8)
        if len(head) < 8:
            return  # cut off: what came before it still counts
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND" or stream.tell() + length + 4 > size:
            return
        if kind not in (b"tEXt", b"zTXt", b"iTXt") or length > TEXT_MAX:
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        body = stream.read(length)
        if zlib.crc32(kind + body) == int.from_bytes(stream.read(4), "big"):
            yield kind, body


def _decoded(kind: bytes, body: bytes) -> tuple[str, str] | None:
    keyword, zero, rest = body.partition(b"\0")
    if not zero or not 0 < len(keyword) < 80:
        return None
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        return name, _latin_or_utf8(rest)
    if kind == b"zTXt":
        text = _unpacked(rest[1:]) if rest[:1] == b"\0" else None
        return None if text is None else (name, _latin_or_utf8(text))
    parts = rest[2:].split(b"\0", 2)  # compressed or not, method; then language, translated keyword, text
    if len(rest) < 2 or len(parts) < 3 or rest[0] > 1 or (rest[0] == 1 and rest[1] != 0):
        return None
    text = _unpacked(parts[2]) if rest[0] else parts[2]
    return None if text is None else (name, text.decode("utf-8", "replace"))


def _latin_or_utf8(text: bytes) -> str:
    """The specification says Latin-1; the engine and others write UTF-8 all the same."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _unpacked(data: bytes) -> bytes | None:
    packed = zlib.decompressobj()
    try:
        text = packed.decompress(data, TEXT_MAX)
    except zlib.error:
        return None
    return text if packed.eof else None
