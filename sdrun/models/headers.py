"""What is in a model file, and is it whole? Answered from the header alone, before anything heavy starts.

A download that broke off is the most frequent fault of a model file, and the engine tells it late and obscurely. The headers
of GGUF and safetensors say where every tensor lies, so a file that is too short is seen at once; no weight is read. Counts and
lengths in a header are claims of whoever wrote the file: none is believed before it was found to fit, and a header longer than
any real one is refused, so that a hostile file costs little time and memory.
Sources: the safetensors format page, PyTorch's zip archives; for GGUF see sdrun.models.ggufheader.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO

from sdrun.core.header import BLOCKS, Header, TensorInfo
from sdrun.models.damage import Damaged, no_model
from sdrun.models.gguf import MAGIC
from sdrun.models.ggufheader import MAX_DIMENSIONS, MAX_ELEMENTS, MAX_TENSORS, read_gguf

__all__ = ["Damaged", "check", "read_header"]

_MAX_SAFETENSORS_HEADER = 32 << 20  # bytes; the format allows 100 MB, headers of real models stay under one
_MAX_SIZE = 1 << 48  # of a dimension, or an offset in bytes
_LEGACY_CHECKPOINT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # PyTorch's magic number, pickled

_SAFETENSORS_TYPES: Mapping[str, str] = {
    "F64": "f64",
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "F8_E4M3": "f8_e4m3",
    "F8_E5M2": "f8_e5m2",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U8": "i8",
    "BOOL": "i8",
}


def check(path: Path) -> str:
    """The format of the file (`gguf`, `safetensors`, `checkpoint`), told by its content. Raises Damaged, or OSError where it
    cannot be read."""
    return read_header(path).format


def read_header(path: Path) -> Header:
    """The header of the file. Raises Damaged where it is no whole model file, or OSError where it cannot be read. No bytes at
    all make it fail otherwise, run for more than seconds, or take memory out of proportion to the header's own length."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(len(_LEGACY_CHECKPOINT))
        stream.seek(0)
        if not start:
            raise Damaged("it is empty")
        if start.startswith(MAGIC):
            return read_gguf(stream, size)
        if start.startswith(b"PK\x03\x04"):
            _check_zip(stream)
            return Header("checkpoint", size)
        if start == _LEGACY_CHECKPOINT:
            return Header("checkpoint", size)
        return _read_safetensors(stream, size)


def _check_zip(stream: BinaryIO) -> None:
    import zipfile

    if not zipfile.is_zipfile(stream):  # looks for the directory, which stands at the end
        raise Damaged("it is a PyTorch checkpoint whose end is missing")


def _read_safetensors(stream: BinaryIO, size: int) -> Header:
    start = stream.read(9)
    if len(start) < 9 or start[8:] != b"{":
        raise Damaged(no_model(start))
    length = int.from_bytes(start[:8], "little")
    if length > _MAX_SAFETENSORS_HEADER:
        raise Damaged(no_model(start))
    if length > size - 8:
        raise Damaged(f"it ends within its header, after {size} bytes")
    stream.seek(8)
    try:
        entries = json.loads(stream.read(length), parse_int=_integer)
        entries.pop("__metadata__", None)
        if len(entries) > MAX_TENSORS:
            raise Damaged(f"its header tells of {len(entries)} tensors")
        read = [_tensor(name, entry) for name, entry in entries.items()]
    except (ValueError, RecursionError) as fault:
        if isinstance(fault, Damaged):
            raise
        raise Damaged("its safetensors header cannot be read") from None
    if not read:
        raise Damaged("it holds no tensors")
    end = max(end for _, end in read)
    if 8 + length + end > size:
        raise Damaged(f"it has {size} bytes of the {8 + length + end} its header tells of")
    return Header("safetensors", size, tuple(tensor for tensor, _ in read))


def _integer(digits: str) -> int:
    """A number of the header; Python takes time in the square of the digits to read a long one."""
    if len(digits) > 20:
        raise ValueError("too long")
    return int(digits)


def _tensor(name: str, entry: object) -> tuple[TensorInfo, int]:
    """The tensor, and the first byte after it counted from the start of the data. Raises ValueError."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]} if (
            0 <= start <= end < _MAX_SIZE
        ):
            pass
        case _:
            raise ValueError("no dtype, shape or data_offsets")
    if len(shape) > MAX_DIMENSIONS or not all(type(part) is int and 0 <= part < _MAX_SIZE for part in shape):
        raise ValueError("no shape")
    if prod(shape) > MAX_ELEMENTS:
        raise ValueError("no real shape")
    kind = _SAFETENSORS_TYPES.get(dtype, dtype.lower()[:40])
    if kind in BLOCKS and prod(shape) * BLOCKS[kind][1] != end - start:
        raise Damaged(f"its tensor {name[:80]!r} has {end - start} bytes, not {prod(shape) * BLOCKS[kind][1]}")
    return TensorInfo(name, kind, tuple(reversed(shape)), end - start), end
