"""Fake host roots: folders of a few files where a real machine has /proc, /sys, /dev and /etc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

NVRM = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs@U22)\nGCC version:\n"
INFORMATION = """Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 0
GPU UUID: \t GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21
Video BIOS: \t 96.00.89.00.01
Bus Type: \t PCIe
Bus Location: \t 0000:19:00.0
Device Minor: \t 0
GPU Excluded:\t No
"""

MakeRoot = Callable[[dict[str, str]], Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """Writes `{path: text}` below a new folder and gives the folder."""

    def make(files: dict[str, str]) -> Path:
        root = tmp_path / "root"
        root.mkdir()
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return root

    return make


@pytest.fixture
def driver_files() -> dict[str, str]:
    """A loaded kernel module 580.159.04 with one H100."""
    return {
        "proc/driver/nvidia/version": NVRM,
        "proc/driver/nvidia/gpus/0000:19:00.0/information": INFORMATION,
    }
