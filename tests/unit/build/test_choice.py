"""What `sdrun build` builds here: platforms, toolchains, a toolkit of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.build.choice import on_platform, with_local_toolkit, with_toolchain
from sdrun.build.toolkit import local_toolkit
from sdrun.catalog.targets import targets
from sdrun.core.target import Target
from sdrun.errors import UsageProblem


def rows(*ids: str) -> list[Target]:
    return [row for row in targets().rows if str(row.id) in ids]


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """What looks like CUDA 12.4."""
    root = tmp_path / "cuda"
    for name, text in {
        "include/cuda.h": "/**\n#define CUDA_VERSION 12040\n", "bin/nvcc": "compiler", "bin/ptxas": "assembler",
        "doc/manual": "long", "lib64/libcudart.so.12.4.127": "library", "lib64/libcublas_static.a": "huge",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "lib64/libcudart.so").symlink_to("libcudart.so.12.4.127")
    return root


def test_only_this_platform_is_built() -> None:
    both = rows("cu130-sm90")
    assert [row.name for row in both] == ["cu130-sm90", "cu130-sm90-arm64"]
    assert [row.name for row in on_platform(both, "linux/arm64")] == ["cu130-sm90-arm64"]
    with pytest.raises(UsageProblem, match="cu130-sm110: built on linux/arm64 only, and this runtime is linux/amd64"):
        on_platform(rows("cu130-sm110"), "linux/amd64")
    with pytest.raises(UsageProblem) as caught:
        on_platform(rows("cu124-sm89"), "linux/arm64")
    assert caught.value.remedy.endswith("or give images/targets.yaml a row of it for linux/arm64.")


def test_another_toolchain() -> None:
    chosen = with_toolchain(rows("cpu", "cu124-sm89"), targets(), "nvidia")
    assert [(row.base, row.toolchain.kind if row.toolchain else None) for row in chosen] == [
        ("debian-bookworm", None),
        ("nvidia-cuda-12.4", "nvidia"),
    ]
    with pytest.raises(UsageProblem, match=r"CUDA 12\.4 of cu124-sm89 does not come from 'pypi'") as raised:
        with_toolchain(rows("cu124-sm89"), targets(), "pypi")
    assert "debian, local, nvidia" in raised.value.remedy


def test_a_toolkit_of_this_machine(toolkit: Path, tmp_path: Path) -> None:
    (row,), found = with_local_toolkit(rows("cu124-sm89"), targets(), toolkit)
    assert (str(found.version), row.base) == ("12.4", "debian-bookworm")
    assert row.toolchain is not None
    assert (row.toolchain.kind, row.toolchain.gcc) == ("local", 12)
    found.copy_to(tmp_path / "context")
    copied = sorted(str(path.relative_to(tmp_path / "context")) for path in (tmp_path / "context").rglob("*"))
    assert "lib64/libcudart.so" in copied
    assert (tmp_path / "context/lib64/libcudart.so").is_symlink()
    assert not {"doc", "lib64/libcublas_static.a"} & set(copied)


def test_another_toolkit_is_another_recipe(toolkit: Path) -> None:
    before = local_toolkit(toolkit).digest
    assert local_toolkit(toolkit).digest == before
    (toolkit / "bin/nvcc").write_text("another compiler")
    assert local_toolkit(toolkit).digest != before


def test_no_toolkit(toolkit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"is CUDA 12.4, and cu118-sm61 is built with 11.8"):
        with_local_toolkit(rows("cu118-sm61"), targets(), toolkit)
    with pytest.raises(UsageProblem, match="holds no CUDA toolkit"):
        local_toolkit(tmp_path / "nowhere")
    (toolkit / "include/cuda.h").write_text("nothing")
    with pytest.raises(UsageProblem, match="does not say which CUDA"):
        local_toolkit(toolkit)
