"""Classes of nodes that share one image, schema `sdrun.fleet/v1`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdrun.core.capability import ComputeCapability
from sdrun.core.index import IndexImage
from sdrun.core.node import Node, Selector, Trouble
from sdrun.core.plan import CodePath
from sdrun.core.version import CudaVersion, DriverVersion

SCHEMA = "sdrun.fleet/v1"


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes that share one image and one way to ask for a GPU.

    `min_driver` and `min_cuda` are what the image demands of the driver on these GPUs: the oldest version, and the CUDA version
    it must speak (both may hold, either may be None); `memory_mib` is the least of the GPUs; `selectors`: how pods find the
    nodes."""

    name: str
    image: IndexImage
    code_path: CodePath
    capabilities: tuple[ComputeCapability, ...]
    resource: str
    mig: str
    memory_mib: int | None
    min_driver: DriverVersion | None
    min_cuda: CudaVersion | None
    drivers: tuple[DriverVersion, ...]
    products: tuple[str, ...]
    selectors: tuple[Selector, ...]
    nodes: tuple[Node, ...]
    reason: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it this class, whatever it is called and whichever build of the image is pinned."""
        image = self.image
        return self.capabilities, self.resource, self.mig, image.platform, image.target

    @property
    def names(self) -> tuple[str, ...]:
        """Its nodes' names, in stable order."""
        return tuple(node.name for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Refused:
    """A node that gets no image."""

    node: Node
    error: Trouble


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Every node once: in a class or refused. `notes`: what should be known of nodes, note -> names."""

    engine: str
    classes: tuple[NodeClass, ...]
    refused: tuple[Refused, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The document, schema sdrun.fleet/v1."""
        return {
            "schema": SCHEMA,
            "engine": self.engine,
            "classes": [_class_to_json(row) for row in self.classes],
            "refused": [{"node": row.node.name, "error": row.error.to_json()} for row in self.refused],
            "notes": [{"note": note, "nodes": list(names)} for note, names in self.notes.items()],
        }


def _class_to_json(row: NodeClass) -> dict[str, object]:
    return {
        "name": row.name,
        "target": row.image.target,
        "image": row.image.image,
        "code_path": row.code_path,
        "reason": row.reason,
        "platform": row.image.platform,
        "capabilities": [str(capability) for capability in row.capabilities],
        "resource": row.resource,
        "memory_mib": row.memory_mib,
        "min_driver": str(row.min_driver) if row.min_driver else None,
        "min_cuda": str(row.min_cuda) if row.min_cuda else None,
        "drivers": [str(driver) for driver in row.drivers],
        "products": list(row.products),
        "pools": sorted({node.pool for node in row.nodes} - {""}),
        "nodes": list(row.names),
    }
