"""How chosen devices reach a container: by CDI name, by NVIDIA's own runtime, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdrun.core.device import Device
from sdrun.core.host import HostFacts

KIND = "nvidia.com/gpu="


@dataclass(frozen=True, slots=True)
class Access:
    """A way in. `requests`: what to ask the runtime for. `narrow_to`: UUIDs for CUDA_VISIBLE_DEVICES inside, where the
    request hands over more than was chosen. `doubtful`: the CDI specification names single devices, but not all of these, so
    it may be older than they are."""

    kind: Literal["cdi", "gpus-flag"]
    requests: tuple[str, ...]
    narrow_to: tuple[str, ...] = ()
    doubtful: bool = False


def access_to(chosen: Sequence[Device], every: Sequence[Device], host: HostFacts) -> Access | None:
    """The way to hand `chosen` of the host's `every` device to a container, or None.

    CDI names of single devices come first (by UUID, else by index: nvidia-ctk writes either, `0`, `gpu0`, `0:1` or
    `mig0:1`). Then `all`, if it hands over exactly what was chosen, or if it is all there is, as on WSL2. Then NVIDIA's
    runtime, which takes UUIDs. `all` for a part of the GPUs comes last, narrowed by CUDA_VISIBLE_DEVICES. Where a
    specification names single devices but not those chosen, its `all` is the last resort: specifications that name only some
    of the devices beside it are common (slices made after it was written), and the engine proves later what it was given.
    """
    runtime = host.runtime
    if runtime is None:
        return None
    names = {name for name in runtime.cdi_devices if name.startswith(KIND)}
    single = [_cdi_name(device, names) for device in chosen]
    found = tuple(name for name in single if name is not None)
    if len(found) == len(chosen):
        return Access("cdi", found)
    every_name, uuids = KIND + "all", tuple(device.uuid for device in chosen)
    only_all, whole = names == {every_name}, len(chosen) == len(every)
    if only_all and whole:
        return Access("cdi", (every_name,))
    if runtime.nvidia_runtime and not (only_all and host.wsl):
        return Access("gpus-flag", uuids)
    if every_name in names:
        return Access("cdi", (every_name,), () if whole else uuids, doubtful=not only_all)
    return None


def _cdi_name(device: Device, names: set[str]) -> str | None:
    style = "gpu" if device.slice_index is None else "mig"
    candidates = (device.uuid, device.number, style + device.number)
    return next((KIND + name for name in candidates if KIND + name in names), None)
