"""Writing GGUF files whose data is a hole: the engine reads zeros."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import prod
from pathlib import Path

from sdrun.core.header import BLOCKS

Shape = tuple[int, ...]  # slowest first, as in PyTorch: rows, columns
Entry = tuple[str, str, Shape]  # name, type, shape
NUMBERS = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "q4_K": 12, "bf16": 30}


def stored(kind: str, shape: Shape) -> int:
    """Bytes of a tensor."""
    block, size = BLOCKS[kind]
    return prod(shape) // block * size


def fitting(kind: str, shape: Shape) -> str:
    """The type a tensor is stored in: vectors as f32, convolutions and rows that are no whole blocks as f16."""
    if len(shape) == 1:
        return "f32"
    return kind if len(shape) == 2 and shape[-1] % BLOCKS[kind][0] == 0 else "f16"


def write(path: Path, shapes: Iterable[tuple[str, Shape]], kind: str = "q4_0") -> Path:
    """A GGUF file with these tensors, the matrices of type `kind`."""
    entries = [(name, fitting(kind, shape), shape) for name, shape in shapes]
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(entries), 0))
    offset = 0
    for name, type, shape in entries:
        data = name.encode()
        head += struct.pack("<Q", len(data)) + data
        head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), NUMBERS[type], offset)
        offset += -(-stored(type, shape) // 32) * 32
    head += bytes(-len(head) % 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)
    return path
