"""Finding the figures in a picture of the world of `scene.py`: pixel rules, numpy alone.

A figure is a connected region of one palette colour. Its shape is the one of the nine whose outline, moved and scaled to the
region's centre and area, covers it best. Every number below says why it is what it is.

Lengths are fractions of the picture's side, x to the right, y downwards, as in `scene.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from models.shapes.regions import Mask, filled, regions_of
from models.shapes.scene import BACKGROUNDS, COLORS, DISTANCE, SHAPES

Picture = npt.NDArray[np.uint8]

FLAT = 25  # levels between least and greatest of 3 x 3 pixels: above it a pixel is on an edge and its colour a mixture
LEAST_FLAT = 0.15  # of a figure's area; the blurred seam of two figures has the colour of a third, and hardly a flat pixel
LEAST_COLOUR = 0.001  # of the picture's pixels, flat ones: less is an accident
LEAST_FIGURE = 0.003  # of the picture's area; the smallest figure of the world, a small moon of three, has 0.006
LEAST_FIT = 0.6  # intersection over union with the best shape; below it the region is no shape at all
LEAST_GAP = 0.27  # of its outline's area: a ring's gap has 0.31, a circle inside another circle at most 0.23
_UNIT = 1.35  # half the side of the square in which a shape of radius 1 is measured
_STEPS = 270  # samples across it


@dataclass(frozen=True, slots=True)
class Seen:
    """One figure found. `fit`: intersection over union with its shape, 0..1; `area`: fraction of the picture. `hollow`: it is a
    gap in another figure, of the colour behind that one (it counts as a figure only where one inside another was asked for).
    `inside`: index of the smallest figure whose outline encloses it."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    fit: float
    area: float
    hollow: bool = False
    inside: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What is to be seen in a picture: the background's name and the figures, largest first."""

    background: str
    figures: tuple[Seen, ...]


def see(rgb: Picture) -> View:
    """The background and the figures of a picture (side, side, 3) of bytes. Raises ValueError for any other array."""
    if rgb.ndim != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"not a square picture of RGB bytes: {rgb.shape} {rgb.dtype}")
    flat = _flat(rgb)
    background, present = _colours(rgb, flat)
    nearest = _nearest(rgb, [background, *present])
    regions = [
        (color, region)
        for number, color in enumerate([background, *present])
        for region in regions_of(nearest == number, LEAST_FIGURE * nearest.size)
        if int((region & flat).sum()) >= LEAST_FLAT * int(region.sum())
    ]
    regions.sort(key=lambda entry: -int(entry[1].sum()))
    ground = max((region for color, region in regions if color == background), key=_on_edge, default=None)
    regions = [(color, region) for color, region in regions if region is not ground]
    outlines = [filled(region) for _, region in regions]
    around = [_around(number, region, outlines) for number, (_, region) in enumerate(regions)]
    colors = [color for color, _ in regions]
    gaps = [_is_gap(number, around, colors, background) for number in range(len(regions))]
    figures = []
    for number, (color, region) in enumerate(regions):
        within = [gaps[other] for other, outer in enumerate(around) if outer == number]
        figure = _figure(color, region) if not within or all(within) else _figure(color, outlines[number])
        if (
            within
            and all(within)
            and not (figure.shape == "ring" and _gap_share(number, around, regions, outlines) >= LEAST_GAP)
        ):
            figure = max(figure, _figure(color, outlines[number]), key=lambda seen: seen.fit)
        figures.append(replace(figure, hollow=gaps[number], inside=around[number]))
    return View(background, tuple(figures))


def _gap_share(number: int, around: list[int | None], regions: list[tuple[str, Mask]], outlines: list[Mask]) -> float:
    gap = sum(int(region.sum()) for (_, region), outer in zip(regions, around, strict=True) if outer == number)
    return gap / int(outlines[number].sum())


def _on_edge(region: Mask) -> int:
    return sum(int(side.sum()) for side in (region[0], region[-1], region[:, 0], region[:, -1]))


def _around(number: int, region: Mask, outlines: list[Mask]) -> int | None:
    """The smallest figure whose outline encloses the region."""
    enclosing = (other for other in range(number) if int((outlines[other] & region).sum()) > 0.9 * int(region.sum()))
    return max(enclosing, default=None)  # regions stand largest first


