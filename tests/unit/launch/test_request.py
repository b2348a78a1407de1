"""What is refused before anything starts, and what the model's defaults fill in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.core.model import Defaults
from sdrun.errors import UsageProblem
from sdrun.launch.request import ARGUMENT_MAX, SEED_MAX, Request, check, completed

GOOD = Request("tiny", "a fox")
DEFAULTS = Defaults(256, 192, 8, 1.0, "euler", 42)
SAMPLERS = ("euler", "euler_a", "heun")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": ""},
        {"prompt": "-n 'q' \"Q\"\n\t🦊 --steps 3"},
        {"width": 64, "height": 8192},
        {"seed": -5},
        {"seed": SEED_MAX - 1},
        {"strength": None},
        {"sampler": "euler_a"},
        {"cfg_scale": 0.0, "guidance": 100.0},
    ],
)
def test_what_can_be(changes: dict[str, object]) -> None:
    check(replace(GOOD, **changes), SAMPLERS, ("karras",))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "named", "advice"),
    [
        ({"prompt": "a\0b"}, "zero byte", ""),
        ({"prompt": "a\udcffb"}, "UTF-8", ""),
        ({"prompt": "x" * (ARGUMENT_MAX + 1)}, "bytes", "Shorten"),
        ({"engine_args": ("a\0",)}, "zero byte", ""),
        ({"width": 100}, "--width 100", "96 or 104"),
        ({"height": 0}, "--height 0", "multiple"),
        ({"height": -64}, "--height -64", "multiple"),
        ({"width": 16384}, "--width", "8192"),
        ({"steps": 0}, "--steps 0", "1 to 1000"),
        ({"steps": 1001}, "--steps 1001", "1 to 1000"),
        ({"batch": 0}, "--batch", ""),
        ({"seed": SEED_MAX}, "--seed", "-1"),
        ({"cfg_scale": math.nan}, "--cfg-scale", ""),
        ({"guidance": -1.0}, "--guidance", ""),
        ({"strength": 0.5}, "--strength", "--init"),
        ({"sampler": "eular"}, "'eular'", "Did you mean euler"),
        ({"scheduler": "zzz"}, "'zzz'", "karras"),
        ({"init": Path("/nonexistent/x.png")}, "cannot be read", "--init"),
        ({"init": Path("/dev/null")}, "no PNG", ""),
    ],
)
def test_what_cannot(changes: dict[str, object], named: str, advice: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        check(replace(GOOD, **changes), SAMPLERS, ("karras",))  # type: ignore[arg-type]
    assert named in caught.value.message
    assert advice in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strength_is_a_share(strength: float, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UsageProblem):
        check(replace(GOOD, init=picture, strength=strength))


def test_defaults_fill_what_was_not_said() -> None:
    full = completed(replace(GOOD, steps=3), DEFAULTS)
    assert (full.width, full.height, full.steps, full.cfg_scale, full.sampler, full.seed) == (256, 192, 3, 1.0, "euler", 42)


def test_a_first_picture_keeps_its_size() -> None:
    full = completed(replace(GOOD, init=Path("a.png"), height=64), DEFAULTS)
    assert (full.width, full.height) == (None, 64)


def test_a_negative_seed_draws_one_that_can_be_typed_again() -> None:
    seeds = {completed(replace(GOOD, seed=-1), DEFAULTS).seed for _ in range(20)}
    assert len(seeds) > 15
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)


def test_a_model_without_defaults_still_has_a_seed() -> None:
    full = completed(GOOD, None)
    assert full.seed == 42
    assert full.steps is None
