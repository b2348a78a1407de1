"""The model tiny in the real engine: a picture that depends on prompt and seed, on nothing else, and on any prompt at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

pytestmark = pytest.mark.integration

PROMPT = "a red cat on a mat"


@pytest.fixture(scope="module")
def cat(run_engine: Callable[..., Path]) -> Path:
    return run_engine(PROMPT, 42)


def difference(one: Path, other: Path) -> float:
    """Mean absolute difference of all colour values, 0..255."""
    with Image.open(one) as a, Image.open(other) as b:
        means = ImageStat.Stat(ImageChops.difference(a.convert("RGB"), b.convert("RGB"))).mean
    return sum(means) / len(means)


def test_a_picture_with_contrast(cat: Path) -> None:
    with Image.open(cat) as picture:
        assert picture.size == (256, 256)
        values = picture.convert("RGB").tobytes()
    mean = sum(values) / len(values)
    assert 80 < mean < 175
    assert math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) >= 40
    assert sum(value in (0, 255) for value in values) / len(values) < 0.1


def test_the_same_again_is_the_same_file(cat: Path, run_engine: Callable[..., Path]) -> None:
    assert run_engine(PROMPT, 42).read_bytes() == cat.read_bytes()


def test_another_prompt_is_another_picture(cat: Path, run_engine: Callable[..., Path]) -> None:
    assert difference(cat, run_engine("a blue house under a tree", 42)) >= 8


def test_one_other_word_is_seen(cat: Path, run_engine: Callable[..., Path]) -> None:
    assert difference(cat, run_engine("a red dog on a mat", 42)) >= 4


def test_another_seed_is_another_picture(cat: Path, run_engine: Callable[..., Path]) -> None:
    assert difference(cat, run_engine(PROMPT, 7)) >= 20


def test_an_image_to_start_from_is_kept(cat: Path, run_engine: Callable[..., Path]) -> None:
    """Image-to-image needs the encoder: the start must matter and the engine must not fail."""
    start = cat.name
    near = run_engine("a blue house", 7, "-i", f"/out/{start}", "--strength", "0.5")
    assert difference(near, run_engine("a blue house", 7)) >= 8


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "    ",
        "🦊🌋 家族 👨‍👩‍👧 ꙮ 𓀀",
        "Zyzzyva pneumonoultramicroscopicsilicovolcanoconiosis ἐγώ",
        '"it\'s" `a` $(rm) \\ {x} [y] (red:1.3) ((((',
        "one\ntwo\t\r\nthree",
        "--help -p x",
        "<|im_start|><|endoftext|><think>",
        "\x01\x1b[31m",
        "a red cat on a mat " * 300,
    ],
    ids=["empty", "spaces", "emoji", "rare", "quotes", "lines", "dash", "markers", "control", "long"],
)
def test_any_prompt_gives_a_picture(prompt: str, run_engine: Callable[..., Path]) -> None:
    with Image.open(run_engine(prompt, 1, "--steps", "1", "-W", "64", "-H", "64")) as picture:
        assert picture.size == (64, 64)
