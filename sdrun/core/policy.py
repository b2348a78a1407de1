"""What the user allows and asks for, and what a refusal asks the user to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdrun.core.capability import Arch
from sdrun.core.facts import Floor
from sdrun.core.version import CudaVersion

DeviceOrder = Literal["pci-bus-id", "fastest-first"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a caller of `resolve` asks for.

    `gpu`: `auto`, `all`, `none`, an index, a UUID or a unique beginning of one, a MIG UUID, or `0:1` for slice 1 of GPU 0.
    `image`: only images whose reference, tag or target equals it are candidates; the checks stay. `visible`: the entries of
    CUDA_VISIBLE_DEVICES as given, None where it is not set; `device_order`: CUDA_DEVICE_ORDER, which says what their numbers
    mean.
    """

    gpu: str = "auto"
    allow_cpu: bool = False
    allow_jit: bool = True
    image: str | None = None
    visible: tuple[str, ...] | None = None
    device_order: DeviceOrder = "pci-bus-id"


@dataclass(frozen=True, slots=True)
class Build:
    """A target to build and publish: what its image must hold. `toolkit` None: the cpu target."""

    target: str
    platform: str
    toolkit: CudaVersion | None
    sass: tuple[Arch, ...] = ()
    ptx: tuple[Arch, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What a refusal says to change, for programs. Every part that is set is needed, and all together suffice.

    `driver`: a driver at least this new. `build`: publish this image. `gpu`: pass this --gpu. `allow_cpu`, `allow_jit`: pass
    --allow-cpu, drop --no-jit. `any_image`: drop --image. `unset_visible`: unset CUDA_VISIBLE_DEVICES. `gpu_access`: give the
    container runtime access to the GPUs, by CDI or NVIDIA's runtime.
    """

    driver: Floor | None = None
    build: Build | None = None
    gpu: str | None = None
    allow_cpu: bool = False
    allow_jit: bool = False
    any_image: bool = False
    unset_visible: bool = False
    gpu_access: bool = False
