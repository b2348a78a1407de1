"""Q4_0 as ggml defines it: 32 neighbouring weights share a scale of 16 bits, each is one of 16 levels.

Source: ggml/src/ggml-quants.c, quantize_row_q4_0_ref and dequantize_row_q4_0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK = 32
BLOCK_BYTES = 18


def to_q4_0(weights: npt.NDArray[np.float32]) -> bytes:
    """The blocks of a tensor whose last axis is a multiple of 32."""
    rows = weights.reshape(-1, BLOCK)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    scale = largest / np.float32(-8)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    levels = np.minimum(15, (rows * inverse + np.float32(8.5)).astype(np.int8)).astype(np.uint8)
    packed = levels[:, :16] | levels[:, 16:] << 4
    return np.concatenate([scale.astype(np.float16).view(np.uint8), packed], 1).tobytes()


def from_q4_0(data: bytes) -> npt.NDArray[np.float32]:
    """The weights of blocks, flat."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, BLOCK_BYTES)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    levels = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], 1).astype(np.float32) - 8
    return (levels * scale).reshape(-1)
