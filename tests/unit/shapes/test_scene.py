"""The exact pictures of scenes: colours, places, areas and what lies in front."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    CONTRAST,
    SHAPES,
    Figure,
    Item,
    Scene,
    Spec,
    complete,
    contrast,
    coverage,
    render,
    sample,
)

AREA = {  # of a figure of radius 1, from geometry
    "circle": math.pi,
    "square": (2 * 0.87) ** 2,
    "triangle": 2.1 * 1.8 / 2,
    "diamond": 2 * 1.1 * 0.78,
    "star": 10 / 2 * 1.1 * 0.45 * math.sin(math.pi / 5),
    "cross": 2 * 1.9 * 0.66 - 0.66**2,
    "ring": math.pi * (1 - 0.56**2),
}


@pytest.mark.parametrize("shape", AREA)
def test_covers_the_area_of_its_outline(shape: str) -> None:
    cover = coverage(Figure(shape, "red", 0.5, 0.5, 0.3), 256)
    assert cover.min() == 0
    assert cover.max() == 1
    assert float(cover.mean()) == pytest.approx(AREA[shape] * 0.3**2, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_and_place_move_the_picture_alone(shape: str) -> None:
    """Twice the pixels is the same picture; a shift by whole pixels shifts it."""
    small = render(Scene((Figure(shape, "blue", 0.5, 0.5, 0.25),), "white"), 64)
    large = render(Scene((Figure(shape, "blue", 0.5, 0.5, 0.25),), "white"), 128).reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 1.0
    moved = render(Scene((Figure(shape, "blue", 0.5 + 8 / 64, 0.5 - 4 / 64, 0.25),), "white"), 64)
    assert np.abs(np.roll(small, (-4, 8), (0, 1)).astype(int) - moved).max() <= 1


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "moon"])
def test_mirrored_left_to_right_is_the_same(shape: str) -> None:
    cover = coverage(Figure(shape, "red", 0.5, 0.5, 0.3), 128)
    assert np.abs(cover - cover[:, ::-1]).max() < 0.01


@pytest.mark.parametrize("color", COLORS)
def test_colours_are_those_of_the_world(color: str) -> None:
    background = next(name for name in BACKGROUNDS if contrast(name, color) >= CONTRAST)
    picture = render(Scene((Figure("circle", color, 0.5, 0.5, 0.2),), background), 64)
    assert tuple(picture[32, 32]) == COLORS[color]
    assert tuple(picture[0, 0]) == BACKGROUNDS[background]


def test_later_figures_lie_in_front() -> None:
    behind, before = Figure("square", "blue", 0.5, 0.5, 0.4), Figure("circle", "yellow", 0.5, 0.5, 0.2)
    assert tuple(render(Scene((behind, before), "white"), 64)[32, 32]) == COLORS["yellow"]
    assert tuple(render(Scene((before, behind), "white"), 64)[32, 32]) == COLORS["blue"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_scene_keeps_to_its_specification(seed: int) -> None:
    rng = random.Random(seed)
    spec = sample(rng)
    scene = complete(spec, rng)
    items = [item for item in spec.items for _ in range(item.count)] or [Item(None, None)]
    figures = scene.figures[::-1] if spec.relation == "inside" else scene.figures
    assert len(figures) == len(items)
    for item, figure in zip(items, figures, strict=True):
        assert item.shape in (None, figure.shape)
        assert item.color in (None, figure.color)
        assert all(middle - 0.9 * figure.radius > 0 and middle + 0.9 * figure.radius < 1 for middle in (figure.x, figure.y))
    assert spec.background in (None, scene.background)
    first, second = (figures[0], figures[1]) if len(figures) > 1 else (figures[0], figures[0])
    apart = {"left": second.x - first.x, "right": first.x - second.x, "above": second.y - first.y, "below": first.y - second.y}
    assert apart.get(spec.relation or "", 1) > 0.2


def test_refuses_what_would_not_be_seen() -> None:
    with pytest.raises(ValueError, match="stand out"):
        complete(Spec((Item("star", "white"),), background="white"), random.Random(1))
