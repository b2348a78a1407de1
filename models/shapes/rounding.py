"""Q4_0 inside PyTorch: what training sees of it. `quantize.py` writes the bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from models.shapes.quantize import BLOCK


def rounded(weights: Tensor) -> Tensor:
    """What is left of a tensor after Q4_0, in float32; for training with the quantisation in view."""
    rows = weights.float().reshape(-1, BLOCK)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    scale = largest / -8
    inverse = torch.where(scale != 0, 1 / scale, 0)
    levels = (rows * inverse + 8.5).trunc().clamp(max=15) - 8
    return (levels * scale.half().float()).reshape(weights.shape)
