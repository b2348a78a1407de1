"""Random weights in the shape of FLUX.1 at its real width, in several types that agree with each other: what speed is measured
with where no real weights are at hand. Speed depends on shapes and types alone, so a picture of noise is as good as another.

    python bench/flux_weights.py FOLDER [--double 5] [--single 10] [--types q4_0,q8_0,f16]

writes `flux-TYPE.gguf`, `clip_l.gguf` (the engine dies without any text encoder) and `vae.gguf` (FLUX's own autoencoder, the
decoder) into FOLDER. The real depth is 19 + 38 blocks: 11.9 thousand million weights, as f16 23.8 GB, Q8_0 12.6 GB, Q4_0
6.7 GB; all of a step's time is in the blocks, so a fourth of the blocks takes about a fourth of it.

Every weight begins as a signed byte drawn from a bell curve. f16 and Q8_0 hold that byte times a scale, Q4_0 its upper half,
so the types differ by their rounding alone. A scale of 1 over the root of the inputs keeps numbers near 1 through any depth;
biases are 0, norms 1. Nothing but numpy is needed, and all cores are used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from fabricated import shapes, sparse  # noqa: E402

TYPES = ("q4_0", "q8_0", "f16")
CHUNK = 1 << 22  # weights made at a time
BLOCK = 32

Bytes = npt.NDArray[np.uint8]

_NORMAL = [NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)]
# Byte -> what it stands for, -127..127 in the frequencies of a bell curve; and the upper half of it as Q4_0's nibble.
VALUES = np.clip(np.round(np.array(_NORMAL) * 127 / _NORMAL[-1]), -127, 127).astype(np.int8)
NIBBLES = (np.clip(np.round(VALUES / 16.0), -8, 7) + 8).astype(np.uint8)
DEVIATION = float(np.std(VALUES.astype(np.float64)))


def scale_of(shape: sparse.Shape) -> np.float16:
    """What a byte is worth: the weights of a row (or of a convolution's output) keep the variance of what comes in."""
    return np.float16(1 / sqrt(prod(shape[1:])) / DEVIATION)


def drawn(name: str, chunk: int, count: int) -> Bytes:
    """The bytes of a chunk of a tensor: the same for every type, on every machine."""
    return np.frombuffer(np.random.Generator(np.random.SFC64([zlib.crc32(name.encode()), chunk])).bytes(count), np.uint8)


def q4_0(raw: Bytes, scale: np.float16) -> Bytes:
    """Blocks of 32 weights in 18 bytes: a scale, then nibbles, the first half of the weights in the lower ones."""
    nibbles = NIBBLES[raw].reshape(-1, BLOCK)
    out = np.empty((len(nibbles), 2 + BLOCK // 2), np.uint8)
    out[:, :2] = np.frombuffer(np.float16(16 * scale).tobytes(), np.uint8)
    out[:, 2:] = nibbles[:, : BLOCK // 2] | nibbles[:, BLOCK // 2 :] << 4
    return out


def q8_0(raw: Bytes, scale: np.float16) -> Bytes:
    """Blocks of 32 weights in 34 bytes: a scale, then the weights."""
    out = np.empty((len(raw) // BLOCK, 2 + BLOCK), np.uint8)
    out[:, :2] = np.frombuffer(scale.tobytes(), np.uint8)
    out[:, 2:] = VALUES.view(np.uint8)[raw].reshape(-1, BLOCK)
    return out


def f16(raw: Bytes, scale: np.float16) -> Bytes:
    """Two bytes a weight."""
    return (VALUES * np.float32(scale)).astype(np.float16).view(np.uint16)[raw].view(np.uint8)


FORMS: dict[str, Callable[[Bytes, np.float16], Bytes]] = {"q4_0": q4_0, "q8_0": q8_0, "f16": f16}


def write(path: Path, tensors: Iterable[tuple[str, sparse.Shape]], kind: str, pool: ThreadPoolExecutor) -> Path:
    """A GGUF file of these tensors, the matrices of type `kind`."""
    listed = list(tensors)
    sparse.write(path, listed, kind)  # the header, and zeros: all that biases need
    sizes = [(name, sparse.fitting(kind, shape), shape) for name, shape in listed]
    offset = path.stat().st_size - sum(-(-sparse.stored(form, shape) // 32) * 32 for _, form, shape in sizes)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        tasks = []
        for name, form, shape in sizes:
            if len(shape) > 1:
                for first in range(0, prod(shape), CHUNK):
                    at = offset + sparse.stored(form, (first,))
                    tasks.append(pool.submit(_fill, descriptor, at, name, form, shape, first))
            elif not name.endswith(".bias"):
                os.pwrite(descriptor, np.ones(shape, np.float32).tobytes(), offset)
            offset += -(-sparse.stored(form, shape) // 32) * 32
        for task in tasks:
            task.result()
    finally:
        os.close(descriptor)
    return path


def _fill(descriptor: int, at: int, name: str, form: str, shape: sparse.Shape, first: int) -> None:
    raw = drawn(name, first // CHUNK, min(CHUNK, prod(shape) - first))
    data = memoryview(FORMS[form](raw, scale_of(shape))).cast("B")
    while data:
        done = os.pwrite(descriptor, data, at)
        data, at = data[done:], at + done


def write_all(folder: Path, types: Sequence[str], double: int = 5, single: int = 10, width: int = 3072) -> dict[str, Path]:
    """The files by their role: `clip_l`, `vae`, and the diffusion model by its type. A line about each on stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    sets: dict[str, tuple[str, Iterable[tuple[str, sparse.Shape]], str]] = {
        "clip_l": ("clip_l.gguf", shapes.clip(), "f16"),
        "vae": ("vae.gguf", shapes.vae(), "f16"),
        **{kind: (f"flux-{kind}.gguf", shapes.flux(width, double, single, guidance=True), kind) for kind in types},
    }
    made = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for role, (name, tensors, kind) in sets.items():
            begin = time.perf_counter()
            made[role] = write(folder / name, tensors, kind, pool)
            size = made[role].stat().st_size / 1e9
            print(f"{name:<18}{size:7.2f} GB {time.perf_counter() - begin:6.1f} s", file=sys.stderr)
    return made


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types", default=",".join(TYPES), help="of the diffusion model")
    parser.add_argument("--double", type=int, default=5)
    parser.add_argument("--single", type=int, default=10)
    parser.add_argument("--width", type=int, default=3072, help="a multiple of 128")
    given = parser.parse_args()
    types = given.types.split(",")
    if unknown := set(types) - set(TYPES):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(TYPES)}")
    write_all(given.folder, types, given.double, given.single, given.width)


if __name__ == "__main__":
    main()
