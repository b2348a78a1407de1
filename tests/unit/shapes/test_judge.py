"""The judge of pictures, where their content is known: it takes right ones, also spoilt ones, and refuses wrong ones."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.shapes.judge import judge, judge_all, matches
from models.shapes.scene import COLORS, KINDS, SHAPES, Figure, Item, Scene, Spec, complete, render, sample
from models.shapes.seeing import Picture, see

EACH = 4  # scenes of each kind


def scenes(kind: str, count: int = EACH) -> Iterator[tuple[Spec, Scene]]:
    """Specifications of that kind, each with a scene; always the same."""
    rng = random.Random(f"judge {kind}")
    for _ in range(count):
        spec = sample(rng, kind)
        yield spec, complete(spec, rng)


def blurred(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.5)))


def noisy(picture: Picture) -> Picture:
    return np.clip(picture + np.random.default_rng(1).normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def as_jpeg(picture: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file).convert("RGB"))


def off_colour(picture: Picture) -> Picture:
    """A cast as a small autoencoder may give: contrast 90 %, a little warmer."""
    return np.clip((picture - 127.5) * 0.9 + (134, 128, 121), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("spoil", [np.array, blurred, noisy, as_jpeg, off_colour])
@pytest.mark.parametrize("kind", KINDS)
def test_takes_what_was_asked_for(kind: str, spoil: Callable[[Picture], Picture]) -> None:
    for spec, scene in scenes(kind):
        verdict = judge(spec, spoil(render(scene)))
        assert verdict.ok, (spec, scene, verdict)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "inside"])
def test_finds_the_figures_of_a_scene(kind: str) -> None:
    assert all(matches(scene, render(scene)) for _, scene in scenes(kind))


def test_names_each_shape_in_each_size() -> None:
    for shape in SHAPES:
        for radius in (0.07, 0.11, 0.17, 0.24, 0.36):
            (seen,) = (
                f for f in see(render(Scene((Figure(shape, "blue", 0.48, 0.52, radius),), "white"))).figures if not f.hollow
            )
            assert (seen.shape, seen.color) == (shape, "blue")
            assert seen.radius == pytest.approx(radius, rel=0.08)


def test_names_each_colour_on_a_background_that_it_stands_out_from() -> None:
    for color in COLORS:
        spec = Spec((Item("square", color),))
        assert judge(spec, render(complete(spec, random.Random(color)))).color


def changed(scene: Scene, number: int, **to: object) -> Scene:
    figures = list(scene.figures)
    figures[number] = replace(figures[number], **to)  # type: ignore[arg-type]
    return replace(scene, figures=tuple(figures))


def other(name: str | None, names: tuple[str, ...], background: str) -> str:
    """Another colour or shape, far from background and each other."""
    return next(new for new in names if new not in (name, background))


def wrong_colour(spec: Spec, scene: Scene) -> Scene:
    return changed(scene, 0, color=other(scene.figures[0].color, ("green", "red", "blue"), scene.background))


def wrong_shape(spec: Spec, scene: Scene) -> Scene:
    new = "star" if scene.figures[0].shape != "star" else "square"
    return changed(scene, 0, shape=new, radius=scene.figures[0].radius)


def missing(spec: Spec, scene: Scene) -> Scene:
    return replace(scene, figures=scene.figures[1:])


def swapped(spec: Spec, scene: Scene) -> Scene:
    first, second = scene.figures
    return replace(scene, figures=(replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y)))


def one_more(spec: Spec, scene: Scene) -> Scene:
    color = other(None, ("green", "red", "blue"), scene.background)
    return replace(scene, figures=(*scene.figures, Figure("circle", color, 0.5, 0.92, 0.05)))


FULL = {  # everything said, so that every mistake can be seen
    "single": Spec((Item("circle", "red", "small", "top-left"),), background="white"),
    "relation": Spec((Item("circle", "red"), Item("square", "blue")), "left", "white"),
    "count": Spec((Item("heart", "purple", count=3),), None, "yellow"),
    "trio": Spec((Item("cross", "orange"), Item("moon", "blue"), Item("diamond", "brown")), None, "white"),
}


@pytest.mark.parametrize("spoil", [np.array, blurred, as_jpeg])
@pytest.mark.parametrize("mistake", [wrong_colour, wrong_shape, missing, one_more])
@pytest.mark.parametrize("kind", FULL)
def test_refuses_what_is_wrong(kind: str, mistake: Callable[[Spec, Scene], Scene], spoil: Callable[[Picture], Picture]) -> None:
    spec = FULL[kind]
    scene = complete(spec, random.Random(3))
    assert judge(spec, spoil(render(scene))).ok
    verdict = judge(spec, spoil(render(mistake(spec, scene))))
    assert not verdict.ok
    assert {wrong_colour: verdict.color, wrong_shape: verdict.shape}.get(mistake, verdict.number) is False


@pytest.mark.parametrize("relation", ["left", "right", "above", "below"])
def test_refuses_the_opposite_relation(relation: str) -> None:
    spec = Spec((Item("circle", "red"), Item("square", "blue")), relation, "white")
    scene = complete(spec, random.Random(relation))
    verdict = judge(spec, render(swapped(spec, scene)))
    assert (verdict.relation, verdict.color, verdict.shape) == (False, True, True)


def test_refuses_the_wrong_relation_between_figures_of_one_look() -> None:
    """Both squares are red, so either may be the first; one above the other is not one left of the other."""
    figures = (Figure("square", "red", 0.5, 0.25, 0.15), Figure("square", "red", 0.5, 0.75, 0.15))
    asked = Spec((Item("square", "red"), Item("square", "red")), "left")
    assert judge(asked, render(Scene(figures, "white"))).relation is False
    assert judge(replace(asked, relation="above"), render(Scene(figures, "white"))).ok


def test_refuses_place_size_and_background() -> None:
    spec = FULL["single"]
    scene = complete(spec, random.Random(1))
    assert judge(spec, render(changed(scene, 0, x=0.74))).position is False
    assert judge(spec, render(changed(scene, 0, radius=0.22))).size is False
    assert judge(spec, render(replace(scene, background="yellow"))).background is False


def test_inside_is_told_from_beside_and_from_the_other_way_round() -> None:
    spec = Spec((Item("star", "yellow"), Item("circle", "blue")), "inside")
    good = (Figure("circle", "blue", 0.5, 0.5, 0.34), Figure("star", "yellow", 0.5, 0.5, 0.13))
    beside = (Figure("circle", "blue", 0.3, 0.5, 0.2), Figure("star", "yellow", 0.75, 0.5, 0.13))
    around = (Figure("circle", "yellow", 0.5, 0.5, 0.34), Figure("star", "blue", 0.5, 0.5, 0.13))
    alone = (Figure("circle", "blue", 0.5, 0.5, 0.34),)
    answers = [judge(spec, render(Scene(figures, "gray"))).ok for figures in (good, beside, around, alone)]
    assert answers == [True, False, False, False]


def test_a_figure_of_the_colour_behind_is_seen_and_a_ring_is_no_such_thing() -> None:
    asked = Spec((Item("heart", "white"), Item("square", "green")), "inside")
    hole = Scene((Figure("square", "green", 0.5, 0.5, 0.35), Figure("heart", "white", 0.5, 0.5, 0.13)), "white")
    assert judge(asked, render(hole)).ok
    ring = Scene((Figure("ring", "green", 0.5, 0.5, 0.24),), "white")
    assert judge(Spec((Item("ring", "green"),)), render(ring)).ok
    assert judge(Spec((Item("circle", "green"),)), render(ring)).shape is False


@pytest.mark.parametrize("value", [0, 255])
def test_refuses_an_empty_picture(value: int) -> None:
    picture = np.full((256, 256, 3), value, np.uint8)
    assert see(picture).figures == ()
    assert not any(judge(spec, picture).ok for spec in FULL.values())


def test_refuses_noise() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    assert not any(judge(spec, picture).ok for spec in FULL.values())


def test_a_batch_is_judged_one_by_one() -> None:
    spec = FULL["relation"]
    scene = complete(spec, random.Random(7))
    batch = np.stack([render(scene), render(swapped(spec, scene))])
    assert [verdict.ok for verdict in judge_all([spec, spec], batch)] == [True, False]


@pytest.mark.parametrize("shape", [(256, 256), (256, 128, 3), (256, 256, 4)])
def test_wants_a_square_picture_of_bytes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square picture of RGB bytes"):
        see(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="square picture of RGB bytes"):
        see(np.zeros((64, 64, 3), np.float32))
