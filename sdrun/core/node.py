"""Cluster nodes as values: what decides which image a node runs (NodeKind), and what belongs to one node alone (Node)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu, HostFacts, RuntimeFacts
from sdrun.core.version import CudaVersion, DriverVersion

GPU_RESOURCE = "nvidia.com/gpu"
# How the pods of a class find such a node. `gfd`: by GPU Feature Discovery's labels; `gfd-old`: by its labels from before
# cuda.driver-version.*; `...-product`: likewise, the product standing for the capability; `class-label`: by a label of sdrun's
# own, which somebody must set.
Selector = Literal["gfd", "gfd-old", "gfd-product", "gfd-old-product", "class-label"]
SELECTORS: tuple[Selector, ...] = ("gfd", "gfd-old", "gfd-product", "gfd-old-product", "class-label")
# What a device plugin gives a pod access to, whatever runtime stands behind it.
_RUNTIME = RuntimeFacts("kubernetes", "", ("nvidia.com/gpu=all",), nvidia_runtime=True)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a node gets no image before any image was looked at: an error's id, exit code, sentence and remedy."""

    id: str
    exit_code: int
    message: str
    remedy: str

    def to_json(self) -> dict[str, object]:
        """The `error` of a refused node."""
        return {"id": self.id, "exit_code": self.exit_code, "message": self.message, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class NodeGpu:
    """One kind of GPU of a node. `product` as its node names it; `memory_mib` of one device (of one slice, with MIG), None
    where nobody said; `count` of devices."""

    product: str
    capability: ComputeCapability
    memory_mib: int | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class NodeKind:
    """All that decides which image runs, shared by every node of which it is true: nodes are many, kinds are few.

    `resource`: what a pod asks for (`nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`); `mig`: the profile of its slices, else empty;
    `tegra`: an L4T release; `product_label`: the product as the node's label has it, empty where there is none; `trouble`: set
    where the node cannot be planned for (then `gpus` may be what its labels say of some of them); `notes`: what people should
    know of all such nodes."""

    platform: str
    gpus: tuple[NodeGpu, ...] = ()
    driver: DriverVersion | None = None
    cuda: CudaVersion | None = None
    resource: str = GPU_RESOURCE
    mig: str = ""
    tegra: str | None = None
    selector: Selector = "class-label"
    product_label: str = ""
    trouble: Trouble | None = None
    notes: tuple[str, ...] = ()

    @property
    def capabilities(self) -> tuple[ComputeCapability, ...]:
        """Every capability an image must serve, lowest first."""
        return tuple(sorted({gpu.capability for gpu in self.gpus}))

    @property
    def memory_mib(self) -> int | None:
        """The least a pod may find; None where one of the GPUs does not say."""
        sizes = [gpu.memory_mib for gpu in self.gpus]
        known = [size for size in sizes if size is not None]
        return min(known) if known and len(known) == len(sizes) else None

    def host(self) -> HostFacts:
        """The host facts to resolve: one GPU of each kind, handed over by a device plugin. Memory is left out: it chooses
        among a host's GPUs, and here a pod may be given any."""
        gpus = tuple(Gpu(number, f"GPU-{number}", gpu.product, gpu.capability, 0) for number, gpu in enumerate(self.gpus))
        return HostFacts(self.platform, self.driver, self.cuda, gpus, tegra=self.tegra, runtime=_RUNTIME, probe="labels")


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `pool` is empty where nothing names one; `ready` None where nothing says."""

    name: str
    kind: NodeKind
    pool: str = ""
    cordoned: bool = False
    ready: bool | None = None
    taints: tuple[Taint, ...] = ()
