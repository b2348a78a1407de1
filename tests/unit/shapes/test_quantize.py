"""Q4_0 as ggml writes it: the very bytes, and how much they keep."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from models.shapes.quantize import BLOCK, BLOCK_BYTES, from_q4_0, to_q4_0

# Made with ggml's own Python package: gguf 0.19.0, gguf.quants.quantize(rows, GGMLQuantizationType.Q4_0).
ROWS = np.concatenate([np.arange(-16, 16) / 16, [1, -1] * 16, np.zeros(32), (np.arange(32) * 7 % 32 - 20) / 1000]).astype(
    np.float32
)
BYTES = (
    "0030809191a2a2b3b3c4c4d5d5e6e6f7f7f8"
    "00b000ff00ff00ff00ff00ff00ff00ff00ff"
    "008088888888888888888888888888888888"
    "1f196093c6285b81a4073a6c92c5284b71a4"
)


def blocks(seed: int, size: float, number: int = 8) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, size, (number, BLOCK)).astype(np.float32)


def test_writes_the_bytes_of_ggml() -> None:
    assert to_q4_0(ROWS).hex() == BYTES


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1e-4, 0.02, 1.0, 300.0]))
def test_reads_as_the_format_says(seed: int, size: float) -> None:
    """Block by block from the definition: a half-precision scale, then 16 bytes with weight i low and weight i + 16 high."""
    data = to_q4_0(blocks(seed, size))
    expected = []
    for start in range(0, len(data), BLOCK_BYTES):
        scale, *pairs = struct.unpack_from("<e16B", data, start)
        expected += [scale * ((pair & 15) - 8) for pair in pairs] + [scale * ((pair >> 4) - 8) for pair in pairs]
    assert np.array_equal(from_q4_0(data), np.float32(expected))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1e-3, 0.02, 1.0, 300.0]))
def test_errs_by_a_step_at_most(seed: int, size: float) -> None:
    """The greatest of a block is 8 steps away from zero; on its other side there are 7, so half a step becomes one there."""
    rows = blocks(seed, size)
    kept = from_q4_0(to_q4_0(rows)).reshape(rows.shape)
    step = np.abs(rows).max(1, keepdims=True) / 8
    assert (np.abs(kept - rows) <= 1.01 * step).all()
    assert np.abs(kept - rows).mean() < 0.3 * step.mean()


def test_a_second_time_changes_nothing() -> None:
    once = from_q4_0(to_q4_0(blocks(1, 0.02)))
    assert np.abs(from_q4_0(to_q4_0(once)) - once).max() <= 1e-3 * np.abs(once).max()


def test_zeros_stay_zeros() -> None:
    assert not from_q4_0(to_q4_0(np.zeros((2, BLOCK), np.float32))).any()
