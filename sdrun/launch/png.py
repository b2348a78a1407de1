"""PNG and JPEG files as the engine writes them: is one whole, how large is the picture, what are its pixels.

Standard library only: a picture library at run time would be a heavy price for two checks. Sources: the PNG specification
(W3C, third edition) and ITU-T T.81 annex B.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type -> samples a pixel; palettes (3) are not written by the engine
_PIXELS_MAX = 1 << 28


class BadPicture(ValueError):
    """The file is no whole picture; the text says why."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Rows from the top, each `width` times three bytes of red, green, blue."""

    width: int
    height: int
    rows: tuple[bytes, ...]


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a whole PNG or JPEG file. Raises BadPicture where it is cut off or damaged: every chunk's checksum
    and the length of the pixel data are looked at in a PNG, the markers to the end in a JPEG."""
    if data.startswith(SIGNATURE):
        header, packed = _parts(data)
        _unpacked(header, packed)
        return header.width, header.height
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    raise BadPicture("it is empty" if not data else "it is neither PNG nor JPEG")


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    channels: int

    @property
    def line(self) -> int:
        return self.width * self.channels


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(SIGNATURE)
    while place < len(data):
        if place + 12 > len(data):
            raise BadPicture("it is cut off")
        (length,) = struct.unpack_from(">I", data, place)
        body = data[place + 4 : place + 8 + length]
        if place + 12 + length > len(data):
            raise BadPicture("it is cut off")
        if zlib.crc32(body) != struct.unpack_from(">I", data, place + 8 + length)[0]:
            raise BadPicture("a checksum in it is wrong")
        yield body[:4], body[4:]
        place += 12 + length


def _parts(data: bytes) -> tuple[_Header, bytes]:
    header: _Header | None = None
    packed: list[bytes] = []
    kind = b""
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            header = _header(body)
        elif kind == b"IDAT":
            packed.append(body)
    if kind != b"IEND" or header is None:
        raise BadPicture("it is cut off")
    return header, b"".join(packed)


def _header(body: bytes) -> _Header:
    if len(body) != 13:
        raise BadPicture("its header is damaged")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
    if depth != 8 or colour not in _CHANNELS or interlaced:
        raise BadPicture("it is a kind of PNG that the engine does not write")
    if not 0 < width * height <= _PIXELS_MAX:
        raise BadPicture(f"its size is {width}x{height}")
    return _Header(width, height, _CHANNELS[colour])


def _unpacked(header: _Header, packed: bytes) -> bytes:
    whole = (header.line + 1) * header.height
    try:
        raw = zlib.decompressobj().decompress(packed, whole + 1)
    except zlib.error:
        raise BadPicture("its pixels are damaged") from None
    if len(raw) != whole:
        raise BadPicture("pixels are missing in it")
    return raw


def pixels_of(data: bytes) -> Pixels:
    """The pixels of a PNG file. Raises BadPicture."""
    if not data.startswith(SIGNATURE):
        raise BadPicture("it is no PNG")
    header, packed = _parts(data)
    raw = _unpacked(header, packed)
    rows: list[bytes] = []
    previous = bytearray(header.line)
    for start in range(0, len(raw), header.line + 1):
        line = bytearray(raw[start + 1 : start + 1 + header.line])
        _unfilter(raw[start], line, previous, header.channels)
        rows.append(_rgb(line, header.channels))
        previous = line
    return Pixels(header.width, header.height, tuple(rows))


def _unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    """Undoes one of the five filters of PNG, in place."""
    if kind > 4:
        raise BadPicture("its pixels are damaged")
    if kind == 2:
        line[:] = bytes((a + b) & 255 for a, b in zip(line, above, strict=True))
        return
    for i in range(len(line)) if kind else ():
        left = line[i - step] if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + above[i]) // 2
        else:
            guess = _paeth(left, above[i], above[i - step] if i >= step else 0)
        line[i] = (line[i] + guess) & 255


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    by_left, by_up, by_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner


def _rgb(line: bytearray, channels: int) -> bytes:
    if channels == 3:
        return bytes(line)
    if channels == 4:
        return bytes(value for i, value in enumerate(line) if i % 4 != 3)
    return bytes(value for value in line[::channels] for _ in range(3))


def _jpeg_size(data: bytes) -> tuple[int, int]:
    if not data.endswith(b"\xff\xd9"):
        raise BadPicture("it is cut off")
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte, which may stand before any marker (T.81, B.1.1.2); the engine writes them
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + length
    raise BadPicture("its header is damaged")
