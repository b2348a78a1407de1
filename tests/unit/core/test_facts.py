"""The facts as a value: what follows from the tables, checked against what NVIDIA's documents and tools say."""

from __future__ import annotations

import pytest

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.facts import NO_CUDA, Floor
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease


def cc(text: str) -> ComputeCapability:
    return ComputeCapability.parse(text)


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        ("450.80.02", "11.0"),
        ("470.256.02", "11.4"),
        ("525.60.13", "12.0"),
        ("535.54.03", "12.2"),
        ("536.99", "12.2"),  # not in the table: the nearest lower branch
        ("550.163.01", "12.4"),
        ("566.36", "12.7"),
        ("580.159.04", "13.0"),
        ("600.1", "13.2"),
        ("615.71.09", "13.4"),
        ("999.1", "13.4"),
        ("390.157", "9.1"),
    ],
)
def test_a_branch_speaks_one_cuda_version(facts, driver, cuda) -> None:
    assert facts.cuda_of(DriverVersion.parse(driver)) == CudaVersion.parse(cuda)


def test_a_driver_older_than_every_branch_speaks_nothing(facts) -> None:
    assert facts.cuda_of(DriverVersion.parse("340.108")) == NO_CUDA


@pytest.mark.parametrize(
    ("cuda", "driver"),
    [("12.4", "550.54.14"), ("12.7", "565.0"), ("13.0", "580.65.06"), ("11.5", "495.0"), ("13.4", "615.71"), ("13.5", "None")],
)
def test_the_oldest_driver_that_speaks_a_cuda_version(facts, cuda, driver) -> None:
    assert str(facts.driver_of(CudaVersion.parse(cuda))) == driver


@pytest.mark.parametrize(
    ("toolkit", "ptx_only", "zstd", "driver"),
    [
        ("11.8", False, False, "450.80.02"),
        ("12.9", False, False, "525.60.13"),
        ("12.9", False, True, "550.54.14"),
        ("12.4", True, False, "550.54.14"),
        ("12.9", True, True, "575.51.03"),
        ("13.0", False, True, "580.65.06"),
        ("13.2", True, False, "595.45.04"),
        ("13.5", True, False, "None"),
        ("13.5", False, False, "580.65.06"),
        ("14.0", False, False, "None"),
    ],
)
def test_the_oldest_driver_of_an_image(facts, toolkit, ptx_only, zstd, driver) -> None:
    assert str(facts.min_driver(CudaVersion.parse(toolkit), ptx_only=ptx_only, zstd=zstd)) == driver


def test_every_capability_of_the_contract_has_a_row(facts) -> None:
    assert " ".join(str(key) for key in facts.capabilities) == (
        "5.0 5.2 5.3 6.0 6.1 6.2 7.0 7.2 7.5 8.0 8.6 8.7 8.8 8.9 9.0 10.0 10.1 10.3 10.7 11.0 12.0 12.1"
    )
    assert " ".join(str(key) for key in facts.toolkits) == (
        "11.8 12.0 12.1 12.2 12.3 12.4 12.5 12.6 12.8 12.9 13.0 13.1 13.2 13.3 13.4 13.5"
    )


def test_branch_580_is_the_last_for_desktop_maxwell_pascal_and_volta(facts) -> None:
    last = {str(key): row.last_driver_branch for key, row in facts.capabilities.items() if row.last_driver_branch}
    assert last == {"5.0": 580, "5.2": 580, "6.0": 580, "6.1": 580, "7.0": 580}


@pytest.mark.parametrize(
    ("capability", "suffix", "first", "last"),
    [
        ("6.1", "", "8.0", "12.9"),
        ("7.5", "", "10.0", None),
        ("9.0", "a", "12.0", None),
        ("12.1", "f", "12.9", None),
        ("10.1", "", "12.8", "12.9"),
        ("12.0", "", "12.8", None),
        ("12.0", "f", "12.9", None),
        ("10.7", "", "13.4", None),
    ],
)
def test_windows(facts, capability, suffix, first, last) -> None:
    row = facts.capabilities[cc(capability)]
    emitting = [version for version in facts.toolkits if row.emits(suffix, version)]
    oldest = max(min(facts.toolkits), CudaVersion.parse(first))
    assert emitting[0] == oldest
    assert emitting[-1] == (max(facts.toolkits) if last is None else CudaVersion.parse(last))
    assert not facts.capabilities[cc("8.9")].emits("a", CudaVersion(13, 0))


def test_families(facts) -> None:
    assert facts.in_family(Arch.parse("100f"), cc("10.7"))
    assert not facts.in_family(Arch.parse("100f"), cc("11.0"))
    assert facts.in_family(Arch.parse("140f"), cc("14.0"))
    assert not facts.in_family(Arch.parse("140f"), cc("14.1"))


def test_names_of_thor(facts) -> None:
    assert facts.named_by(CudaVersion(12, 9), cc("10.1")) == cc("10.1")
    assert facts.named_by(CudaVersion(13, 0), cc("10.1")) == cc("11.0")
    assert facts.named_by(CudaVersion(13, 0), cc("9.9")) == cc("9.9")


def test_jetson_and_desktop_code_mix_from_jetpack_7_2(facts) -> None:
    assert facts.mixing_from == L4tRelease.parse("39")
    assert [facts.mixes(release and L4tRelease.parse(release)) for release in (None, "36.4", "38.4", "39", "40.1")] == [
        False, False, False, True, True,
    ]  # fmt: skip


def test_equal_facts_are_equal_and_hash_alike(facts) -> None:
    from dataclasses import fields

    values = {field.name: getattr(facts, field.name) for field in fields(facts) if field.init}
    twin = type(facts)(**values)
    assert twin == facts
    assert hash(twin) == hash(facts)
    other = type(facts)(**(values | {"jetpacks": (), "zstd_floor": Floor(None, NO_CUDA)}))
    assert other != facts
    assert not other.mixes(L4tRelease.parse("39"))
