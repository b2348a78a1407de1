"""/proc and /sys of fake roots, and the machine's own traits."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.core.version import DriverVersion
from sdrun.probe.machine import parse_l4t, parse_memory, platform_of, read_machine, read_text
from sdrun.probe.sysfs import ask_sysfs, parse_information, parse_nvrm, read_driver_version, read_kernel_gpus

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder@U22)  Tue Sep 30\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:  12.3.0\n"
L4T = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (OPEN, "580.159.04"),
        (CLOSED, "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.3.0  Release Build\n", "540.3.0"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82  Wed\n", "470.82"),
        ("GCC version: gcc 535.183.01 \n", None),
        ("", None),
    ],
)
def test_nvrm(text: str, version: str | None) -> None:
    assert parse_nvrm(text) == (DriverVersion.parse(version) if version else None)


def test_version_from_the_modules_own_file(make_root) -> None:
    assert read_driver_version(make_root({"sys/module/nvidia/version": "550.54.14\n"})) == DriverVersion.parse("550.54.14")


def test_driver_without_libraries(make_root, driver_files: dict[str, str]) -> None:
    answer = ask_sysfs(make_root(driver_files))
    assert not answer.answered
    assert answer.driver_version == DriverVersion.parse("580.159.04")
    assert answer.gpus == ()
    assert "NVIDIA H100 80GB HBM3" in answer.notes[0]
    assert "SDRUN_COMPUTE_CAPABILITY" in answer.notes[0]


def test_driver_without_gpus(make_root, driver_files: dict[str, str]) -> None:
    answer = ask_sysfs(make_root({"proc/driver/nvidia/version": driver_files["proc/driver/nvidia/version"]}))
    assert answer.notes == ("The kernel module 580.159.04 of the NVIDIA driver is loaded and lists no GPU.",)


def test_nothing(make_root) -> None:
    answer = ask_sysfs(make_root({}))
    assert (answer.driver_version, answer.notes) == (None, ())


def pci(address: str, vendor: str = "0x10de", kind: str = "0x030200") -> dict[str, str]:
    folder = f"sys/bus/pci/devices/{address}"
    return {f"{folder}/vendor": vendor + "\n", f"{folder}/class": kind + "\n", f"{folder}/device": "0x2330\n"}


@pytest.mark.parametrize(
    ("driver", "words"),
    [(None, "has no driver"), ("nouveau", "held by the driver nouveau"), ("vfio-pci", "virtual machine"), ("nvidia", None)],
)
def test_gpu_on_the_bus(make_root, driver: str | None, words: str | None) -> None:
    root: Path = make_root(pci("0000:01:00.0") | pci("0000:02:00.0", "0x8086") | pci("0000:03:00.0", kind="0x040300"))
    if driver is not None:
        (root / "drivers" / driver).mkdir(parents=True)
        (root / "sys/bus/pci/devices/0000:01:00.0/driver").symlink_to(root / "drivers" / driver)
    notes = ask_sysfs(root).notes
    assert len(notes) == (words is not None)
    assert all(words in note and "0000:01:00.0" in note for note in notes if words)


def test_information_of_a_gpu_that_does_not_answer() -> None:
    gpu = parse_information("Model: \t Unknown\nGPU UUID: \t GPU-????????-????-????-????-????????????\nGPU Excluded:\t Yes\n")
    assert (gpu.model, gpu.uuid, gpu.excluded) == ("Unknown", None, True)


def test_kernel_gpus(make_root, driver_files: dict[str, str]) -> None:
    (gpu,) = read_kernel_gpus(make_root(driver_files))
    assert (gpu.model, gpu.uuid) == ("NVIDIA H100 80GB HBM3", "GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21")


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (L4T, "36.4"),
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64", "32.7"),
        ("# R35 (release), REVISION: 4.1,", "35.4"),
        ("# R38 (release), REVISION: 2.0,", "38.2"),
        ("R36", None),
        ("", None),
    ],
)
def test_l4t(text: str, release: str | None) -> None:
    assert parse_l4t(text) == release


@pytest.mark.parametrize(
    ("machine", "platform"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("ppc64le", "linux/ppc64le"), ("AMD64", "linux/amd64")],
)
def test_platform(machine: str, platform: str) -> None:
    assert platform_of(machine) == platform


def test_memory() -> None:
    assert parse_memory("MemTotal:       32088460 kB\nMemFree:  1 kB\n") == 31336
    assert parse_memory("MemFree: 1 kB") == 0


def test_tegra_and_wsl(make_root) -> None:
    root = make_root({"etc/nv_tegra_release": L4T, "proc/meminfo": "MemTotal: 65536 kB\n", "dev/dxg": ""})
    machine = read_machine(root)
    assert (machine.tegra, machine.memory_mib, machine.wsl) == ("36.4", 64, True)


def test_wsl_by_the_kernels_name(make_root) -> None:
    assert read_machine(make_root({"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n"})).wsl


def test_no_wsl(make_root) -> None:
    assert not read_machine(make_root({"proc/sys/kernel/osrelease": "6.8.0-45-generic\n"})).wsl


def test_text_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_text(tmp_path) == ""
    assert read_text(tmp_path / "none") == ""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" + b"x" * 100_000)
    assert len(read_text(tmp_path / "bytes")) == 1 << 16
