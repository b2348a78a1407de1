"""A node as the API server prints it -> Node. Pure: what is not in the document or the table of products is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from sdrun.core.decode import Fields, Malformed, check
from sdrun.core.node import Node, NodeKind, Taint
from sdrun.core.product import Products
from sdrun.core.version import DriverVersion
from sdrun.fleet.kinds import KEYS, read_kind

# Where the tools that make node pools write a pool's name.
POOL_LABELS = (
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "kubernetes.azure.com/agentpool",
    "agentpool",
    "node.kubernetes.io/pool",
)


class Reader:
    """Reads nodes one after another; nodes with the same facts share one NodeKind."""

    def __init__(self, products: Products, assumed: DriverVersion | None = None) -> None:
        self._products, self._assumed = products, assumed
        self._keys = (*KEYS, *products.labels)
        self._kinds: dict[tuple[object, ...], NodeKind] = {}

    def node(self, document: object, path: str) -> Node:
        """The node in `document`, which stands at `path` in its file. Raises Malformed for what is no node; a node whose labels
        make no sense is one with a Trouble."""
        top = Fields(document, path)
        if (kind := top.find("kind", str)) not in (None, "Node"):
            raise Malformed(top.key("kind"), f"must be Node, not {kind[:40]!r}")
        meta, spec = (
            Fields(top.get("metadata", dict), top.key("metadata")),
            Fields(top.find("spec", dict) or {}, top.key("spec")),
        )
        status = Fields(top.find("status", dict) or {}, top.key("status"))
        labels = cast("Mapping[str, str]", meta.find("labels", dict) or {})
        return Node(
            name=meta.text("name"),
            kind=self._kind(labels, status),
            pool=next((str(labels[key]) for key in POOL_LABELS if key in labels), ""),
            cordoned=spec.find("unschedulable", bool) or False,
            ready=_ready(status),
            taints=_taints(spec),
        )

    def _kind(self, labels: Mapping[str, str], status: Fields) -> NodeKind:
        info, capacity = status.find("nodeInfo", dict) or {}, status.find("capacity", dict)
        told = (info.get("operatingSystem"), info.get("architecture"))
        amounts = (
            tuple((name, str(capacity[name])) for name in capacity if name.startswith("nvidia.com/")) if capacity else None
        )
        extra = [
            (key, labels[key]) for name, _ in amounts or () for key in (f"{name}.memory", f"{name}.product") if key in labels
        ]
        key = (told, amounts, tuple(extra), *(labels.get(name) for name in self._keys))
        if key not in self._kinds:
            for name in (*self._keys, *(name for name, _ in extra)):
                if name in labels:
                    check(labels[name], str, f"{status.path.removesuffix('.status')}.metadata.labels[{name}]")
            try:
                kind = read_kind(labels, told, None if amounts is None else dict(amounts), self._products, self._assumed)
            except Malformed as fault:
                raise Malformed(f"{status.path.removesuffix('status')}{fault.key}", fault.reason) from None
            self._kinds[key] = kind
        return self._kinds[key]


def _ready(status: Fields) -> bool | None:
    for path, value in status.items("conditions", optional=True):
        row = Fields(value, path)
        if row.find("type", str) == "Ready":
            return row.find("status", str) == "True"
    return None


def _taints(spec: Fields) -> tuple[Taint, ...]:
    rows = (Fields(value, path) for path, value in spec.items("taints", optional=True))
    found = (Taint(row.get("key", str), row.find("value", str) or "", row.get("effect", str)) for row in rows)
    return tuple(sorted(found, key=str))
