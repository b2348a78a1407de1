"""LZ4 blocks as fatbin entries hold them: no frame and no checksum around them (LZ4 project, lz4_Block_format.md)."""

from __future__ import annotations


class Corrupt(ValueError):
    """The compressed bytes break their own format."""


def decompress(data: bytes, limit: int) -> bytes:
    """The first `limit` bytes of the block's content, or all of it where it is shorter. Input that ends early gives what it
    holds; a reference to bytes that were never written raises Corrupt."""
    out = bytearray()
    at = 0
    while at < len(data) and len(out) < limit:
        token = data[at]
        count, at = _length(data, at + 1, token >> 4)
        out += data[at : at + min(count, limit - len(out))]
        at += count
        if at + 2 > len(data):
            break
        distance = data[at] | data[at + 1] << 8
        count, at = _length(data, at + 2, token & 15)
        copy_match(out, distance, min(count + 4, limit - len(out)))
    return bytes(out)


def _length(data: bytes, at: int, short: int) -> tuple[int, int]:
    if short < 15:
        return short, at
    while at < len(data):
        more = data[at]
        short += more
        at += 1
        if more != 255:
            break
    return short, at


def copy_match(out: bytearray, distance: int, count: int) -> None:
    """Appends `count` bytes that stand `distance` bytes back; the two may overlap, which repeats a pattern."""
    if not 0 < distance <= len(out):
        raise Corrupt(f"a match reaches {distance} bytes back where {len(out)} were written")
    if count <= 0:
        return
    start = len(out) - distance
    if distance >= count:
        out += out[start : start + count]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (count // distance + 1))[:count]
