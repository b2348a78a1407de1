"""Scenes drawn by the thousand on the GPU, as `scene.render` draws one: a figure is looked up in a table of distances."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.shapes.scene import DISTANCE, SHAPES

_REACH = 1.4  # half the side of the square that the table covers, in radii
_STEPS = 512


@cache
def _table(device: torch.device) -> Tensor:
    """[1, 1, shapes, steps, steps]."""
    line = ((np.arange(_STEPS, dtype=np.float32) + 0.5) / _STEPS * 2 - 1) * _REACH
    x, y = np.meshgrid(line, line)
    return torch.from_numpy(np.stack([DISTANCE[name](x, y) for name in SHAPES]).astype(np.float32))[None, None].to(device)


def paint(figures: Tensor, ground: Tensor, pixels: int, corner: Tensor | None = None, side: int | None = None) -> Tensor:
    """Pictures [n, 3, side, side] of 0..1, from the arrays of `scenes.Scenes`.

    `corner` [n, 2] and `side`, in pixels, cut a window out of the picture of `pixels`; by default all of it is drawn.
    """
    device, side = figures.device, side or pixels
    line = torch.arange(side, device=device) + 0.5
    start = torch.zeros(len(figures), 2, device=device) if corner is None else corner
    x, y = ((start[:, axis, None] + line) / pixels for axis in (0, 1))
    picture = ground[:, :, None, None].expand(-1, -1, side, side)
    for figure in figures.unbind(1):
        shape, middle_x, middle_y, radius = figure[:, :4, None].unbind(1)
        size = radius.clamp(min=1e-3)
        u, v = (x - middle_x) / size / _REACH, (y - middle_y) / size / _REACH
        depth = (shape + 0.5) / len(SHAPES) * 2 - 1
        places = torch.stack(torch.broadcast_tensors(u[:, None, :], v[:, :, None], depth[:, :, None]), -1)
        distance = F.grid_sample(_table(device), places[None], padding_mode="border", align_corners=False)[0, 0]
        cover = (0.5 - distance * radius[:, :, None] * pixels).clamp(0, 1) * (radius[:, :, None] > 0)
        picture = torch.lerp(picture, figure[:, 4:, None, None], cover[:, None])
    return picture
