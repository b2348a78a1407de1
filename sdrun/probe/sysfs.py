"""What /proc and /sys tell without the driver's help: its version, and GPUs without their compute capability."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.version import DriverVersion
from sdrun.probe.answer import Answer, driver_version
from sdrun.probe.machine import read_text

_NVRM = re.compile(r"^NVRM version:.*?\s([0-9]{3,5}\.[0-9]{1,5}(?:\.[0-9]{1,5})?)\s", re.MULTILINE | re.ASCII)
_NVIDIA, _DISPLAY = "0x10de", ("0x0300", "0x0302")  # PCI vendor; PCI classes VGA and 3D controller


@dataclass(frozen=True, slots=True)
class PciGpu:
    """An NVIDIA GPU on the PCI bus; `driver` is the kernel driver that holds it, or None."""

    address: str
    device: str
    driver: str | None


@dataclass(frozen=True, slots=True)
class KernelGpu:
    """A GPU as NVIDIA's kernel module lists it; `uuid` is None where the module could not read it."""

    model: str
    uuid: str | None
    excluded: bool


def read_driver_version(root: Path) -> DriverVersion | None:
    """The running kernel module's version, or None where none is loaded."""
    found = parse_nvrm(read_text(root / "proc/driver/nvidia/version"))
    return found or driver_version(read_text(root / "sys/module/nvidia/version"))


def parse_nvrm(text: str) -> DriverVersion | None:
    """580.159.04 from either form of /proc/driver/nvidia/version:

    NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
    NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder@...)
    """
    match = _NVRM.search(text)
    return driver_version(match[1]) if match else None


def read_kernel_gpus(root: Path) -> tuple[KernelGpu, ...]:
    """The GPUs of /proc/driver/nvidia/gpus, in the order of the PCI bus."""
    folders = _listed(root / "proc/driver/nvidia/gpus")
    return tuple(parse_information(read_text(folder / "information")) for folder in folders)


def parse_information(text: str) -> KernelGpu:
    """One /proc/driver/nvidia/gpus/0000:01:00.0/information: lines such as `Model: \\t NVIDIA H100 80GB HBM3`,
    `GPU UUID: \\t GPU-6f2c1f0e-...` (question marks where the GPU does not answer), `GPU Excluded:\\t No`."""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    uuid = fields.get("GPU UUID", "")
    return KernelGpu(
        model=fields.get("Model", "")[:96] or "unknown model",
        uuid=uuid if uuid.startswith("GPU-") and "?" not in uuid else None,
        excluded=fields.get("GPU Excluded", "No").lower() == "yes",
    )


def read_pci(root: Path) -> tuple[PciGpu, ...]:
    """NVIDIA's display and 3D controllers on the PCI bus."""
    found = []
    for folder in _listed(root / "sys/bus/pci/devices"):
        if read_text(folder / "vendor").strip() != _NVIDIA or read_text(folder / "class")[:6] not in _DISPLAY:
            continue
        driver = folder / "driver"
        found.append(
            PciGpu(folder.name, read_text(folder / "device").strip(), driver.resolve().name if driver.exists() else None)
        )
    return tuple(found)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()


def ask_sysfs(root: Path) -> Answer:
    """The last resort: the driver's version, and why no more is known. It knows no compute capability, so it has no GPUs."""
    version = read_driver_version(root)
    gpus, pci = read_kernel_gpus(root), read_pci(root)
    notes = []
    if version is not None and gpus:
        models = ", ".join(sorted({gpu.model for gpu in gpus}))
        notes.append(
            f"The kernel module {version} of the NVIDIA driver lists {len(gpus)} GPU(s) ({models}), but no library of "
            "the driver tells their compute capability: reinstall the driver's libraries, or set SDRUN_COMPUTE_CAPABILITY."
        )
    elif version is not None:
        notes.append(f"The kernel module {version} of the NVIDIA driver is loaded and lists no GPU.")
    notes += [_unserved(gpu) for gpu in pci if gpu.driver != "nvidia"]
    return Answer("sysfs", answered=False, driver_version=version, notes=tuple(notes))


def _unserved(gpu: PciGpu) -> str:
    where = f"The NVIDIA GPU at PCI address {gpu.address} (device {gpu.device})"
    if gpu.driver is None:
        return f"{where} has no driver: install NVIDIA's."
    if gpu.driver.startswith("vfio"):
        return f"{where} is set aside for a virtual machine ({gpu.driver})."
    return f"{where} is held by the driver {gpu.driver}, which has no CUDA: install NVIDIA's driver."
