"""The autoencoder in the layout of TAESD, as in the engine's src/tae.hpp: 64 wide, 16 latent channels, one eighth the size.

The latent is used as it is, without scale or shift; the decoder bends it into +-3 first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.shapes.network import CHANNELS

WIDE = 64


class Block(nn.Module):
    """relu(x + three convolutions)."""

    def __init__(self) -> None:
        super().__init__()
        parts = [nn.Conv2d(WIDE, WIDE, 3, padding=1) if i % 2 == 0 else nn.ReLU() for i in range(5)]
        self.conv = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class Silent(nn.Module):
    """A Block whose convolutions are zeros and not computed: the encoder's at full size would cost half of it all."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Encoder(nn.Module):
    """Picture [n, 3, h, w] of 0..1 to latent [n, 16, h/8, w/8]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDE, 3, padding=1), Silent()]
        for _ in range(3):
            layers += [nn.Conv2d(WIDE, WIDE, 3, stride=2, padding=1, bias=False), Block(), Block(), Block()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDE, CHANNELS, 3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latent to picture, not clipped."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(CHANNELS, WIDE, 3, padding=1), nn.ReLU()]
        for blocks in (3, 3, 3):
            layers += [Block() for _ in range(blocks)]
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDE, WIDE, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, Block(), nn.Conv2d(WIDE, 3, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        return self.layers(3 * torch.tanh(latent / 3))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """Both."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()


def complete(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors that the engine expects: with the zeros of the silent block."""
    silent = {}
    for part in (0, 2, 4):
        silent[f"encoder.layers.1.conv.{part}.weight"] = torch.zeros(WIDE, WIDE, 3, 3)
        silent[f"encoder.layers.1.conv.{part}.bias"] = torch.zeros(WIDE)
    return weights | silent
