"""Short ways to write down cluster nodes, as the JSON documents that `kubectl get nodes -o json` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resolving.samples import image, index_document

from sdrun.core.version import DriverVersion

OLD, NEW = "nvidia.com/cuda.driver.", "nvidia.com/cuda.driver-version."


def gfd(
    product: str = "NVIDIA-L4",
    cc: str = "8.9",
    driver: str = "550.54.14",
    *,
    cuda: str = "12.4",
    count: int = 1,
    memory: int | None = 23034,
    replicas: int = 1,
    style: str = "both",
    **more: str,
) -> dict[str, str]:
    """GPU Feature Discovery's labels. `style`: `both` as it writes today, `old` as it wrote before, `new` without the
    deprecated ones; `more`: further labels below nvidia.com/."""
    (major, minor), (cuda_major, cuda_minor) = cc.split("."), cuda.split(".")
    branch, point, revision = (*driver.split("."), "")[:3]
    labels = {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
    }
    if memory is not None:
        labels["nvidia.com/gpu.memory"] = str(memory)
    if style != "new":
        labels |= {f"{OLD}major": branch, f"{OLD}minor": point, f"{OLD}rev": revision}
        labels |= {"nvidia.com/cuda.runtime.major": cuda_major, "nvidia.com/cuda.runtime.minor": cuda_minor}
    if style != "old":
        labels |= {f"{NEW}major": branch, f"{NEW}minor": point, f"{NEW}revision": revision, f"{NEW}full": driver}
        labels |= {"nvidia.com/cuda.runtime-version.major": cuda_major, "nvidia.com/cuda.runtime-version.minor": cuda_minor}
    return labels | {f"nvidia.com/{key}": value for key, value in more.items()}


def node(
    name: str,
    labels: dict[str, str] | None = None,
    resources: dict[str, int] | None = None,
    *,
    arch: str = "amd64",
    pool: str | None = None,
    cordoned: bool = False,
    ready: bool = True,
    taints: tuple[tuple[str, str, str], ...] = (),
) -> dict[str, Any]:
    """One node; with labels and no resources it has one nvidia.com/gpu."""
    own = {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux", "kubernetes.io/hostname": name, **(labels or {})}
    if pool is not None:
        own["cloud.google.com/gke-nodepool"] = pool
    amounts = resources if resources is not None else ({"nvidia.com/gpu": 1} if labels else {})
    spec: dict[str, Any] = {"unschedulable": True} if cordoned else {}
    if taints:
        spec["taints"] = [{"key": key, "value": value, "effect": effect} for key, value, effect in taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": own},
        "spec": spec,
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110", **{key: str(value) for key, value in amounts.items()}},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": str(ready)}],
            "nodeInfo": {"architecture": arch, "operatingSystem": "linux"},
        },
    }


def write(folder: Path, *nodes: dict[str, Any]) -> Path:
    """The nodes as kubectl writes them."""
    path = folder / "nodes.json"
    path.write_text(json.dumps({"apiVersion": "v1", "items": list(nodes), "kind": "List"}, indent=4))
    return path


def pinned(row: dict[str, Any], digit: str) -> dict[str, Any]:
    """The row with a digest of that digit."""
    return row | {"image": f"registry.example/team/sdrun@sha256:{digit * 64}"}


IMAGES = (
    pinned(image("cu118-sm75", "75"), "1"),
    pinned(image("cu124-sm80", "80"), "2"),
    pinned(image("cu124-sm89", "89"), "3"),
    pinned(image("cu130-sm89", "89", zstd=True), "4"),
    pinned(image("cu124-sm90", "90"), "5"),
    pinned(image("cu130-sm90", "90", zstd=True, platform="linux/arm64"), "6"),
    pinned(image("cu129-multi", "", "100", zstd=True), "7"),
)


def write_index(folder: Path, *rows: dict[str, Any]) -> Path:
    """An index file of `rows`, or of IMAGES."""
    path = folder / "index.json"
    path.write_text(json.dumps(index_document(*(rows or IMAGES))))
    return path


def version(text: str) -> DriverVersion:
    return DriverVersion.parse(text)
