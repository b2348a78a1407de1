"""What the model shapes can draw: specifications, the scenes they allow, and the exact picture of a scene.

A `Spec` is what a prompt says and leaves the rest open (None). `complete` fills in the rest by chance and yields a `Scene`:
figures with a place and a size. `render` draws a scene, antialiased, with numpy alone. The names come from `world.toml`;
`grammar.py` puts a Spec into words and reads it back.

Lengths are fractions of the picture's side, x to the right, y downwards.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
RGB = tuple[int, int, int]

WORLD: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "world.toml").read_text())
COLORS: dict[str, RGB] = {name: tuple(row["rgb"]) for name, row in WORLD["colors"].items()}
BACKGROUNDS: dict[str, RGB] = COLORS | {name: tuple(row["rgb"]) for name, row in WORLD["backgrounds"].items()}
POSITIONS: dict[str, tuple[float, float]] = {name: tuple(row["at"]) for name, row in WORLD["positions"].items()}
SHAPES = tuple(WORLD["shapes"])
SIZES = tuple(WORLD["sizes"])
RELATIONS = tuple(WORLD["relations"])

# A figure stands out from its background by at least this distance in RGB (the nearest allowed pair is orange on yellow).
CONTRAST = 90.0
CONTAINERS = ("circle", "square", "diamond", "heart")
# The background of a prompt that names none: the first from which every figure stands out.
PLAIN = ("white", "gray", "black")
# How often each kind of prompt is drawn for training.
KINDS = {"single": 25, "relation": 40, "inside": 8, "pair": 10, "count": 9, "trio": 5, "empty": 3}


@dataclass(frozen=True, slots=True)
class Item:
    """One noun phrase: None is left open. `count` equal figures, 1..4; `position` only of a single figure."""

    shape: str | None
    color: str | None
    size: str | None = None
    position: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Spec:
    """What a prompt asks for. `relation` is that of the first item to the second ("left": the first is left of the second)."""

    items: tuple[Item, ...]
    relation: str | None = None
    background: str | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if not self.items:
            return "empty"
        if len(self.items) == 1:
            return "single" if self.items[0].count == 1 else "count"
        if len(self.items) > 2:
            return "trio"
        return {None: "pair", "inside": "inside"}.get(self.relation, "relation")


@dataclass(frozen=True, slots=True)
class Figure:
    """One drawn shape; its outline lies within about `radius` of (x, y)."""

    shape: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Figures from back to front, in the order of the Spec's items, but the container first under "inside"."""

    figures: tuple[Figure, ...]
    background: str


def contrast(one: str, other: str) -> float:
    """Distance of two named colours in RGB."""
    return float(np.linalg.norm(np.subtract(BACKGROUNDS[one], BACKGROUNDS[other])))


_CLEAR = {(a, b): contrast(a, b) >= CONTRAST for a, b in product(BACKGROUNDS, repeat=2)}


def plain(colors: list[str]) -> str | None:
    """The background on which figures of these colours stand when the prompt names none; None if there is none."""
    return next((name for name in PLAIN if all(_CLEAR[name, color] for color in colors)), None)


def radii(spec: Spec, index: int) -> tuple[float, float]:
    """Smallest and largest radius that a figure of `spec.items[index]` may have."""
    item = spec.items[index]
    table: dict[str | None, tuple[float, float]]
    if spec.relation == "inside":
        table = {None: (0.11, 0.15), "small": (0.085, 0.11)} if index == 0 else {None: (0.31, 0.37), "large": (0.35, 0.4)}
    elif len(spec.items) == 2:
        table = {None: (0.14, 0.175), "small": (0.08, 0.105), "large": (0.2, 0.225)}
    elif len(spec.items) == 3 or item.count == 3:
        table = {None: (0.11, 0.135), "small": (0.07, 0.085)}
    elif item.count > 1:
        table = {None: (0.135, 0.165), "small": (0.08, 0.105)}
    elif item.position is None or item.position == "center":
        table = {None: (0.2, 0.26), "small": (0.1, 0.135), "large": (0.32, 0.38)}
    else:
        table = {None: (0.14, 0.175), "small": (0.08, 0.105), "large": (0.205, 0.235)}
    return table[item.size]


