"""A fleet's lock, schema `sdrun.fleet-lock/v1`: which digest each class of nodes runs, with all it takes to check and deploy it
without the index it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sdrun.core.capability import ComputeCapability
from sdrun.core.fleet import FleetPlan, NodeClass
from sdrun.core.index import IndexImage
from sdrun.core.node import Node, Selector
from sdrun.core.plan import CodePath
from sdrun.core.version import CudaVersion, DriverVersion

SCHEMA = "sdrun.fleet-lock/v1"


@dataclass(frozen=True, slots=True)
class LockedClass:
    """One class as it was locked. As NodeClass, and: `product_labels`: the values of GPU Feature Discovery's product label,
    where that stands for the capability; `label_nodes`: nodes that pods only find by sdrun's own label; `exclude`: nodes that
    the class's labels would let pods land on and that must not be used, since they hold several models of GPU."""

    name: str
    image: IndexImage
    code_path: CodePath
    reason: str
    capabilities: tuple[ComputeCapability, ...]
    resource: str
    mig: str
    memory_mib: int | None
    min_driver: DriverVersion | None
    min_cuda: CudaVersion | None
    drivers: tuple[DriverVersion, ...]
    products: tuple[str, ...]
    product_labels: tuple[str, ...]
    selectors: tuple[Selector, ...]
    pools: tuple[str, ...]
    nodes: tuple[str, ...]
    label_nodes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tegra: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """As NodeClass.key."""
        return self.capabilities, self.resource, self.mig, self.image.platform, self.image.target


@dataclass(frozen=True, slots=True)
class LockedRefusal:
    """A node that got no image."""

    node: str
    id: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The whole lock. `allow_jit`, `tolerate`: what was asked for when it was made."""

    engine: str
    classes: tuple[LockedClass, ...]
    refused: tuple[LockedRefusal, ...] = ()
    allow_jit: bool = True
    tolerate: tuple[str, ...] = ()

    @property
    def names(self) -> dict[tuple[object, ...], str]:
        """What each class is called, by its key."""
        return {row.key: row.name for row in self.classes}


def lock_of(plan: FleetPlan, *, allow_jit: bool = True, tolerate: Iterable[str] = ()) -> Lock:
    """The lock of a plan."""
    mixed = [row.node for row in plan.refused if row.error.id == "mixed-gpus"]
    return Lock(
        plan.engine,
        tuple(_locked(row, mixed) for row in plan.classes),
        tuple(LockedRefusal(row.node.name, row.error.id, row.error.message, row.error.remedy) for row in plan.refused),
        allow_jit,
        tuple(sorted(set(tolerate))),
    )


def _locked(row: NodeClass, mixed: Sequence[Node]) -> LockedClass:
    by_product = [node.kind.product_label for node in row.nodes if node.kind.selector.endswith("-product")]
    own = "class-label" in row.selectors
    return LockedClass(
        name=row.name,
        image=replace(row.image, tag=None, size_bytes=None),  # the digest says all
        code_path=row.code_path,
        reason=row.reason,
        capabilities=row.capabilities,
        resource=row.resource,
        mig=row.mig,
        memory_mib=row.memory_mib,
        min_driver=row.min_driver,
        min_cuda=row.min_cuda,
        drivers=row.drivers,
        products=row.products,
        product_labels=tuple(sorted(set(by_product))),
        selectors=row.selectors,
        pools=tuple(sorted({node.pool for node in row.nodes} - {""})),
        nodes=row.names,
        label_nodes=tuple(node.name for node in row.nodes if _needs_label(row, node.kind.selector, node.kind.cuda))
        if own
        else (),
        exclude=tuple(node.name for node in mixed if row.selectors != ("class-label",) and _looks_alike(node, row)),
        tegra=row.nodes[0].kind.tegra,
    )


def _looks_alike(node: Node, row: NodeClass) -> bool:
    """Whether the labels of a node with several models say that it is of the class's kind: they speak of one of them."""
    said = node.kind.capabilities
    return node.kind.platform == row.image.platform and (not said or said == row.capabilities)


def _needs_label(row: NodeClass, selector: Selector, cuda: CudaVersion | None) -> bool:
    return selector == "class-label" or (row.min_cuda is not None and cuda is None)
