"""Profile names of MIG devices."""

from __future__ import annotations

import pytest

from sdrun.core.host import MigSlice
from sdrun.probe.mig import UNKNOWN_PROFILE, nvml_slices, profile_in_name, profile_of_traits, slice_of_libcuda

H100 = 85520809984
UUID = "MIG-2ac1f0e6-3a52-4b1e-9a55-1f4f3c0b7d21"


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1c.2g.20gb", "1c.2g.20gb"),
        ("NVIDIA A100 MIG 1g.10gb+me", "1g.10gb+me"),
        ("NVIDIA RTX PRO 6000 MIG 1g.24gb+gfx", "1g.24gb+gfx"),
        ("NVIDIA B200 MIG 1g.23gb-me", "1g.23gb-me"),
        ("NVIDIA H100 80GB HBM3", None),
        (None, None),
        ({"error": 3}, None),
    ],
)
def test_profile_in_name(name: object, profile: str | None) -> None:
    assert profile_in_name(name) == profile


@pytest.mark.parametrize(
    ("traits", "profile"),
    [
        ((1, 1, 9856), "1g.10gb"),
        ((1, 1, 19968), "1g.20gb"),
        ((2, 2, 19968), "2g.20gb"),
        ((2, 1, 19968), "1c.2g.20gb"),
        ((7, 7, 80896), "7g.80gb"),
        ((0, 1, 9856), None),
        ((None, 1, 9856), None),
        ((1, 1, {"error": 3}), None),
        ((1, 1, -5), None),
    ],
)
def test_profile_of_traits(traits: tuple[object, object, object], profile: str | None) -> None:
    assert profile_of_traits(*traits, H100) == profile


def test_profile_of_traits_needs_the_gpus_memory() -> None:
    assert profile_of_traits(1, 1, 9856, 0) is None


def test_slice_falls_back_from_name_to_traits_to_unknown() -> None:
    row = {"uuid": UUID, "name": "NVIDIA H100", "memory": {"error": 3}, "gpu_slices": 1, "compute_slices": 1, "memory_mb": 9856}
    assert nvml_slices([row], H100) == (MigSlice(UUID, "1g.10gb", 9856),)
    assert nvml_slices([{"uuid": UUID}], H100) == (MigSlice(UUID, UNKNOWN_PROFILE, 0),)


def test_older_form_of_mig_uuids() -> None:
    old = "MIG-GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21/7/0"
    assert nvml_slices([{"uuid": old}], H100)[0].uuid == old


@pytest.mark.parametrize("rows", [None, "x", [None], [7], [{"uuid": 5}], [{"uuid": "MIG-x"}]])
def test_rows_that_are_none(rows: object) -> None:
    assert nvml_slices(rows, H100) == ()


@pytest.mark.parametrize("instance", [None, "11" * 16, "11" * 15, "zz" * 16])
def test_no_slice_from_libcuda(instance: object) -> None:
    assert slice_of_libcuda("NVIDIA A100", "11" * 16, instance, 1 << 30) is None
