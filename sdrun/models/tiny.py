"""The model `tiny`: random weights in the shape of Ovis-Image, small enough to be made on first use.

It proves the path from a prompt to a picture; it has learned nothing. Its three files:

- `llm`: a Qwen3-shaped text encoder without layers: an embedding and a norm. The vocabulary cannot be cut (the prompt template
  uses ids up to 151668, and the engine aborts on an id beyond the table), so every word has a row. There are WORDS different
  rows, repeated: two words differ with probability 1 - 1/WORDS, and the file still compresses to almost nothing. The rows of
  template and padding tokens are zeros, or their 250 would drown the few words of a prompt.
- `diffusion`: one double and one single block, 128 wide (a head is 128 wide in this engine, so this is one head).
- `tae`: the tiny autoencoder, decoder and encoder: image-to-image and the HTTP server need the encoder.

How a picture comes about. The stream of 128 numbers a token has four quarters. The first two carry the noisy latent to the
output, where it cancels the noise; the third takes in the words; the blocks write the picture into the last two. Attention of
the double block is a window on the neighbours (queries and keys are a constant, turned by the rotary embedding), so noise
becomes smooth fields; in the single block every place listens to the words that fit it. Nothing else is designed: the
weights are random, and the scales below are the ones at which pictures were looked at (bench/tiny_model.py measures them).

`python -m sdrun.models.tiny DIR` writes the files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from types import MappingProxyType

from sdrun.models.gguf import GgmlType, Tensor, encode, write_atomically
from sdrun.models.weights import POINT, SMOOTH, ZERO_BLOCK, convolution, evenly, half_matrix, matrix, noise, vector

SEED = 1

VOCABULARY = 151669  # Qwen's ids 0..151668
WORDS = 1021  # a prime; so many rows of 18 bytes stay within deflate's window of 32 KiB
SILENT = (198, 271, 77091, 151643, 151644, 151645, 151667, 151668)  # of the prompt template: line ends, "assistant", markers

WIDTH = 128
TEXT = 32  # width of the text encoder
LATENT = 64  # 16 channels of 2 x 2 latent pixels in one image token
MLP = 4 * WIDTH
TIME = 256  # width of the engine's time embedding
CHANNELS = 64  # of the autoencoder

# The attention window of the double block: even dimensions of four slow rotary pairs on each image axis (dimensions 16..71
# belong to rows, 72..127 to columns). Their strength gives a window about three tokens wide.
WINDOW = frozenset(axis + 2 * pair for axis in (16, 72) for pair in (2, 3, 4, 5))
WINDOW_SCALE = 3.6
FIELD_SCALE = 4.0  # averaging over the window shrinks the fields by about this much
WORD_VALUE_SCALE = 8.0  # few words against 500 other tokens
ATTENTION_SHARPNESS = 2.0  # at 1.4 a changed word was hardly visible, at 2 it moves 12 of 255
SINGLE_ATTENTION_SCALE = 4.0
OUTPUT_SCALE = 2.0
TIME_SCALE = 0.2  # how much shifts, scales and gates move with the time step
RESIDUAL_SCALE = 0.3  # of the autoencoder's blocks; at 0.6 pictures clip
COLOUR_SCALE = 1.5
COLOUR_BIAS = (-0.03, 0.27, 0.57)  # brings red, green and blue to a medium brightness (seed 1)


def build(role: str, seed: int = SEED) -> bytes:
    """The GGUF file of `role` (`diffusion`, `llm`, `tae`): the same bytes for the same seed, everywhere."""
    metadata = {"general.architecture": "sdrun-tiny", "general.name": f"sdrun tiny, {role}, seed {seed}"}
    return encode(_TENSORS[role](seed), metadata)


def write(folder: Path, seed: int = SEED) -> Mapping[str, Path]:
    """Writes the three files into `folder`, each whole or not at all; returns their paths by role."""
    paths = {role: folder / f"tiny-{role}.gguf" for role in _TENSORS}
    for role, path in paths.items():
        write_atomically(path, build(role, seed))
    return paths


def _llm(seed: int) -> Iterator[Tensor]:
    words = matrix(seed, "token_embd.weight", WORDS, TEXT, lambda row, block: 1.0).data
    table = bytearray((words * (VOCABULARY // WORDS + 1))[: len(ZERO_BLOCK) * VOCABULARY])
    for token in SILENT:
        table[len(ZERO_BLOCK) * token : len(ZERO_BLOCK) * (token + 1)] = ZERO_BLOCK
    yield Tensor("token_embd.weight", GgmlType.Q4_0, (TEXT, VOCABULARY), bytes(table))
    yield vector("output_norm.weight", [1.0] * TEXT)


def _diffusion(seed: int) -> Iterator[Tensor]:
    yield half_matrix("img_in.weight", _identity(WIDTH, LATENT, first_row=0))
    yield vector("img_in.bias", [0.0] * WIDTH)
    yield vector("txt_norm.scale", [1.0] * TEXT)
    yield half_matrix("txt_in.weight", _identity(WIDTH, TEXT, first_row=LATENT))
    yield vector("txt_in.bias", [0.0] * WIDTH)
    yield from _linear(seed, "time_in.in_layer", WIDTH, TIME)
    yield from _linear(seed, "time_in.out_layer", WIDTH, WIDTH, scale=2.0)
    yield from _double_stream(seed, "double_blocks.0.img", attention_gate=1.0, mlp_gate=1.0)
    # Text does not listen here: padding would take on the average of everything and fill the single block with it.
    yield from _double_stream(seed, "double_blocks.0.txt", attention_gate=0.0, mlp_gate=0.5)
    yield from _single_block(seed, "single_blocks.0")
    yield half_matrix("final_layer.linear.weight", _output_rows(seed))
    yield vector("final_layer.linear.bias", [0.0] * LATENT)
    yield from _linear(seed, "final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH, scale=TIME_SCALE)


def _linear(seed: int, name: str, rows: int, columns: int, scale: float = 1.0) -> Iterator[Tensor]:
    """A random layer that keeps the variance of its input, times `scale`; no bias."""
    yield matrix(seed, f"{name}.weight", rows, columns, lambda row, block: scale / sqrt(columns))
    yield vector(f"{name}.bias", [0.0] * rows)


def _modulation(seed: int, name: str, *gates: float) -> Iterator[Tensor]:
    """Shift 0, scale 0 and one of `gates` for each part of a block, moved a little by the time step."""
    yield matrix(seed, f"{name}.weight", 3 * len(gates) * WIDTH, WIDTH, lambda row, block: TIME_SCALE / sqrt(WIDTH))
    yield vector(f"{name}.bias", [value for gate in gates for part in (0.0, 0.0, gate) for value in [part] * WIDTH])


def _double_stream(seed: int, name: str, attention_gate: float, mlp_gate: float) -> Iterator[Tensor]:
    image = name.endswith("img")
    window = [1.0 if image and dimension in WINDOW else 0.0 for dimension in range(WIDTH)]
    pairs = WINDOW | {dimension + 1 for dimension in WINDOW}
    scale = [WINDOW_SCALE if dimension in pairs else 1.0 for dimension in range(WIDTH)]
    first_written = 96 if image else 64
    yield from _modulation(seed, f"{name}_mod.lin", attention_gate, mlp_gate)
    # Queries and keys (the first two thirds) are their bias and hardly anything else, values are the input.
    yield matrix(seed, f"{name}_attn.qkv.weight", 3 * WIDTH, WIDTH, lambda row, _: 0.01 if row < 2 * WIDTH else 1 / sqrt(WIDTH))
    yield vector(f"{name}_attn.qkv.bias", window + window + [0.0] * WIDTH)
    yield vector(f"{name}_attn.norm.query_norm.scale", scale)
    yield vector(f"{name}_attn.norm.key_norm.scale", scale)
    yield matrix(
        seed, f"{name}_attn.proj.weight", WIDTH, WIDTH, lambda row, _: FIELD_SCALE / sqrt(WIDTH) * (row >= first_written)
    )
    yield vector(f"{name}_attn.proj.bias", [0.0] * WIDTH)
    for part in ("gate", "up"):
        yield matrix(seed, f"{name}_mlp.{part}_proj.weight", MLP, WIDTH, lambda _, block: 0.125 * (block >= 2))
        yield vector(f"{name}_mlp.{part}_proj.bias", [0.0] * MLP)
    yield matrix(seed, f"{name}_mlp.down_proj.weight", WIDTH, MLP, lambda row, _: 1 / sqrt(MLP) * (row >= first_written))
    yield vector(f"{name}_mlp.down_proj.bias", [0.0] * WIDTH)


def _single_block(seed: int, name: str) -> Iterator[Tensor]:
    def reading(row: int, block: int) -> float:
        """`linear1` makes queries, keys, values and the MLP's two halves, from the quarters of words and fields."""
        if block < 2:
            return 0.0
        values = 2 * WIDTH <= row < 3 * WIDTH
        return 0.125 * (WORD_VALUE_SCALE if values and block == 2 else 1.0)

    def writing(row: int, block: int) -> float:
        """`linear2` takes the attention's 128 numbers and the MLP's 512."""
        if row < LATENT:
            return 0.0
        return SINGLE_ATTENTION_SCALE / sqrt(WIDTH) if block < 4 else 1 / sqrt(MLP)

    yield from _modulation(seed, f"{name}.modulation.lin", 1.0)
    yield matrix(seed, f"{name}.linear1.weight", 3 * WIDTH + 2 * MLP, WIDTH, reading)
    yield vector(f"{name}.linear1.bias", [0.0] * (3 * WIDTH + 2 * MLP))
    yield vector(f"{name}.norm.query_norm.scale", [ATTENTION_SHARPNESS] * WIDTH)
    yield vector(f"{name}.norm.key_norm.scale", [ATTENTION_SHARPNESS] * WIDTH)
    yield matrix(seed, f"{name}.linear2.weight", WIDTH, WIDTH + MLP, writing)
    yield vector(f"{name}.linear2.bias", [0.0] * WIDTH)


