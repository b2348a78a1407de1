"""Does a picture show what was asked? Pixel rules, numpy alone, no learning: `seeing.py` finds the figures in a picture,
`judge` compares them with a specification. `tests/shapes` measures how often the rules are right on pictures whose content is
known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import permutations

import numpy as np

from models.shapes.scene import POSITIONS, SIZES, Figure, Item, Scene, Spec, radii
from models.shapes.seeing import Picture, Seen, View, see

APART = 0.08  # least distance of two middles along the axis of their relation; the world has at least 0.2
WITHIN = 0.15  # greatest distance of the middles of two figures of which one is inside the other; the world has at most 0.03


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a specification the picture shows, None where the specification leaves it open. `number`: as many figures as
    asked for, no more and no fewer."""

    number: bool
    color: bool | None = None
    shape: bool | None = None
    size: bool | None = None
    position: bool | None = None
    relation: bool | None = None
    background: bool | None = None

    @property
    def ok(self) -> bool:
        """Everything that was asked for is there."""
        return all(getattr(self, part.name) is not False for part in fields(self))


def judge(spec: Spec, rgb: Picture) -> Verdict:
    """Whether the picture `rgb` (side, side, 3) shows what `spec` says. Raises ValueError where it is not square RGB bytes."""
    view = see(rgb)
    ground = None if spec.background is None else view.background == spec.background
    items = [item for item in spec.items for _ in range(item.count)] or [Item(None, None)]
    if spec.relation == "inside":
        return _inside(spec, view, ground)
    found = [figure for figure in view.figures if not figure.hollow]
    if len(found) != len(items):
        return Verdict(False, **_failed(spec), background=ground)
    return max((_compare(spec, items, order, ground) for order in permutations(found)), key=_score)


def judge_all(specs: Iterable[Spec], pictures: Iterable[Picture]) -> list[Verdict]:
    """A verdict for each picture of a batch (n, side, side, 3)."""
    return [judge(spec, np.asarray(picture)) for spec, picture in zip(specs, pictures, strict=True)]


def matches(scene: Scene, rgb: Picture) -> bool:
    """Whether every figure of a scene is there: colour and shape the same, middle within 0.03, radius within 15 %."""
    found = [figure for figure in see(rgb).figures if not figure.hollow]
    return len(found) == len(scene.figures) and any(
        all(_same(one, other) for one, other in zip(scene.figures, order, strict=True)) for order in permutations(found)
    )


def _same(figure: Figure, seen: Seen) -> bool:
    near = abs(seen.x - figure.x) < 0.03 and abs(seen.y - figure.y) < 0.03
    return (seen.color, seen.shape) == (figure.color, figure.shape) and near and abs(seen.radius / figure.radius - 1) < 0.15


def _score(verdict: Verdict) -> int:
    return sum(getattr(verdict, part.name) is not False for part in fields(verdict))


def _failed(spec: Spec) -> dict[str, bool | None]:
    """False for everything asked of figures: with the wrong number of them nothing else can be said."""
    return {
        "color": False if any(item.color for item in spec.items) else None,
        "shape": False if any(item.shape for item in spec.items) else None,
        "size": False if any(item.size for item in spec.items) else None,
        "position": False if any(item.position for item in spec.items) else None,
        "relation": False if spec.relation else None,
    }


def _compare(spec: Spec, items: list[Item], found: tuple[Seen, ...], ground: bool | None) -> Verdict:
    """The verdict where the figures stand for the items in this order."""
    pairs = list(zip(items, found, strict=True))
    numbers = [index for index, item in enumerate(spec.items) for _ in range(item.count)]
    sizes = [_sized(spec, index, seen) for index, (item, seen) in zip(numbers, pairs, strict=False) if item.size]
    return Verdict(
        True,
        _all(seen.color == item.color for item, seen in pairs if item.color),
        _all(seen.shape == item.shape for item, seen in pairs if item.shape),
        _all(sizes),
        _all(_position(seen) == item.position for item, seen in pairs if item.position),
        _related(spec.relation, *found[:2]) if spec.relation else None,
        ground,
    )


def _all(answers: Iterable[bool]) -> bool | None:
    known = list(answers)
    return all(known) if known else None


def _sized(spec: Spec, index: int, seen: Seen) -> bool:
    """Whether the radius is nearer to what the item's size allows than to what another size does."""
    said = spec.items[index].size
    gaps: dict[str | None, float] = {}
    for size in (None, *SIZES):
        items = tuple(
            Item(item.shape, item.color, size if number == index else item.size, item.position, item.count)
            for number, item in enumerate(spec.items)
        )
        try:
            least, most = radii(Spec(items, spec.relation, spec.background), index)
        except KeyError:  # not every size is drawn in every kind of scene
            continue
        gaps[size] = max(least - seen.radius, seen.radius - most, 0.0)
    return gaps[said] <= min(gaps.values())


def _position(seen: Seen) -> str:
    return min(POSITIONS, key=lambda name: (seen.x - POSITIONS[name][0]) ** 2 + (seen.y - POSITIONS[name][1]) ** 2)


def _related(relation: str, first: Seen, second: Seen) -> bool:
    """The middles lie apart along the relation's axis, and more than across it."""
    across, down = second.x - first.x, second.y - first.y
    along, aside = (across, down) if relation in ("left", "right") else (down, across)
    return (along if relation in ("left", "above") else -along) >= APART and abs(along) > abs(aside)


def _inside(spec: Spec, view: View, ground: bool | None) -> Verdict:
    """One figure within another. An inner figure of the background's colour is seen as a gap."""
    best = Verdict(False, **_failed(spec), background=ground)
    solid = [figure for figure in view.figures if not figure.hollow]
    for number, outer in enumerate(view.figures):
        for inner in view.figures:
            rest = [figure for figure in solid if figure is not outer and figure is not inner]
            if outer.hollow or inner.inside != number or rest:
                continue
            verdict = _compare(spec, list(spec.items), (inner, outer), ground)
            near = abs(inner.x - outer.x) < WITHIN and abs(inner.y - outer.y) < WITHIN and inner.radius < outer.radius
            verdict = Verdict(True, verdict.color, verdict.shape, verdict.size, None, near, ground)
            best = max(best, verdict, key=_score)
    return best
