"""Is this a whole model file? Answered from the header alone, before anything heavy starts.

A download that broke off is the most frequent fault of a model file, and the engine tells it late and obscurely. The headers
of GGUF and safetensors say where every tensor lies, so a file that is too short is seen at once; nothing is loaded.
Sources: ggml's `docs/gguf.md` and `ggml.h` (type numbers and block sizes), the safetensors format page, PyTorch's zip archives.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sdrun.models.gguf import ALIGNMENT, MAGIC

GGUF_VERSIONS = (2, 3)  # 1 had 32-bit counts; ggml reads it no more
_MAX_DIMENSIONS = 8  # ggml has 4; the engine folds more into the last
_MAX_NESTING = 4
_MAX_SAFETENSORS_HEADER = 100_000_000  # the format's own limit, in bytes
_LEGACY_CHECKPOINT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # PyTorch's magic number, pickled

# Metadata types of a fixed size, in bytes, by number; 8 is a string, 9 an array.
_FIXED: Mapping[int, int] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4

# ggml's tensor types by the number of weights in a block: type number -> bytes of a block. A type that is not here is
# checked by its offset only.
_TYPES: Mapping[int, Mapping[int, int]] = {
    1: {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2},  # F32, F16, I8, I16, I32, I64, F64, BF16
    32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 20: 18, 39: 17},  # Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4
    256: {
        10: 84,  # Q2_K
        11: 110,  # Q3_K
        12: 144,  # Q4_K
        13: 176,  # Q5_K
        14: 210,  # Q6_K
        15: 292,  # Q8_K
        16: 66,  # IQ2_XXS
        17: 74,  # IQ2_XS
        18: 98,  # IQ3_XXS
        19: 50,  # IQ1_S
        21: 110,  # IQ3_S
        22: 82,  # IQ2_S
        23: 136,  # IQ4_XS
        29: 56,  # IQ1_M
        34: 54,  # TQ1_0
        35: 66,  # TQ2_0
    },
}
_BLOCKS = {number: (block, size) for block, sizes in _TYPES.items() for number, size in sizes.items()}


class Damaged(ValueError):
    """The file is no whole model file; the text says why."""


def check(path: Path) -> str:
    """The format of the file (`gguf`, `safetensors`, `checkpoint`), told by its content. Raises Damaged, or OSError where it
    cannot be read."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(len(_LEGACY_CHECKPOINT))
        stream.seek(0)
        if not start:
            raise Damaged("it is empty")
        if start.startswith(MAGIC):
            _Gguf(stream, size).check()
            return "gguf"
        if start.startswith(b"PK\x03\x04"):
            _check_zip(stream)
            return "checkpoint"
        if start == _LEGACY_CHECKPOINT:
            return "checkpoint"
        _check_safetensors(stream, size)
        return "safetensors"


class _Gguf:
    """One pass over a GGUF header."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._place = 0
        self._alignment = ALIGNMENT

    def check(self) -> None:
        version = struct.unpack("<4xI", self._take(8))[0]
        if version not in GGUF_VERSIONS:
            raise Damaged(f"its GGUF version is {version}, not {' or '.join(map(str, GGUF_VERSIONS))}")
        tensors, entries = self._number(), self._number()
        if tensors == 0:
            raise Damaged("it holds no tensors")
        self._fits(entries, 13)  # the smallest entry: an empty key, a type, one byte
        for _ in range(entries):
            self._entry()
        self._fits(tensors, 24)  # the smallest description: an empty name, no dimensions, type, offset
        end = max(self._tensor() for _ in range(tensors))
        whole = -(-self._place // self._alignment) * self._alignment + end
        if whole > self._size:
            raise Damaged(f"it has {self._size} bytes of the {whole} its header tells of")

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise Damaged(f"it ends within its header, after {self._size} bytes")
        self._place += count
        return data

    def _skip(self, count: int) -> None:
        self._fits(count, 1)
        self._place += count
        self._stream.seek(self._place)

    def _fits(self, count: int, least: int) -> None:
        """Refuses a count that the rest of the file cannot hold, before it is used."""
        if count * least > self._size - self._place:
            raise Damaged(f"its header tells of more than its {self._size} bytes can hold")

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
            for _ in range(count):
                self._value(inner, nesting - 1)
        else:
            raise Damaged(f"its header holds a value of the unknown type {kind}")

    def _tensor(self) -> int:
        """Reads one description; the first byte after the tensor, counted from the start of the data."""
        self._skip(self._number())
        dimensions = self._short()
        if dimensions > _MAX_DIMENSIONS:
            raise Damaged(f"one of its tensors has {dimensions} dimensions")
        elements = 1
        for size in struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions)):
            elements *= size
        kind, offset = self._short(), self._number()
        block, size = _BLOCKS.get(kind, (1, 0))
        return offset + elements // block * size


def _check_zip(stream: BinaryIO) -> None:
    import zipfile

    if not zipfile.is_zipfile(stream):  # looks for the directory, which stands at the end
        raise Damaged("it is a PyTorch checkpoint whose end is missing")


def _check_safetensors(stream: BinaryIO, size: int) -> None:
    start = stream.read(9)
    if len(start) < 9 or start[8:] != b"{":
        raise Damaged(_no_model(start))
    length = int.from_bytes(start[:8], "little")
    if length > _MAX_SAFETENSORS_HEADER:
        raise Damaged(_no_model(start))
    if length > size - 8:
        raise Damaged(f"it ends within its header, after {size} bytes")
    stream.seek(8)
    try:
        header = json.loads(stream.read(length))
        ends = [_end(entry) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, RecursionError):
        raise Damaged("its safetensors header cannot be read") from None
    if not ends:
        raise Damaged("it holds no tensors")
    if 8 + length + max(ends) > size:
        raise Damaged(f"it has {size} bytes of the {8 + length + max(ends)} its header tells of")


def _end(entry: object) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    match offsets:
        case [int(start), int(end)] if 0 <= start <= end:
            return end
    raise ValueError("no data_offsets")


def _no_model(start: bytes) -> str:
    if start.startswith(b"version "):
        return "it is a Git LFS pointer; the file itself was not fetched"
    if start.lstrip().startswith(b"<"):
        return "it is a web page"
    return "it starts like no GGUF, safetensors or PyTorch file"
