"""Reading the header of a GGUF file: which tensors it holds and where they end.

Sources: ggml's `docs/gguf.md` and `ggml.h` (type numbers and block sizes). Metadata is skipped but for what is needed: the
tokenizer of a text encoder alone is hundreds of thousands of strings, so those are stepped over in one tight loop.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from typing import BinaryIO

from sdrun.core.header import BLOCKS, Header, TensorInfo
from sdrun.models.damage import Damaged
from sdrun.models.gguf import ALIGNMENT

VERSIONS = (2, 3)  # 1 had 32-bit counts; ggml reads it no more
MAX_DIMENSIONS = 8  # ggml has 4; the engine folds more into the last
MAX_TENSORS = 1 << 16  # the largest known model file has some 5,000
MAX_ELEMENTS = 1 << 48  # of one tensor; the largest models have 2**38 numbers in all
_MAX_HEADER = 64 << 20  # bytes; a vocabulary of 262,144 words with its merges takes about 16 MB
_MAX_NAME = 1 << 10  # bytes; ggml keeps 64
_MAX_NESTING = 4
_CHUNK = 1 << 18

# Metadata types of a fixed size, in bytes, by number; 8 is a string, 9 an array.
_FIXED: Mapping[int, int] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4

# ggml's tensor types, the first of number 0; a dash stands for one that ggml has given up.
_LISTED = (
    "f32 f16 q4_0 q4_1 - - q5_0 q5_1 q8_0 q8_1 q2_K q3_K q4_K q5_K q6_K q8_K iq2_xxs iq2_xs iq3_xxs iq1_s"
    " iq4_nl iq3_s iq2_s iq4_xs i8 i16 i32 i64 f64 iq1_m bf16 - - - tq1_0 tq2_0 - - - mxfp4"
)
_NAMES = _LISTED.split()


def read_gguf(stream: BinaryIO, size: int) -> Header:
    """The header of a GGUF file of `size` bytes, read from its start. Raises Damaged."""
    return _Reader(stream, size).read()


class _Reader:
    """One pass over a header, in chunks."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._data = b""  # the chunk in hand
        self._next = 0  # place in the chunk
        self._passed = 0  # bytes of the file before the chunk
        self._alignment = ALIGNMENT
        self._architecture = ""

    def read(self) -> Header:
        version = struct.unpack("<4xI", self._take(8))[0]
        if version not in VERSIONS:
            raise Damaged(f"its GGUF version is {version}, not {' or '.join(map(str, VERSIONS))}")
        count, entries = self._number(), self._number()
        if count == 0:
            raise Damaged("it holds no tensors")
        self._fits(entries, 13)  # the smallest entry: an empty key, a type, one byte
        for _ in range(entries):
            self._entry()
        self._fits(count, 24)  # the smallest description: an empty name, no dimensions, type, offset
        if count > MAX_TENSORS:
            raise Damaged(f"its header tells of {count} tensors")
        read = [self._tensor() for _ in range(count)]
        place = self._passed + self._next
        whole = -(-place // self._alignment) * self._alignment + max(end for _, end in read)
        if whole > self._size:
            raise Damaged(f"it has {self._size} bytes of the {whole} its header tells of")
        return Header("gguf", self._size, tuple(tensor for tensor, _ in read), self._architecture)

    def _more(self, count: int) -> None:
        """Brings at least `count` more bytes into the chunk in hand."""
        self._passed += self._next
        rest = self._data[self._next :]
        self._data = rest + self._stream.read(max(count - len(rest), _CHUNK))
        self._next = 0
        if len(self._data) < count:
            raise Damaged(f"it ends within its header, after {self._size} bytes")

    def _take(self, count: int) -> bytes:
        if self._next + count > len(self._data):
            self._more(count)
        start = self._next
        self._next += count
        return self._data[start : self._next]

    def _skip(self, count: int) -> None:
        self._fits(count, 1)
        if self._next + count <= len(self._data):
            self._next += count
            return
        self._passed += self._next + count
        self._data, self._next = b"", 0
        self._stream.seek(self._passed)

    def _fits(self, count: int, least: int) -> None:
        """Refuses a count that the rest of the file, or of the longest header that is read, cannot hold, before it is used."""
        place = self._passed + self._next
        if count * least > self._size - place:
            raise Damaged(f"its header tells of more than its {self._size} bytes can hold")
        if place + count * least > _MAX_HEADER:
            raise Damaged(f"its header is longer than {_MAX_HEADER >> 20} MiB")

    def _number(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def _short(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _entry(self) -> None:
        length = self._number()
        self._fits(length, 1)
        key = self._take(length)
        kind = self._short()
        if key == b"general.alignment" and kind == _UINT32:
            self._alignment = self._short()
            if self._alignment == 0 or self._alignment & (self._alignment - 1):
                raise Damaged(f"its alignment is {self._alignment}, which is no power of two")
        elif key == b"general.architecture" and kind == _STRING:
            length = self._number()
            self._fits(length, 1)
            self._architecture = self._take(length).decode(errors="replace")[:80]
        else:
            self._value(kind, _MAX_NESTING)

    def _value(self, kind: int, nesting: int) -> None:
        if kind in _FIXED:
            self._skip(_FIXED[kind])
        elif kind == _STRING:
            self._skip(self._number())
        elif kind == _ARRAY and nesting:
            inner, count = self._short(), self._number()
            if inner in _FIXED:
                self._skip(count * _FIXED[inner])
                return
            self._fits(count, 8)
            if inner == _STRING:
                self._strings(count)
                return
            for _ in range(count):
                self._value(inner, nesting - 1)
        else:
            raise Damaged(f"its header holds a value of the unknown type {kind}")

    def _strings(self, count: int) -> None:
        data, place, end = self._data, self._next, len(self._data) - 8
        whole = int.from_bytes
        for _ in range(count):
            if place > end:
                self._next = place
                self._more(8)
                data, place, end = self._data, 0, len(self._data) - 8
            length = whole(data[place : place + 8], "little")
            if place + 8 + length > end + 8:
                self._next = place + 8
                self._skip(length)
                data, place, end = self._data, self._next, len(self._data) - 8
            else:
                place += 8 + length
        self._next = place

    def _tensor(self) -> tuple[TensorInfo, int]:
        """Reads one description; the tensor, and the first byte after it counted from the start of the data."""
        length = self._number()
        self._fits(length, 1)
        if length > _MAX_NAME:
            raise Damaged(f"one of its tensors has a name of {length} bytes")
        name = self._take(length).decode(errors="replace")
        count = self._short()
        if count > MAX_DIMENSIONS:
            raise Damaged(f"one of its tensors has {count} dimensions")
        dimensions = struct.unpack(f"<{count}Q", self._take(8 * count))
        if prod(dimensions) > MAX_ELEMENTS:
            raise Damaged(f"its header tells of a tensor of more than {MAX_ELEMENTS} numbers")
        kind, offset = self._short(), self._number()
        type = _NAMES[kind] if kind < len(_NAMES) else f"type {kind}"
        block, size = BLOCKS.get(type, (1, 0))  # of a type that is not known only the offset is checked
        stored = prod(dimensions) // block * size
        return TensorInfo(name, type, dimensions, stored), offset + stored
