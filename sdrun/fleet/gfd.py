"""What NVIDIA's GPU Feature Discovery and device plugin say of a node: their labels and resources, read into plain values.

Names and meanings: NVIDIA/k8s-device-plugin, internal/lm/*.go. Where a node has several models, each model's labels overwrite
the last one's (internal/lm/nvml.go, newGPULabelers), so that `gpu.count` is that of one model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdrun.core.capability import ComputeCapability
from sdrun.core.node import GPU_RESOURCE
from sdrun.core.version import CudaVersion, DriverVersion

PRODUCT, COUNT, MEMORY = f"{GPU_RESOURCE}.product", f"{GPU_RESOURCE}.count", f"{GPU_RESOURCE}.memory"
REPLICAS, STRATEGY, PRESENT = f"{GPU_RESOURCE}.replicas", f"{GPU_RESOURCE}.sharing-strategy", f"{GPU_RESOURCE}.present"
CC_MAJOR, CC_MINOR = f"{GPU_RESOURCE}.compute.major", f"{GPU_RESOURCE}.compute.minor"
# Major, minor and revision of the driver, and major and minor of the CUDA version it speaks: today's keys, then older ones.
_DRIVER, _OLD_DRIVER = "nvidia.com/cuda.driver-version", "nvidia.com/cuda.driver"
DRIVER_KEYS: Mapping[str, tuple[str, str, str]] = {
    "gfd": (f"{_DRIVER}.major", f"{_DRIVER}.minor", f"{_DRIVER}.revision"),
    "gfd-old": (f"{_OLD_DRIVER}.major", f"{_OLD_DRIVER}.minor", f"{_OLD_DRIVER}.rev"),
}
CUDA_KEYS: Mapping[str, tuple[str, str]] = {
    "gfd": ("nvidia.com/cuda.runtime-version.major", "nvidia.com/cuda.runtime-version.minor"),
    "gfd-old": ("nvidia.com/cuda.runtime.major", "nvidia.com/cuda.runtime.minor"),
}
KEYS: tuple[str, ...] = (
    *(PRODUCT, COUNT, MEMORY, REPLICAS, STRATEGY, PRESENT, CC_MAJOR, CC_MINOR),
    *(key for keys in (*DRIVER_KEYS.values(), *CUDA_KEYS.values()) for key in keys),
)
_MIG = "nvidia.com/mig-"


class BadLabel(ValueError):
    """A label's value is not what its writer would put there."""


@dataclass(frozen=True, slots=True)
class Version:
    """A driver by labels. `style` says by which (a key of DRIVER_KEYS); `cuda` None where no label of that style says it."""

    style: str
    driver: DriverVersion
    cuda: CudaVersion | None


def capability(labels: Mapping[str, str]) -> ComputeCapability | None:
    """The capability the labels state. None where they state none, or 0.0, which stands for "unknown" on some MIG nodes."""
    major, minor = labels.get(CC_MAJOR), labels.get(CC_MINOR)
    if major is None or minor is None or number(CC_MAJOR, major) == 0:
        return None
    try:
        return ComputeCapability.parse(f"{int(major)}.{number(CC_MINOR, minor)}")
    except ValueError as fault:
        raise BadLabel(f"{CC_MAJOR} and {CC_MINOR}: {fault}") from None


def version(labels: Mapping[str, str]) -> Version | None:
    """The driver the labels state, by today's keys before older ones; None where none does."""
    for style, (major, minor, revision) in DRIVER_KEYS.items():
        if major in labels and minor in labels:
            text = f"{labels[major]}.{labels[minor]}" + (f".{last}" if (last := labels.get(revision)) else "")
            try:
                return Version(style, DriverVersion.parse(text), _cuda(labels, style))
            except ValueError as fault:
                raise BadLabel(f"{major} and the labels beside it: {fault}") from None
    return None


def _cuda(labels: Mapping[str, str], style: str) -> CudaVersion | None:
    major, minor = (labels.get(key) for key in CUDA_KEYS[style])
    return None if major is None or minor is None else CudaVersion.parse(f"{major}.{minor}")


def number(key: str, text: str) -> int:
    """A whole number that a label holds; raises BadLabel for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadLabel(f"{key}: must be a whole number, not {text[:40]!r}")
    return int(text)


def count(labels: Mapping[str, str], key: str) -> int | None:
    """The number in label `key`, None where there is no such label."""
    return number(key, labels[key]) if key in labels else None


def mig_of(resource: str) -> str:
    """The MIG profile of `nvidia.com/mig-1g.10gb`, also when it is shared; empty for whole GPUs."""
    return resource.removeprefix(_MIG).removesuffix(".shared") if resource.startswith(_MIG) else ""


def resources(capacity: Mapping[str, object]) -> dict[str, int]:
    """The GPU resources of a node's capacity with their amounts: whole GPUs, MIG profiles, and what time-slicing renames."""
    found = {}
    for name, amount in capacity.items():
        if name in (GPU_RESOURCE, f"{GPU_RESOURCE}.shared") or name.startswith(_MIG):
            found[name] = number(name, str(amount))
    return found