def _is_gap(number: int, around: list[int | None], colors: list[str], background: str) -> bool:
    """Whether through this region is seen what lies behind the figure around it."""
    outer = around[number]
    if outer is None:
        return colors[number] == background
    behind = around[outer]
    return colors[number] == (background if behind is None else colors[behind])


def _flat(rgb: Picture) -> Mask:
    """Pixels that are like their neighbours, noise averaged out."""
    smooth = _neighbours(rgb.astype(np.float32), np.add) / 9
    low, high = _neighbours(smooth, np.minimum), _neighbours(smooth, np.maximum)
    return np.asarray((high - low).max(-1) < FLAT)


def _colours(rgb: Picture, flat: Mask) -> tuple[str, list[str]]:
    """The background, which is the commonest colour along the edge, and the colours of figures, both among flat pixels only:
    where red meets white every mixture is pink."""
    names = list(BACKGROUNDS)
    nearest = _nearest(rgb, names)
    width = max(2, rgb.shape[0] // 32)
    edge = np.ones(flat.shape, bool)
    edge[width:-width, width:-width] = False
    on_edge = np.bincount(nearest[edge & flat] if (edge & flat).any() else nearest[edge], minlength=len(names))
    background = names[int(on_edge.argmax())]
    counts = np.bincount(nearest[flat], minlength=len(names))
    present = [
        name
        for name, count in zip(names, counts.tolist(), strict=True)
        if name != background and count >= LEAST_COLOUR * flat.size
    ]
    return background, [name for name in present if name in COLORS]


def _neighbours(rgb: npt.NDArray[np.float32], pick: np.ufunc) -> npt.NDArray[np.float32]:
    """The sum, least or greatest of each 3 x 3 neighbourhood, by channel; beyond the edge the picture goes on as it ends."""
    wide = np.pad(rgb, ((1, 1), (1, 1), (0, 0)), "edge")
    rows = pick(pick(wide[:-2], wide[1:-1]), wide[2:])
    return np.asarray(pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]))


def _nearest(rgb: Picture, names: list[str]) -> npt.NDArray[np.int64]:
    """For each pixel the index of the nearest of these colours."""
    palette = np.asarray([BACKGROUNDS[name] for name in names], np.float32)
    nearness = rgb.astype(np.float32) @ (2 * palette.T) - (palette**2).sum(-1)  # the distance's square, without the pixel's own
    return nearness.argmax(-1)


def _figure(color: str, region: Mask) -> Seen:
    """The shape that fits a region best, moved and scaled to its centre and area."""
    side = region.shape[0]
    rows, columns = np.nonzero(region)
    x, y, area = float(columns.mean() + 0.5) / side, float(rows.mean() + 0.5) / side, len(rows) / side**2
    best = ("", 0.0, 0.0, 0.0, 0.0)
    for shape in SHAPES:
        size, middle_x, middle_y = _moments(shape)
        radius = float(np.sqrt(area / size))
        at = (x - middle_x * radius, y - middle_y * radius)
        overlap = _overlap(shape, *at, radius, region)
        if overlap > best[4]:
            best = (shape, *at, radius, overlap)
    shape, fit_x, fit_y, radius, fit = best
    return Seen(shape if fit >= LEAST_FIT else "", color, fit_x, fit_y, radius, fit, area)


def _overlap(shape: str, x: float, y: float, radius: float, region: Mask) -> float:
    """Intersection over union of a shape and a region."""
    side = region.shape[0]
    middles = (np.arange(side, dtype=np.float32) + 0.5) / side
    reach = _UNIT * radius
    columns, rows = (np.flatnonzero(np.abs(middles - at) <= reach) for at in (x, y))
    if not len(columns) or not len(rows):
        return 0.0
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    u, v = np.meshgrid((middles[columns] - x) / radius, (middles[rows] - y) / radius)
    covered = DISTANCE[shape](u, v) < 0
    both = int((covered & region[window]).sum())
    return both / (int(covered.sum()) + int(region.sum()) - both)


@cache
def _moments(shape: str) -> tuple[float, float, float]:
    """Area and centroid of a shape of radius 1."""
    axis = (np.arange(_STEPS, dtype=np.float32) + 0.5) / _STEPS * 2 * _UNIT - _UNIT
    x, y = np.meshgrid(axis, axis)
    covered = DISTANCE[shape](x, y) < 0
    return float(covered.mean()) * (2 * _UNIT) ** 2, float(x[covered].mean()), float(y[covered].mean())