def _places(spec: Spec, rng: random.Random) -> list[tuple[float, float]]:
    """One place for each figure, in the order of the items."""
    near = rng.uniform
    if spec.kind == "single":
        position = spec.items[0].position
        x, y = POSITIONS[position or "center"]
        spread = 0.02 if position else 0.07
        return [(x + near(-spread, spread), y + near(-spread, spread))]
    if spec.relation == "inside":
        x, y = 0.5 + near(-0.04, 0.04), 0.5 + near(-0.04, 0.04)
        return [(x + near(-0.015, 0.015), y + near(-0.015, 0.015)), (x, y)]
    number = max(len(spec.items), spec.items[0].count)
    if number == 4:
        return [(x + near(-0.025, 0.025), y + near(-0.025, 0.025)) for y in (0.28, 0.72) for x in (0.28, 0.72)]
    level = 0.5 + near(-0.08, 0.08)
    along = (0.19, 0.5, 0.81) if number == 3 else (0.26, 0.74)
    row = [(x + near(-0.02, 0.02), level + near(-0.04, 0.04)) for x in along]
    if spec.relation in ("right", "below"):
        row.reverse()
    return [(y, x) for x, y in row] if spec.relation in ("above", "below") else row


def complete(spec: Spec, rng: random.Random) -> Scene:
    """A scene that the specification allows; what it leaves open is drawn from `rng`.

    An empty specification yields a single figure of any kind. Raises ValueError where a figure does not stand out.
    """
    if not spec.items:
        spec = Spec((Item(None, None),), background=spec.background)
    figures = []
    taken = [item.color for item in spec.items if item.color]
    colors = []
    for item in spec.items:
        free = [c for c in COLORS if c not in taken and (_CLEAR[c, spec.background] if spec.background else plain([*taken, c]))]
        colors.append(item.color or rng.choice(free))
        taken.append(colors[-1])
    clear = colors[1:] if spec.relation == "inside" else colors
    background = spec.background or plain(clear)
    if background is None or not all(_CLEAR[background, color] for color in clear):
        raise ValueError(f"not all of {colors} stand out from the background {background}")
    places = iter(_places(spec, rng))
    for index, (item, color) in enumerate(zip(spec.items, colors, strict=True)):
        shape = item.shape or rng.choice(CONTAINERS if spec.relation == "inside" and index == 1 else SHAPES)
        radius = rng.uniform(*radii(spec, index))
        figures += [Figure(shape, color, *next(places), radius) for _ in range(item.count)]
    if spec.relation == "inside":
        figures.reverse()
    return Scene(tuple(figures), background)


def sample(rng: random.Random, kind: str | None = None) -> Spec:
    """A random specification, of a random kind by default; `complete` accepts it."""
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    while True:
        spec = _draw(rng, kind)
        colors = [item.color for item in spec.items if item.color]
        clear = colors[1:] if kind == "inside" else colors
        if kind == "inside" and len(colors) == 2 and not _CLEAR[colors[0], colors[1]]:
            continue
        if len({(item.shape, item.color) for item in spec.items}) < len(spec.items):
            continue
        if all(_CLEAR[spec.background, color] for color in clear) if spec.background else plain(clear):
            return spec


