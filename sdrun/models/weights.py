"""Random weights as bytes, the same on every machine and every Python.

The randomness is SHAKE-256 of the seed and the tensor's name, so a tensor's bytes depend on nothing else: not on the order in
which tensors are made, not on PYTHONHASHSEED. Weights are spread evenly around zero (a network feels their variance, hardly
the shape of their distribution): that needs addition, multiplication and square roots only, which IEEE 754 rounds alike
everywhere, and whole tensors are made by `bytes.translate` with tables of 256 values, without NumPy.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from math import sqrt

from sdrun.models.gguf import GgmlType, Tensor

BLOCK = 32  # weights in a Q4_0 block
ZERO_BLOCK = b"\0\0" + b"\x88" * 16  # scale 0, every nibble worth 0

# Q4_0 nibbles are worth -8..7; 0 is read as 8 (worth 0), which leaves -7..7 and a mean of 0.
_SYMMETRIC = bytes((byte & 0x0F or 8) | ((byte >> 4 or 8) << 4) for byte in range(256))
_NIBBLE_DEVIATION = sqrt(17.5)  # of the sixteen equally likely values that leaves: 2 * (1 + 4 + ... + 49) / 16 = 17.5
_EVEN = tuple((byte - 127.5) / sqrt((256**2 - 1) / 12) for byte in range(256))  # standard deviation 1, EVEN[255 - n] = -EVEN[n]

Kernel = tuple[float, ...]  # the nine factors of a 3 x 3 window, row by row
SMOOTH: Kernel = tuple(a * b / 16 for a in (1, 2, 1) for b in (1, 2, 1))
POINT: Kernel = (0, 0, 0, 0, 1, 0, 0, 0, 0)


def noise(seed: int, name: str, size: int) -> bytes:
    """`size` random bytes that belong to `seed` and `name`."""
    return hashlib.shake_256(f"sdrun tiny {seed} {name}".encode()).digest(size)


def matrix(seed: int, name: str, rows: int, columns: int, deviation: Callable[[int, int], float]) -> Tensor:
    """A random Q4_0 matrix. `deviation(row, block)` is the standard deviation of the 32 weights of `row` from column
    32 * `block` on; 0 makes them zeros."""
    nibbles = noise(seed, name, rows * columns // 2).translate(_SYMMETRIC)
    per_row = columns // BLOCK
    blocks = []
    for number in range(rows * per_row):
        wanted = deviation(number // per_row, number % per_row)
        scale = struct.pack("<e", wanted / _NIBBLE_DEVIATION)
        blocks.append(scale + nibbles[16 * number : 16 * number + 16] if wanted else ZERO_BLOCK)
    return Tensor(name, GgmlType.Q4_0, (columns, rows), b"".join(blocks))


def convolution(name: str, inputs: int, randomness: bytes, deviation: float, kernel: Kernel) -> Tensor:
    """An F16 3 x 3 convolution with one weight for each pair of channels (`inputs` of them for each output, a byte of
    `randomness` each), spread over the window by `kernel`. The engine takes convolutions as F16 only."""
    data = bytearray(18 * len(randomness))
    for place, factor in enumerate(kernel):
        table = [struct.pack("<e", value * deviation * factor) for value in _EVEN]
        for byte in (0, 1):
            data[2 * place + byte :: 18] = randomness.translate(bytes(half[byte] for half in table))
    return Tensor(name, GgmlType.F16, (3, 3, inputs, len(randomness) // inputs), bytes(data))


def evenly(randomness: bytes, deviation: float) -> list[float]:
    """One number of that standard deviation for each random byte."""
    return [_EVEN[byte] * deviation for byte in randomness]


def half_matrix(name: str, rows: Sequence[Sequence[float]]) -> Tensor:
    """An F16 matrix of the given rows."""
    data = b"".join(struct.pack(f"<{len(row)}e", *row) for row in rows)
    return Tensor(name, GgmlType.F16, (len(rows[0]), len(rows)), data)


def vector(name: str, values: Sequence[float]) -> Tensor:
    """An F32 vector. Biases and norms must be F32: the engine aborts when it adds an F16 one."""
    return Tensor(name, GgmlType.F32, (len(values),), struct.pack(f"<{len(values)}f", *values))
