"""What CUDA would see as devices of a host, whole GPUs or the MIG slices of those that are cut up, and which is meant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu, HostFacts
from sdrun.core.policy import DeviceOrder, Policy


@dataclass(frozen=True, slots=True)
class Device:
    """One CUDA device. A slice has its GPU's capability, name and index, and its own UUID and memory; `slice_index` is None
    for a whole GPU."""

    uuid: str
    name: str
    capability: ComputeCapability
    memory_mib: int
    gpu_index: int
    gpu_uuid: str
    slice_index: int | None = None

    @property
    def number(self) -> str:
        """`0` for GPU 0, `0:1` for its slice 1: the form `--gpu` and CDI names use."""
        return str(self.gpu_index) if self.slice_index is None else f"{self.gpu_index}:{self.slice_index}"

    @property
    def label(self) -> str:
        """How messages name it: `GPU 0 (NVIDIA L4, compute capability 8.9)`."""
        return f"GPU {self.number} ({self.name}, compute capability {self.capability})"


def devices_of(gpu: Gpu) -> tuple[Device, ...]:
    """The devices of one GPU: its slices when it has any (CUDA then no longer offers the whole), else itself."""
    if not gpu.mig:
        return (Device(gpu.uuid, gpu.name, gpu.compute_capability, gpu.memory_mib, gpu.index, gpu.uuid),)
    return tuple(
        Device(part.uuid, gpu.name, gpu.compute_capability, part.memory_mib, gpu.index, gpu.uuid, number)
        for number, part in enumerate(gpu.mig)
    )


def all_devices(host: HostFacts) -> tuple[Device, ...]:
    """Every device of the host, by GPU index."""
    return tuple(device for gpu in sorted(host.gpus, key=lambda gpu: gpu.index) for device in devices_of(gpu))


def visible_devices(host: HostFacts, policy: Policy) -> tuple[Device, ...]:
    """The devices CUDA_VISIBLE_DEVICES leaves. An entry that names nothing hides itself and every later one, as in CUDA
    (programming guide, environment variables); an empty list hides all. A GPU's number or UUID shows all its slices."""
    devices = all_devices(host)
    if policy.visible is None:
        return devices
    order = _cuda_order(host.gpus, policy.device_order)
    shown: list[Device] = []
    for entry in policy.visible:
        named = _named_visible(entry.strip(), devices, order)
        if not named:
            break
        shown.extend(device for device in named if device not in shown)
    return tuple(shown)


def _cuda_order(gpus: tuple[Gpu, ...], order: DeviceOrder) -> list[int]:
    """GPU indexes in CUDA's numbering. Fastest first moves one GPU to the front and keeps bus order behind it; CUDA does not
    say how it measures speed, so the highest capability, then the most memory, stands for it."""
    indexes = sorted(gpu.index for gpu in gpus)
    if order == "fastest-first" and gpus:
        fastest = min(gpus, key=lambda gpu: (-gpu.compute_capability.number, -gpu.memory_mib, gpu.index)).index
        indexes.remove(fastest)
        indexes.insert(0, fastest)
    return indexes


def _named_visible(entry: str, devices: tuple[Device, ...], order: list[int]) -> list[Device]:
    if entry.isascii() and entry.isdigit():
        position = int(entry) if len(entry) < 6 else len(order)
        index = order[position] if position < len(order) else None
        return [device for device in devices if device.gpu_index == index]
    return named(entry, devices)


def named(entry: str, devices: Iterable[Device]) -> list[Device]:
    """The devices a UUID, a unique beginning of one, or `0:1` names; a GPU's UUID names all its slices. Empty where nothing
    is named, or where a beginning fits several GPUs."""
    devices = tuple(devices)
    text = entry.lower()
    exact = [d for d in devices if text in (d.uuid.lower(), d.gpu_uuid.lower()) or (":" in text and text == d.number)]
    if exact or len(text) <= len("GPU-") or not text.startswith(("gpu-", "mig-")):
        return exact
    hits = [d for d in devices if d.uuid.lower().startswith(text) or d.gpu_uuid.lower().startswith(text)]
    owners = {d.gpu_uuid if text.startswith("gpu-") else d.uuid for d in hits}
    return hits if len(owners) == 1 else []


def selected(selector: str, devices: Iterable[Device]) -> Device | None:
    """The one device that `--gpu` names by index, `0:1`, or UUID; of a GPU that is cut up, its slice with the most memory."""
    devices = tuple(devices)
    text = selector.strip()
    if text.isascii() and text.isdigit():
        found = [device for device in devices if str(device.gpu_index) == text]
    else:
        found = named(text, devices)
    return min(found, key=lambda d: (-d.memory_mib, d.gpu_index, d.slice_index or 0), default=None)
