"""The small values: capabilities, archs, versions."""

from __future__ import annotations

import pytest

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.decode import Malformed, parse_at
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease


@pytest.mark.parametrize("text", ["8.9", "12.1", "5.0", "10.3"])
def test_capabilities_round_trip(text) -> None:
    assert str(ComputeCapability.parse(text)) == text
    assert ComputeCapability.parse(text).number == int(text.replace(".", ""))


@pytest.mark.parametrize("text", ["89", "89a", "120f", "50"])
def test_archs_round_trip(text) -> None:
    assert str(Arch.parse(text)) == text


def test_an_arch_knows_its_capability() -> None:
    assert Arch.parse("120f").capability == ComputeCapability(12, 0)
    assert Arch.parse("89").capability == ComputeCapability(8, 9)


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (ComputeCapability.parse, ("", "8", "8.", "8.10", "v8.9", "8.9 ", "100.1", "0.0", "08.9")),
        (Arch.parse, ("", "8.9", "sm_89", "native", "89A", "9", "1200", "90aa", "089", "00")),
        (CudaVersion.parse, ("", "12", "12.4.1", "five", "12.", "-1.0")),
        (DriverVersion.parse, ("", "580", "five", "580.65.06.1", "580,65", "580.65.")),
        (L4tRelease.parse, ("", "R36", "36.", "36.4.3.1", "JetPack 6")),
    ],
)
def test_anything_else_is_refused(parse, texts) -> None:
    for text in texts:
        with pytest.raises(ValueError, match="must be"):
            parse(text)


def test_versions_compare_by_number_and_keep_their_spelling() -> None:
    assert CudaVersion.parse("12.10") > CudaVersion.parse("12.9")
    assert CudaVersion.parse("12.4").short == "cu124"
    assert DriverVersion.parse("580.159.04") > DriverVersion.parse("580.65.06")
    assert DriverVersion.parse("470.82") == DriverVersion.parse("470.82.00")
    assert DriverVersion.parse("470.82") != "470.82"
    assert hash(DriverVersion.parse("470.82")) == hash(DriverVersion.parse("470.82.0"))
    assert str(DriverVersion.parse("580.159.04")) == "580.159.04"
    assert DriverVersion.parse("580.159.04").branch == 580
    assert L4tRelease.parse("36.4.3") > L4tRelease.parse("36.4")
    assert L4tRelease.parse("39") == L4tRelease.parse("39.0")
    assert L4tRelease.parse("39") != "39"
    assert hash(L4tRelease.parse("39")) == hash(L4tRelease.parse("39.0"))
    assert str(L4tRelease.parse("36.4.3")) == "36.4.3"


def test_a_parser_that_names_its_own_key_keeps_it() -> None:
    def parse(text: str) -> str:
        raise Malformed("inner", text)

    with pytest.raises(Malformed) as caught:
        parse_at(parse, "no", "outer")
    assert caught.value.key == "inner"
