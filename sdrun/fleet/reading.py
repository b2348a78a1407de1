"""The file given to --nodes -> nodes: a cluster's JSON or an inventory, told apart by its first character."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sdrun.catalog.gpus import load_products
from sdrun.catalog.inventory import read_inventory
from sdrun.catalog.nodefile import items, node_errors, opened, whole
from sdrun.core.decode import Malformed
from sdrun.core.node import Node
from sdrun.core.version import DriverVersion
from sdrun.fleet.nodes import Reader


def read_nodes(path: str | Path, assumed: DriverVersion | None = None) -> tuple[Node, ...]:
    """Every node in the file (`-`: stdin). `assumed`: the driver of nodes that state none. Raises BadConfiguration (id
    `bad-nodes`) naming file and key."""
    with node_errors(path), opened(path) as source:
        first = source.start()
        if not first:
            raise Malformed("(document)", "is empty")
        if first != "{":
            return read_inventory(Path("stdin" if str(path) == "-" else path), whole(source), load_products(), assumed)
        return tuple(_cluster(Reader(load_products(), assumed), items(source)))


def _cluster(reader: Reader, documents: Iterator[tuple[str, object]]) -> Iterator[Node]:
    seen: set[str] = set()
    for path, document in documents:
        node = reader.node(document, path)
        if node.name in seen:
            raise Malformed(path or "metadata.name", f"{node.name} stands there twice")
        seen.add(node.name)
        yield node
