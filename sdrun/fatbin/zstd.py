"""Zstandard frames (RFC 8878), decompressed in plain Python, for the one small cubin whose producer has to be known.

The standard library has had the format only since Python 3.14. Slow (about a megabyte a second) and bounded: `limit` bounds the
output, and every step either writes output or uses up input. Checksums and dictionaries are not supported; nvcc writes neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sdrun.fatbin.lz4 import Corrupt, copy_match
from sdrun.fatbin.zstd_entropy import (
    BackwardBits,
    FseTable,
    Huffman,
    fse_default,
    fse_single,
    read_fse,
    read_huffman,
)

MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_BLOCK = 1 << 17

# RFC 8878 section 3.1.1.3.2.1.1: base value and extra bits of each literals length and match length code
_LITERAL_CODES = [(n, 0) for n in range(16)] + [
    (16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3), (40, 3), (48, 4), (64, 6), (128, 7), (256, 8), (512, 9),
    (1024, 10), (2048, 11), (4096, 12), (8192, 13), (16384, 14), (32768, 15), (65536, 16),
]  # fmt: skip
_MATCH_CODES = [(n + 3, 0) for n in range(32)] + [
    (35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3), (59, 3), (67, 4), (83, 4), (99, 5), (131, 7), (259, 8),
    (515, 9), (1027, 10), (2051, 11), (4099, 12), (8195, 13), (16387, 14), (32771, 15), (65539, 16),
]  # fmt: skip


@dataclass(slots=True)
class _Frame:
    """What one block leaves to the next."""

    out: bytearray = field(default_factory=bytearray)
    offsets: list[int] = field(default_factory=lambda: [1, 4, 8])
    tables: dict[str, FseTable] = field(default_factory=dict)
    huffman: Huffman | None = None


def decompress(data: bytes, limit: int) -> bytes:
    """The content of the frame at the start of `data`, cut off near `limit` bytes (at the end of a block). Raises Corrupt where
    the input breaks the format or ends early."""
    if data[:4] != MAGIC or len(data) < 6:
        raise Corrupt("no zstd frame")
    at = frame_header(data)
    frame = _Frame()
    while len(frame.out) < limit:
        head = int.from_bytes(data[at : at + 3], "little")
        if at + 3 > len(data):
            raise Corrupt("a block header is cut off")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        at += 3
        stored = 1 if kind == 1 else size
        if kind == 3 or size > _MAX_BLOCK or at + stored > len(data):
            raise Corrupt("a block does not fit")
        block = data[at : at + stored]
        if kind == 2:
            _block(frame, block)
        else:
            frame.out += block * size if kind == 1 else block
        at += stored
        if last:
            break
    return bytes(frame.out)


def frame_header(data: bytes) -> int:
    """Bytes of the header of the frame that `data` begins with. Raises Corrupt where no compiler would write it."""
    flags = data[4]
    if flags & 3 or flags & 8:
        raise Corrupt("a zstd frame with a dictionary or reserved bits")
    single = flags >> 5 & 1
    sizes = (single, 2, 4, 8)
    return 5 + (1 - single) + sizes[flags >> 6]


def _block(frame: _Frame, block: bytes) -> None:
    literals, at = _literals(frame, block)
    if at >= len(block):
        raise Corrupt("a block without sequences section")
    count = block[at]
    at += 1
    if count >= 128:
        extra = 1 if count < 255 else 2
        more = int.from_bytes(block[at : at + extra], "little")
        count = ((count - 128) << 8) + more if extra == 1 else more + 0x7F00
        at += extra
    if count == 0:
        frame.out += literals
        return
    if at >= len(block) or block[at] & 3:
        raise Corrupt("a sequences header is cut off")
    modes = block[at]
    at += 1
    for name, shift, most in (("literal", 6, 9), ("offset", 4, 8), ("match", 2, 9)):
        at = _table(frame, name, modes >> shift & 3, most, block, at)
    _sequences(frame, literals, count, BackwardBits(block[at:]))


def _table(frame: _Frame, name: str, mode: int, most: int, block: bytes, at: int) -> int:
    if mode == 0:
        frame.tables[name] = fse_default(name)
    elif mode == 1:
        if at >= len(block):
            raise Corrupt("a table is cut off")
        frame.tables[name] = fse_single(block[at])
        at += 1
    elif mode == 2:
        frame.tables[name], used = read_fse(block[at:], most)
        at += used
    elif name not in frame.tables:
        raise Corrupt("a table is repeated before there is one")
    return at


def _literals(frame: _Frame, block: bytes) -> tuple[bytes, int]:
    if not block:
        raise Corrupt("an empty block")
    kind, form = block[0] & 3, block[0] >> 2 & 3
    if kind < 2:
        width = (1, 2, 1, 3)[form]
        head = int.from_bytes(block[:width], "little")
        size = head >> 3 if width == 1 else head >> 4
        stored = size if kind == 0 else 1
        if size > _MAX_BLOCK or width + stored > len(block):
            raise Corrupt("literals do not fit")
        text = block[width : width + stored]
        return (text if kind == 0 else text * size), width + stored
    width, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[form]
    head = int.from_bytes(block[:width], "little") >> 4
    size, stored = head & (1 << bits) - 1, head >> bits
    if size > _MAX_BLOCK or width + stored > len(block):
        raise Corrupt("literals do not fit")
    body = block[width : width + stored]
    if kind == 2:
        frame.huffman, used = read_huffman(body)
        body = body[used:]
    if frame.huffman is None:
        raise Corrupt("a Huffman table is repeated before there is one")
    return _streams(frame.huffman, body, size, four=form != 0), width + stored


def _streams(huffman: Huffman, body: bytes, size: int, four: bool) -> bytes:
    if not four:
        return huffman.decode(body, size)
    if len(body) < 6:
        raise Corrupt("a jump table is cut off")
    part = (size + 3) // 4
    out, at = b"", 6
    for number in range(3):
        length = int.from_bytes(body[2 * number : 2 * number + 2], "little")
        out += huffman.decode(body[at : at + length], part)
        at += length
    return out + huffman.decode(body[at:], size - 3 * part)


def _sequences(frame: _Frame, literals: bytes, count: int, bits: BackwardBits) -> None:
    lengths, distances, matches = frame.tables["literal"], frame.tables["offset"], frame.tables["match"]
    state_l, state_o, state_m = bits.read(lengths.log), bits.read(distances.log), bits.read(matches.log)
    taken, room = 0, len(frame.out) + _MAX_BLOCK
    for number in range(count):
        code_l, code_o, code_m = lengths.symbols[state_l], distances.symbols[state_o], matches.symbols[state_m]
        if code_l >= len(_LITERAL_CODES) or code_m >= len(_MATCH_CODES) or code_o > 31:
            raise Corrupt("a code that does not exist")
        offset = (1 << code_o) + bits.read(code_o)
        length = _MATCH_CODES[code_m][0] + bits.read(_MATCH_CODES[code_m][1])
        fresh = _LITERAL_CODES[code_l][0] + bits.read(_LITERAL_CODES[code_l][1])
        if taken + fresh > len(literals) or len(frame.out) + fresh + length > room:
            raise Corrupt("a sequence asks for more than there is")
        frame.out += literals[taken : taken + fresh]
        taken += fresh
        copy_match(frame.out, _distance(frame.offsets, offset, fresh), length)
        if number + 1 < count:
            state_l = lengths.next(state_l, bits)
            state_m = matches.next(state_m, bits)
            state_o = distances.next(state_o, bits)
    frame.out += literals[taken:]


def _distance(recent: list[int], value: int, fresh: int) -> int:
    """The distance a sequence means; the values 1 to 3 name one of the last three (RFC 8878 section 3.1.1.5)."""
    if value > 3:
        recent[:] = [value - 3, recent[0], recent[1]]
        return recent[0]
    index = value - 1 + (fresh == 0)
    distance = recent[0] - 1 if index == 3 else recent[index]
    if index:
        recent[:] = [distance, recent[0], recent[1] if index > 1 else recent[2]]
    return distance
