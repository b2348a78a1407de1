"""Writing GGUF files (version 3): named tensors behind a small header.

Source of the layout: ggml's `docs/gguf.md`. Everything is little-endian; tensor data starts at a multiple of 32 bytes and so
does each tensor. Dimensions are written fastest first: a matrix of `rows` x `columns` has the dimensions `(columns, rows)`.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
NAME_BYTES = 63  # ggml keeps a name in 64 bytes, its final zero included
_STRING = 8  # the number of the metadata type "string"


class GgmlType(IntEnum):
    """The tensor types written here, by ggml's number. A Q4_0 block is 32 weights in 18 bytes: an f16 scale and 32 nibbles n,
    each worth `scale * (n - 8)`."""

    F32 = 0
    F16 = 1
    Q4_0 = 2


_BYTES_PER_BLOCK: Mapping[GgmlType, tuple[int, int]] = {GgmlType.F32: (1, 4), GgmlType.F16: (1, 2), GgmlType.Q4_0: (32, 18)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. `dimensions` stand fastest first; `data` is exactly as long as they and `type` say."""

    name: str
    type: GgmlType
    dimensions: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        block, size = _BYTES_PER_BLOCK[self.type]
        elements = 1
        for dimension in self.dimensions:
            elements *= dimension
        if self.dimensions[0] % block or len(self.data) != elements // block * size:
            raise ValueError(f"{self.name}: {len(self.data)} bytes are not {self.dimensions} of {self.type.name}")
        if len(self.name.encode()) > NAME_BYTES:
            raise ValueError(f"{self.name}: the name is longer than {NAME_BYTES} bytes")


def encode(tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a GGUF file with string `metadata` and `tensors`, in the order given."""
    listed = list(tensors)
    head = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(listed), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + struct.pack("<I", _STRING) + _string(value)
    offset = 0
    for tensor in listed:
        dimensions = struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions)
        head += _string(tensor.name) + struct.pack("<I", len(tensor.dimensions)) + dimensions
        head += struct.pack("<IQ", tensor.type, offset)
        offset += _padded(len(tensor.data))
    head += bytes(_padded(len(head)) - len(head))
    return bytes(head) + b"".join(tensor.data.ljust(_padded(len(tensor.data)), b"\0") for tensor in listed)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `path` so that it appears whole or not at all, also when the process is killed; the folder must exist."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)  # mkstemp gives 0600; the container reads the store as another user
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