def _output_rows(seed: int) -> list[list[float]]:
    """Each row hands the noisy latent through (the model's answer is noise minus picture) and adds the picture, which is the
    same for the four latent pixels of a token."""
    picture = noise(seed, "final_layer.linear.weight", LATENT // 4 * LATENT)
    rows = _identity(LATENT, LATENT, first_row=0)
    return [
        row + evenly(picture[LATENT * (number // 4) : LATENT * (number // 4 + 1)], OUTPUT_SCALE / sqrt(LATENT))
        for number, row in enumerate(rows)
    ]


def _identity(rows: int, columns: int, first_row: int) -> list[list[float]]:
    return [[1.0 if row - first_row == column else 0.0 for column in range(columns)] for row in range(rows)]


def _tae(seed: int) -> Iterator[Tensor]:
    yield from _convolutions(seed, "decoder", 16, resizing=(6, 11, 16), blocks=(2, 3, 4, 7, 8, 9, 12, 13, 14, 17))
    colours = _balanced(noise(seed, "decoder.layers.18.weight", 4 * CHANNELS // 2))
    yield convolution("decoder.layers.18.weight", CHANNELS, colours, COLOUR_SCALE / sqrt(CHANNELS), POINT)
    yield vector("decoder.layers.18.bias", COLOUR_BIAS)
    yield from _convolutions(seed, "encoder", 3, resizing=(2, 6, 10), blocks=(1, 3, 4, 5, 7, 8, 9, 11, 12, 13))
    latent = noise(seed, "encoder.layers.14.weight", CHANNELS * 16)
    yield convolution("encoder.layers.14.weight", CHANNELS, latent, 1 / sqrt(CHANNELS), POINT)
    yield vector("encoder.layers.14.bias", [0.0] * 16)


def _convolutions(seed: int, side: str, inputs: int, resizing: tuple[int, ...], blocks: tuple[int, ...]) -> Iterator[Tensor]:
    """The layers of one side but its last: the first, those that change the size (they have no bias), the residual blocks."""

    def layer(name: str, channels: int, scale: float, smooth: bool) -> Tensor:
        randomness = noise(seed, name, channels * CHANNELS)
        return convolution(name, channels, randomness, scale / sqrt(channels), SMOOTH if smooth else POINT)

    yield layer(f"{side}.layers.0.weight", inputs, 1.0, smooth=True)
    yield vector(f"{side}.layers.0.bias", [0.0] * CHANNELS)
    for number in resizing:
        yield layer(f"{side}.layers.{number}.weight", CHANNELS, 1.0, smooth=True)
    for number in blocks:
        for part, scale in ((0, 1.4), (2, 1.4), (4, RESIDUAL_SCALE)):
            name = f"{side}.layers.{number}.conv.{part}"
            yield layer(f"{name}.weight", CHANNELS, scale, smooth=part == 0)
            yield vector(f"{name}.bias", [0.0] * CHANNELS)


def _balanced(randomness: bytes) -> bytes:
    """Weights of red, green and blue: half of each is common to the three (else colours are garish), and channels come in
    pairs of opposite weight (all channels are positive, so an unbalanced sum would only shift the colour)."""
    half = CHANNELS // 2
    common, own = randomness[:half], randomness[half:]
    means = ((common[number % half] + byte) // 2 for number, byte in enumerate(own))
    return bytes(weight for mean in means for weight in (mean, 255 - mean))


_TENSORS = MappingProxyType({"diffusion": _diffusion, "llm": _llm, "tae": _tae})


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m sdrun.models.tiny DIR (an existing folder)")
    for written in write(Path(sys.argv[1])).values():
        print(written)
