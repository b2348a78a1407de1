"""How the engine gets from a prompt and a seed to a picture: its noise, its steps, its text template. All in numpy and PyTorch.

Source: src/rng_philox.hpp, src/denoiser.hpp ("discrete" schedule with flow shift), src/conditioner.hpp at commit 90e87bc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.shapes import words
from models.shapes.autoencoder import Autoencoder
from models.shapes.network import CHANNELS, ROW, TEXT_LENGTH, TextEncoder, Transformer, pack, unpack

STEPS = 8
SHIFT = math.e  # the engine's default for this family: e to the power mu, mu = 1
_BEFORE = [ROW[token] for token in words.BEFORE]
_AFTER = [ROW[token] for token in words.AFTER]
_PADDING = ROW[words.PADDING]


def shifted(u: Tensor) -> Tensor:
    """Evenly spaced 0..1 to the engine's sigma 0..1."""
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def sigmas(steps: int = STEPS) -> Tensor:
    """[steps + 1] from 1 to 0."""
    times = torch.linspace(999, 0, steps, dtype=torch.float64)
    return torch.cat([shifted((times + 1) / 1000), torch.zeros(1, dtype=torch.float64)]).float()


def philox(seed: int, number: int) -> npt.NDArray[np.float32]:
    """The first `number` normal values that the engine draws for a seed."""
    with np.errstate(over="ignore"):
        counter = [np.zeros(number, np.uint64) for _ in range(4)]
        counter[2] = np.arange(number, dtype=np.uint64)
        key = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
        low = np.uint64(0xFFFFFFFF)
        for turn in range(10):
            a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
            high = np.uint64(32)
            counter = [(b >> high) ^ counter[1] ^ key[0], b & low, (a >> high) ^ counter[3] ^ key[1], a & low]
            if turn < 9:
                key = [(key[0] + np.uint64(0x9E3779B9)) & low, (key[1] + np.uint64(0xBB67AE85)) & low]
    scale = np.float32(2.3283064e-10)
    turn_scale = np.float32(2.3283064e-10) * np.float32(6.2831855)
    u = counter[0].astype(np.float32) * scale + scale / 2
    v = counter[1].astype(np.float32) * turn_scale + turn_scale / 2
    return (np.sqrt(np.float32(-2) * np.log(u)) * np.sin(v)).astype(np.float32)


def noise(seeds: Sequence[int], pixels: int) -> Tensor:
    """[n, 16, pixels / 8, pixels / 8]."""
    side = pixels // 8
    return torch.from_numpy(np.stack([philox(seed, CHANNELS * side * side).reshape(CHANNELS, side, side) for seed in seeds]))


def text_rows(prompts: Sequence[str], length: int = TEXT_LENGTH) -> tuple[Tensor, Tensor]:
    """Rows of the embedding [n, length] in the engine's template, padded, and how many are no padding [n]."""
    rows = [_BEFORE + [ROW.get(token, 0) for token in words.encode(prompt)] + _AFTER for prompt in prompts]
    longest = max(length, *(len(row) for row in rows))
    return torch.tensor([row + [_PADDING] * (longest - len(row)) for row in rows]), torch.tensor([len(row) for row in rows])


@torch.no_grad()
def sample(
    text: TextEncoder,
    transformer: Transformer,
    prompts: Sequence[str],
    start: Tensor,
    steps: int = STEPS,
    length: int = TEXT_LENGTH,
) -> Tensor:
    """Latents [n, 16, h, w] from the noise `start`, by Euler's method, without guidance (cfg 1), as in the engine.

    The engine pads the text to TEXT_LENGTH tokens; another `length` is for networks that have been trained with that.
    """
    weight = transformer.img_in.weight
    rows, lengths = (value.to(weight.device) for value in text_rows(prompts, length))
    seen = text(rows, lengths, int(lengths.max()))
    x = pack(start.to(weight.device, torch.float32))
    levels = sigmas(steps).to(weight.device)
    for now, then in pairwise(levels):
        velocity = transformer(x.to(weight.dtype), seen, now.expand(len(prompts)))
        x = x + (then - now) * velocity.float()
    return unpack(x)


@torch.no_grad()
def pictures(autoencoder: Autoencoder, latents: Tensor) -> npt.NDArray[np.uint8]:
    """[n, h, w, 3]."""
    first = next(autoencoder.decoder.parameters())
    out = [autoencoder.decoder(part.to(first.dtype)).float().clamp(0, 1) for part in latents.split(64)]
    return (torch.cat(out) * 255 + 0.5).permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
