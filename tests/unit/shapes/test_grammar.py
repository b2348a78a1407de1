"""Prompts: what is said of a specification is read back as that specification, in every phrasing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.shapes.grammar import read, say
from models.shapes.scene import KINDS, WORLD, Item, Spec, sample

WHOLE = 2**32


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_what_is_said_is_read_back(kind: str, asked: int, phrased: int) -> None:
    spec = sample(random.Random(asked), kind)
    assert spec.kind == kind
    assert read(say(spec, random.Random(phrased))) == spec


def test_every_word_of_the_world_is_read() -> None:
    for color, row in WORLD["colors"].items():
        for word in row["words"]:
            assert read(f"a {word} circle") == Spec((Item("circle", color),))
    for shape, row in WORLD["shapes"].items():
        for word in row["words"]:
            assert read(f"a {word}") == Spec((Item(shape, None),))
    for relation, row in WORLD["relations"].items():
        for word in row["words"]:
            assert read(f"a red star {word} a blue heart").relation == relation
    for position, row in WORLD["positions"].items():
        for word in row["words"]:
            assert read(f"a star {word}").items[0].position == position


@pytest.mark.parametrize(
    ("prompt", "spec"),
    [
        ("A picture of two golden crescents.", Spec((Item("moon", "yellow", count=2),))),
        ("a tiny red dot at the bottom", Spec((Item("circle", "red", "small", "bottom"),))),
        ("a star in a big violet box", Spec((Item("star", None), Item("square", "purple", "large")), "inside")),
        ("a ring and a plus, navy blue background", Spec((Item("ring", None), Item("cross", None)), None, "dark-blue")),
        ("", Spec(())),
    ],
)
def test_reads(prompt: str, spec: Spec) -> None:
    assert read(prompt) == spec


@pytest.mark.parametrize("prompt", ["a green cat", "a red circle left of", "five stars", "a red blue star", "hello"])
def test_refuses_what_is_not_of_its_world(prompt: str) -> None:
    with pytest.raises(ValueError, match="not a prompt of this world"):
        read(prompt)
