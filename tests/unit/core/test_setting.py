"""When a setting holds, and how it is told."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from sdrun.core.capability import ComputeCapability
from sdrun.core.setting import Evidence, Setting, settings_for

H100, L4, A100 = (ComputeCapability.parse(text) for text in ("9.0", "8.9", "8.0"))
FLASH = Setting(
    "flash-attention",
    "attention in pieces",
    ("--diffusion-fa",),
    ("--fa",),
    ("flux", "z-image"),
    MappingProxyType({H100: Evidence("measured", "here", (1.1, 1.25), 0.2), L4: Evidence("documented", "there")}),
)
OTHER = Setting("other", "something", ("--other",), (), ("flux",), MappingProxyType({H100: Evidence("documented", "there")}))


@pytest.mark.parametrize(
    ("capabilities", "family", "given", "held"),
    [
        ((H100,), "flux", (), True),
        ((H100,), "z-image", ("--vae-tiling", "--steps"), True),
        ((H100, L4), "flux", (), True),
        ((H100, A100), "flux", (), False),
        ((A100,), "flux", (), False),
        ((), "flux", (), False),
        ((H100,), "sd1", (), False),
        ((H100,), "flux", ("--diffusion-fa",), False),
        ((H100,), "flux", ("--fa",), False),
    ],
)
def test_when_it_holds(capabilities: tuple[ComputeCapability, ...], family: str, given: tuple[str, ...], held: bool) -> None:
    assert FLASH.holds(capabilities, family, given) is held


def test_those_that_hold_in_their_order() -> None:
    assert settings_for((OTHER, FLASH), (H100,), "flux", ()) == (OTHER, FLASH)
    assert settings_for((OTHER, FLASH), (H100,), "z-image", ()) == (FLASH,)
    assert settings_for((OTHER, FLASH), (H100,), "flux", ("--fa",)) == (OTHER,)


def test_why() -> None:
    assert FLASH.reason(H100) == "--diffusion-fa: attention in pieces, 1.10 to 1.25 times as fast on compute capability 9.0"
    assert FLASH.reason(L4).endswith("said to be faster by the engine's authors on compute capability 8.9")
    assert Evidence("measured", "here", (1.1, 1.1), 0.0).gain == "1.10 times as fast"
