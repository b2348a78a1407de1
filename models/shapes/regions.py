"""Connected regions of a mask, by the runs of its rows: numpy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def regions_of(mask: Mask, least: float) -> Iterator[Mask]:
    """The connected regions of at least that many pixels, without what is thinner than three pixels (the fringe of an edge
    between two colours can look like a third)."""
    core = _grown(_shrunk(mask)) & mask
    labels, count = _labels(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for number in range(1, count + 1):
        if sizes[number] >= least:
            yield mask & _grown(labels == number) if _thin(mask, core) else labels == number


def _thin(mask: Mask, core: Mask) -> bool:
    """Whether the mask is hardly more than its core: then corners that the core lost are given back."""
    return int(mask.sum()) <= 1.1 * int(core.sum())


def _shrunk(mask: Mask) -> Mask:
    return ~_grown(~mask)


def _grown(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    wide = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
    return wide[:-2] | wide[1:-1] | wide[2:]


def _labels(mask: Mask) -> tuple[npt.NDArray[np.int64], int]:
    """Connected regions (sides touching) numbered from 1, by the runs of each row."""
    parents: list[int] = [0]

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    labels = np.zeros(mask.shape, np.int64)
    previous: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        bounds = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        runs = []
        for start, end in zip(bounds[::2].tolist(), bounds[1::2].tolist(), strict=True):
            touching = [root(label) for first, last, label in previous if first < end and start < last]
            number = min(touching, default=len(parents))
            if not touching:
                parents.append(number)
            for other in touching:
                parents[other] = number
            labels[y, start:end] = number
            runs.append((start, end, number))
        previous = runs
    roots = sorted({root(number) for number in range(1, len(parents))})
    table = np.zeros(len(parents), np.int64)
    for number in range(1, len(parents)):
        table[number] = roots.index(root(number)) + 1
    return table[labels], len(roots)


def filled(region: Mask) -> Mask:
    """The region with everything that it encloses."""
    padded = np.pad(~region, 1, constant_values=True)
    labels, _ = _labels(padded)
    return ~(labels == labels[0, 0])[1:-1, 1:-1]