def _draw(rng: random.Random, kind: str) -> Spec:
    def chance(share: float, names: Any) -> Any:
        return rng.choice(tuple(names)) if rng.random() < share else None

    background = chance(0.35, BACKGROUNDS)
    if kind == "empty":
        return Spec(())
    if kind == "single":
        item = Item(chance(0.95, SHAPES), chance(0.95, COLORS), chance(0.3, SIZES), chance(0.5, POSITIONS))
        return Spec((item,), background=background)
    if kind == "count":
        return Spec(
            (Item(chance(1, SHAPES), chance(0.95, COLORS), chance(0.1, ("small",)), count=rng.randint(2, 4)),), None, background
        )
    if kind == "inside":
        inner = Item(chance(1, SHAPES), chance(1, COLORS), chance(0.3, ("small",)))
        outer = Item(chance(1, CONTAINERS), chance(1, COLORS), chance(0.3, ("large",)))
        return Spec((inner, outer), "inside", background)
    sizes = ("small",) if kind == "trio" else SIZES
    items = tuple(Item(chance(1, SHAPES), chance(1, COLORS), chance(0.15, sizes)) for _ in range(3 if kind == "trio" else 2))
    relation = rng.choice(("left", "right", "above", "below")) if kind == "relation" else None
    return Spec(items, relation, background if rng.random() < 0.7 else None)


def polygon_distance(x: Array, y: Array, corners: Array) -> Array:
    """Signed distance to a polygon, negative inside."""
    best = np.full(x.shape, np.inf, np.float32)
    sign = np.ones(x.shape, np.float32)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, 1, axis=0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wx - along * ex) ** 2 + (wy - along * ey) ** 2)
        tests = np.stack([y >= ay, y < by, ex * wy > ey * wx])
        sign = np.where(tests.all(0) | ~tests.any(0), -sign, sign)
    return sign * np.sqrt(best)


def _box(x: Array, y: Array, width: float, height: float) -> Array:
    dx, dy = np.abs(x) - width, np.abs(y) - height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _polar(angles: Array, lengths: Array | float) -> Array:
    return np.stack([np.sin(angles) * lengths, -np.cos(angles) * lengths], 1).astype(np.float32)


_STAR = _polar(np.arange(10, dtype=np.float32) * np.pi / 5, np.where(np.arange(10) % 2, 0.45, 1.1)) + np.float32([0, 0.08])
_TRIANGLE = np.float32([[0, -0.95], [1.05, 0.85], [-1.05, 0.85]])
_DIAMOND = np.float32([[0, -1.1], [0.78, 0], [0, 1.1], [-0.78, 0]])
_TURN = np.linspace(0, 2 * np.pi, 64, endpoint=False, dtype=np.float32)
_HEART = np.stack(
    [np.sin(_TURN) ** 3, -(13 * np.cos(_TURN) - 5 * np.cos(2 * _TURN) - 2 * np.cos(3 * _TURN) - np.cos(4 * _TURN)) / 16 - 0.08],
    1,
).astype(np.float32)

# Signed distance from the outline of each shape of radius 1, negative inside.
DISTANCE: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: _box(x, y, 0.87, 0.87),
    "triangle": lambda x, y: polygon_distance(x, y, _TRIANGLE),
    "diamond": lambda x, y: polygon_distance(x, y, _DIAMOND),
    "star": lambda x, y: polygon_distance(x, y, _STAR),
    "heart": lambda x, y: polygon_distance(x, y, _HEART),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.33), _box(x, y, 0.33, 0.95)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.78) - 0.22,
    "moon": lambda x, y: np.maximum(np.hypot(x + 0.1, y) - 1, 0.85 - np.hypot(x - 0.42, y)),
}


def coverage(figure: Figure, pixels: int) -> Array:
    """How much of each pixel the figure covers, 0..1, [pixels, pixels]: half a pixel of softness either side of the outline."""
    middle = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
    x, y = np.meshgrid((middle - figure.x) / figure.radius, (middle - figure.y) / figure.radius)
    return np.clip(0.5 - DISTANCE[figure.shape](x, y) * figure.radius * pixels, 0, 1)


def render(scene: Scene, pixels: int = 256) -> npt.NDArray[np.uint8]:
    """The picture of a scene, [pixels, pixels, 3]."""
    picture = np.broadcast_to(np.float32(BACKGROUNDS[scene.background]), (pixels, pixels, 3)).copy()
    for figure in scene.figures:
        cover = coverage(figure, pixels)[..., None]
        picture = picture * (1 - cover) + np.float32(COLORS[figure.color]) * cover
    return np.asarray(picture + 0.5, np.uint8)
