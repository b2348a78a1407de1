"""Muon: momentum whose update of a matrix is made orthogonal by Newton and Schulz's iteration.

After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the scale of J. Liu et al., "Muon
is scalable for LLM training" (2025), under which AdamW's learning rates fit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.775, 2.0315)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """[n, rows, columns] with all singular values brought near 1."""
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon:
    """For matrices only; those of one shape are treated together."""

    def __init__(self, matrices: Iterable[Tensor], momentum: float = 0.95, decay: float = 0.01) -> None:
        self.momentum, self.decay = momentum, decay
        self.groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            self.groups[matrix.shape].append(matrix)
        self.velocity = {shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Moves every matrix by its gradient (`.grad`, float32)."""
        for shape, group in self.groups.items():
            gradients = torch.stack([matrix.grad for matrix in group])  # type: ignore[arg-type]
            velocity = self.velocity[shape].lerp_(gradients, 1 - self.momentum)
            update = orthogonal(gradients.lerp(velocity, self.momentum)) * (0.2 * max(shape) ** 0.5)
            torch._foreach_mul_(group, 1 - rate * self.decay)
            torch._foreach_add_(group, list(update.unbind(0)), alpha=-rate)

    def state(self) -> list[Tensor]:
        """What a later run needs to go on."""
        return list(self.velocity.values())

    def restore(self, state: list[Tensor]) -> None:
        """Takes back what `state` gave."""
        for mine, theirs in zip(self.velocity.values(), state, strict=True):
            mine.copy_(theirs)
