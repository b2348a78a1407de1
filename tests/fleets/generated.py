"""Clusters by the dozen: nodes of every sort that is met, each with the truth about its GPUs, which its labels may not tell."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from resolving.strategies import DRIVERS

from fleets.samples import gfd, node

PRODUCTS = {
    "Tesla-P40": "6.1",
    "Tesla-V100-SXM2-16GB": "7.0",
    "Tesla-T4": "7.5",
    "NVIDIA-A100-SXM4-80GB": "8.0",
    "NVIDIA-A10G": "8.6",
    "NVIDIA-GeForce-RTX-3090": "8.6",
    "NVIDIA-L4": "8.9",
    "NVIDIA-L40S": "8.9",
    "NVIDIA-H100-80GB-HBM3": "9.0",
    "NVIDIA-B200": "10.0",
    "NVIDIA-GB300": "10.3",
    "NVIDIA-GeForce-RTX-5090": "12.0",
}
MEMORY = {"7.5": 15360, "8.0": 81920, "8.9": 23034, "9.0": 81559, "10.0": 183359}
SPEAKS = {390: "9.1", 440: "10.2", 450: "11.0", 470: "11.4", 515: "11.7", 525: "12.0", 535: "12.2", 545: "12.3", 550: "12.4",
          565: "12.7", 570: "12.8", 575: "12.9", 580: "13.0", 585: "13.0", 590: "13.1", 595: "13.2", 615: "13.4",
          700: "13.4"}  # fmt: skip
ASSUMED = "550.54.14"
TAINTS = (("nvidia.com/gpu", "present", "NoSchedule"), ("dedicated", "ml", "NoSchedule"), ("spare", "", "PreferNoSchedule"))
SORTS = ("plain",) * 10 + (
    "old",
    "new",
    "single",
    "single-0.0",
    "mixed-mig",
    "models",
    "shared",
    "renamed",
    "cloud",
    "none",
    "bare",
)


@dataclass(frozen=True, slots=True)
class Truth:
    """What a pod may really be given on a node: capabilities of the GPUs behind the resource, driver and CUDA."""

    platform: str
    driver: str
    cuda: str
    capabilities: tuple[str, ...]


def cluster(count: int, seed: int, *, sorts: tuple[str, ...] = SORTS) -> list[tuple[dict[str, Any], Truth]]:
    """Nodes with their truth."""
    draw = random.Random(seed)
    return [_node(draw, f"node-{seed}-{number}", draw.choice(sorts)) for number in range(count)]


def _node(draw: random.Random, name: str, sort: str) -> tuple[dict[str, Any], Truth]:
    product = draw.choice(list(PRODUCTS))
    cc, driver = PRODUCTS[product], ASSUMED if sort == "cloud" else draw.choice(DRIVERS)
    cuda = SPEAKS[int(driver.split(".")[0])]
    memory, count, others = MEMORY.get(cc, 24564), draw.choice((1, 2, 4, 8)), []
    labels = gfd(product, cc, driver, cuda=cuda, count=count, memory=memory)
    resources = {"nvidia.com/gpu": count}
    if sort in ("old", "new"):
        labels = gfd(product, cc, driver, cuda=cuda, count=count, memory=memory, style=sort)
        if sort == "new" and draw.random() < 0.3:
            labels = {key: value for key, value in labels.items() if "runtime-version" not in key}
    elif sort.startswith("single"):
        stated = "0.0" if sort == "single-0.0" else cc
        labels = gfd(f"{product}-MIG-1g.10gb", stated, driver, cuda=cuda, count=7 * count, memory=9984)
        resources = {"nvidia.com/gpu": 7 * count}
    elif sort == "mixed-mig":
        more = {"mig-1g.10gb.memory": "9728", "mig-1g.10gb.product": f"{product}-MIG-1g.10gb", "mig-1g.10gb.count": "7"}
        labels = gfd(product, cc, driver, cuda=cuda, count=count, memory=memory, **more)
        resources = {"nvidia.com/gpu": draw.choice((0, count)), "nvidia.com/mig-1g.10gb": 7}
    elif sort == "models":  # the labels speak of one model, a pod may be given the other
        others = [PRODUCTS[draw.choice(list(PRODUCTS))]]
        resources = {"nvidia.com/gpu": count + 1}
    elif sort in ("shared", "renamed"):
        suffix = "-SHARED" if sort == "shared" else ""
        labels = gfd(f"{product}{suffix}", cc, driver, cuda=cuda, count=count, memory=memory, replicas=4)
        resources = {f"nvidia.com/gpu{'.shared' if sort == 'renamed' else ''}": 4 * count}
    elif sort == "cloud":
        kind = draw.choice(
            ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, {"node.kubernetes.io/instance-type": "p5.48xlarge"})
        )
        labels, cc = kind, "8.9" if "cloud.google.com/gke-accelerator" in kind else "9.0"
    elif sort == "none":
        labels, resources = {}, {}
    elif sort == "bare":  # no device plugin
        resources = {}
    arch = draw.choice(("amd64",) * 9 + ("arm64",))
    document = node(
        name,
        labels,
        resources,
        arch=arch,
        cordoned=draw.random() < 0.05,
        ready=draw.random() > 0.05,
        taints=(draw.choice(TAINTS),) if draw.random() < 0.2 else (),
    )
    return document, Truth(f"linux/{arch}", driver, cuda, tuple(sorted({cc, *others})))
