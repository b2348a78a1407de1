"""An inventory: hosts written down by hand, for machines outside a cluster and for nodes whose labels do not say enough.

nodes:
  - names: [render-1, render-2]     # or name: render-1
    pool: render
    driver: "550.90.07"
    gpus:
      - {product: NVIDIA L4, count: 2}
      - {product: my own card, capability: "8.6", memory_mib: 24576}
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sdrun.catalog.rows import each, fields, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import ComputeCapability
from sdrun.core.decode import Fields, Malformed, check
from sdrun.core.node import GPU_RESOURCE, Node, NodeGpu, NodeKind, Trouble
from sdrun.core.platform import parse_platform
from sdrun.core.product import Products
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease
from sdrun.errors import BadConfiguration

_NODE = ("name", "names", "pool", "platform", "driver", "cuda", "tegra", "resource", "mig", "gpus")
_GPU = ("product", "capability", "memory_mib", "count")
_REMEDY = "Correct the inventory (docs/fleet.md shows one)."


def read_inventory(path: Path, text: str, products: Products, assumed: DriverVersion | None) -> tuple[Node, ...]:
    """The nodes that the inventory `text` (of the file `path`) lists. `assumed`: the driver of those that say none. Raises
    BadConfiguration (id `bad-nodes`) with all faults at once."""
    try:
        file = YamlFile(path, text)
        nodes: list[Node] = []
        with file.collecting():
            top = fields(file, file.data, "", ("nodes",))
            for row in each(file, top, "nodes", _NODE, lambda row: _nodes(file, row, products, assumed)):
                nodes += row
            _check_twins(nodes)
        file.finish()
    except BadConfiguration as fault:
        raise BadConfiguration(fault.message, _REMEDY, id="bad-nodes") from None
    return tuple(nodes)


def _check_twins(nodes: Iterable[Node]) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            raise Malformed("nodes", f"{node.name} stands there twice")
        seen.add(node.name)


def _nodes(file: YamlFile, row: Fields, products: Products, assumed: DriverVersion | None) -> list[Node]:
    one, several = row.find("name", str), texts(row, "names", optional=True)
    if bool(one) == bool(several):
        raise Malformed(row.key("name"), "is needed, or names, and not both")
    driver = row.find_parsed("driver", DriverVersion.parse)
    tegra = row.find_parsed("tegra", L4tRelease.parse)
    taken = driver or (assumed if tegra is None else None)
    notes = (f"driver assumed to be {taken}",) if taken is not None and driver is None else ()
    unknown = Trouble(
        "driver-unknown",
        3,
        "Its driver version is not known: the inventory has none.",
        "Add its driver to the inventory, or say --assume-driver VERSION.",
    )
    kind = NodeKind(
        platform=row.find_parsed("platform", parse_platform) or "linux/amd64",
        gpus=tuple(_gpu(fields(file, value, path, _GPU), products) for path, value in row.items("gpus")),
        driver=taken,
        cuda=row.find_parsed("cuda", CudaVersion.parse),
        resource=row.find("resource", str) or GPU_RESOURCE,
        mig=row.find("mig", str) or "",
        tegra=str(tegra) if tegra else None,
        trouble=unknown if taken is None and tegra is None else None,
        notes=notes,
    )
    if not kind.gpus:
        raise Malformed(row.key("gpus"), "is empty")
    return [Node(name, kind, row.find("pool", str) or "") for name in several or (one or "",)]


def _gpu(row: Fields, products: Products) -> NodeGpu:
    product = row.text("product")
    stated = row.find_parsed("capability", ComputeCapability.parse)
    capability = stated or products.capability(product)
    if capability is None:
        raise Malformed(row.key("product"), f"{product} is no product of images/gpus.yaml: add its capability here")
    memory, count = row.find("memory_mib", int), row.find("count", int)
    for name, value in (("memory_mib", memory), ("count", count)):
        if value is not None and value < 1:
            raise Malformed(row.key(name), f"must be positive, not {check(value, int, name)}")
    return NodeGpu(product, capability, memory, count or 1)
