"""A node's document -> what decides its image. Every sample is what one of the label writers would print."""

from __future__ import annotations

from typing import Any

import pytest
from fleets.samples import gfd, node, version

from sdrun.catalog.gpus import load_products
from sdrun.core.decode import Malformed
from sdrun.core.node import Node, Taint
from sdrun.fleet.nodes import Reader

MIG_80 = "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"


def read(document: dict[str, Any], assumed: str | None = None) -> Node:
    return Reader(load_products(), version(assumed) if assumed else None).node(document, "items[0]")


def test_gpu_feature_discovery_says_everything() -> None:
    found = read(node("a", gfd(driver="550.90.07", count=2), {"nvidia.com/gpu": 2}, pool="l4"))
    kind = found.kind
    assert (found.pool, kind.platform, str(kind.driver), str(kind.cuda)) == ("l4", "linux/amd64", "550.90.07", "12.4")
    assert [(gpu.product, str(gpu.capability), gpu.memory_mib, gpu.count) for gpu in kind.gpus] == [
        ("NVIDIA-L4", "8.9", 23034, 2)
    ]
    assert (kind.resource, kind.selector, kind.trouble, kind.notes) == ("nvidia.com/gpu", "gfd", None, ())


@pytest.mark.parametrize(("style", "selector"), [("both", "gfd"), ("new", "gfd"), ("old", "gfd-old")])
def test_labels_of_every_age(style: str, selector: str) -> None:
    kind = read(node("a", gfd(driver="470.82", cuda="11.4", style=style))).kind
    assert (kind.selector, str(kind.driver), str(kind.cuda)) == (selector, "470.82", "11.4")


def test_a_mig_slice_of_capability_0_0_has_that_of_its_product() -> None:
    labels = gfd(MIG_80, "0.0", count=7, memory=9984)
    kind = read(node("a", labels, {"nvidia.com/gpu": 7})).kind
    assert (str(kind.gpus[0].capability), kind.mig, kind.selector) == ("9.0", "1g.10gb", "gfd-product")
    assert kind.product_label == MIG_80
    assert kind.gpus[0].product == "NVIDIA-H100-80GB-HBM3"
    assert "9.0 by the product's name" in kind.notes[0]


def test_the_mixed_strategy_takes_the_slice_with_the_most_memory() -> None:
    more = {"mig-1g.10gb.memory": "9728", "mig-3g.40gb.memory": "40192", "mig-3g.40gb.count": "1"}
    more |= {f"mig-{profile}.product": f"NVIDIA-A100-SXM4-80GB-MIG-{profile}" for profile in ("1g.10gb", "3g.40gb")}
    resources = {"nvidia.com/gpu": 0, "nvidia.com/mig-1g.10gb": 4, "nvidia.com/mig-3g.40gb": 1}
    kind = read(node("a", gfd("NVIDIA-A100-SXM4-80GB", "8.0", count=1, memory=81920, **more), resources)).kind
    assert (kind.resource, kind.mig, kind.memory_mib, kind.selector) == ("nvidia.com/mig-3g.40gb", "3g.40gb", 40192, "gfd")
    assert kind.notes == ("further GPU resources that this plan does not use: nvidia.com/mig-1g.10gb",)


def test_slices_of_another_model_than_the_labels_speak_of_go_by_their_own() -> None:
    more = {"mig-1g.10gb.memory": "9728", "mig-1g.10gb.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"}
    kind = read(node("a", gfd("NVIDIA-H100-PCIe", "9.0", **more), {"nvidia.com/mig-1g.10gb": 7})).kind
    assert (str(kind.gpus[0].capability), kind.selector) == ("8.0", "class-label")


def test_a_mig_layout_that_cannot_be() -> None:
    labels = gfd("NVIDIA-A100-SXM4-80GB-MIG-INVALID", "8.0", count=0, memory=0)
    trouble = read(node("a", labels, {"cpu": 4})).kind.trouble
    assert trouble is not None
    assert (trouble.id, trouble.exit_code) == ("gpu-access-unavailable", 6)


@pytest.mark.parametrize(
    ("product", "replicas", "resources", "said"),
    [
        ("NVIDIA-L4-SHARED", 4, {"nvidia.com/gpu": 4}, "shared by time-slicing: up to 4 pods use one GPU and its memory"),
        ("NVIDIA-L4", 4, {"nvidia.com/gpu.shared": 4}, "shared by time-slicing: up to 4 pods use one GPU and its memory"),
        ("NVIDIA-L4-SHARED", 1, {"nvidia.com/gpu": 4}, ""),
    ],
)
def test_shared_gpus(product: str, replicas: int, resources: dict[str, int], said: str) -> None:
    kind = read(node("a", gfd(product, replicas=replicas), resources)).kind
    if not said:  # four GPUs of which the labels count one
        assert kind.trouble is not None
        assert kind.trouble.id == "mixed-gpus"
        return
    assert (kind.notes, kind.resource) == ((said,), next(iter(resources)))
    assert (kind.gpus[0].product, kind.gpus[0].memory_mib) == ("NVIDIA-L4", 23034)


def test_mps_is_called_by_its_name() -> None:
    kind = read(node("a", gfd(replicas=2, **{"gpu.sharing-strategy": "mps"}), {"nvidia.com/gpu": 2})).kind
    assert kind.notes == ("shared by MPS: up to 2 pods use one GPU and its memory",)


def test_more_gpus_than_the_labels_speak_of_are_several_models() -> None:
    trouble = read(node("a", gfd(count=2), {"nvidia.com/gpu": 4})).kind.trouble
    assert trouble is not None
    assert (trouble.id, trouble.exit_code) == ("mixed-gpus", 4)
    assert "more GPUs (4) than its labels speak of (2 NVIDIA-L4)" in trouble.message


def test_fewer_gpus_than_labelled_are_sick_or_cut_up() -> None:
    assert read(node("a", gfd(count=8), {"nvidia.com/gpu": 7})).kind.trouble is None


CLOUDS = [
    ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, "8.9"),
    ({"eks.amazonaws.com/instance-gpu-name": "h100"}, "9.0"),
    ({"karpenter.k8s.aws/instance-gpu-name": "T4"}, "7.5"),
    ({"k8s.amazonaws.com/accelerator": "nvidia-tesla-v100"}, "7.0"),
    ({"node.kubernetes.io/instance-type": "g6e.xlarge"}, "8.9"),
    ({"kubernetes.azure.com/accelerator": "nvidia", "node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4"}, "8.0"),
]


@pytest.mark.parametrize(("labels", "capability"), CLOUDS)
def test_a_clouds_labels_name_the_gpu_and_no_driver(labels: dict[str, str], capability: str) -> None:
    trouble = read(node("a", labels)).kind.trouble
    assert trouble is not None
    assert (trouble.id, trouble.exit_code) == ("driver-unknown", 3)
    kind = read(node("a", labels), assumed="550.54.14").kind
    assert (str(kind.gpus[0].capability), str(kind.driver), kind.selector) == (capability, "550.54.14", "class-label")
    assert "driver assumed to be 550.54.14" in kind.notes


def test_an_assumed_driver_never_overrides_a_stated_one() -> None:
    assert str(read(node("a", gfd(driver="535.54.03")), assumed="580.65.06").kind.driver) == "535.54.03"


TROUBLES = [
    ({}, {}, "no-gpu", 3),
    ({"nvidia.com/gpu.present": "false"}, {}, "no-gpu", 3),
    (
        {"kubernetes.azure.com/accelerator": "nvidia", "node.kubernetes.io/instance-type": "Standard_Next"},
        {},
        "capability-unknown",
        3,
    ),
    ({"nvidia.com/gpu.product": "NVIDIA-Next-9000"}, {"nvidia.com/gpu": 1}, "capability-unknown", 3),
    ({}, {"nvidia.com/gpu": 8}, "capability-unknown", 3),
    (gfd() | {"nvidia.com/gpu.count": "many"}, {"nvidia.com/gpu": 1}, "bad-labels", 8),
    (gfd() | {"nvidia.com/gpu.compute.major": "8.9"}, {"nvidia.com/gpu": 1}, "bad-labels", 8),
    (gfd() | {"nvidia.com/gpu.compute.minor": "77"}, {"nvidia.com/gpu": 1}, "bad-labels", 8),
    (gfd() | {"nvidia.com/cuda.driver-version.minor": "new"}, {"nvidia.com/gpu": 1}, "bad-labels", 8),
    (gfd() | {"nvidia.com/cuda.runtime-version.minor": ""}, {"nvidia.com/gpu": 1}, "bad-labels", 8),
]


@pytest.mark.parametrize(("labels", "resources", "id", "exit_code"), TROUBLES)
def test_nodes_that_cannot_be_planned_for(labels: dict[str, str], resources: dict[str, int], id: str, exit_code: int) -> None:
    trouble = read(node("a", labels, resources)).kind.trouble
    assert trouble is not None, "was planned for"
    assert (trouble.id, trouble.exit_code) == (id, exit_code)
    assert trouble.remedy


def test_a_node_without_a_device_plugin_is_planned_for_and_said() -> None:
    kind = read(node("a", gfd(), {})).kind
    assert kind.trouble is None
    assert kind.notes == ("no nvidia.com resource: the device plugin does not run there, so no pod can be given a GPU yet",)


def test_state_of_a_node() -> None:
    found = read(node("a", gfd(), cordoned=True, ready=False, taints=(("b", "", "NoExecute"), ("a", "x", "NoSchedule"))))
    assert (found.cordoned, found.ready) == (True, False)
    assert found.taints == (Taint("a", "x", "NoSchedule"), Taint("b", "", "NoExecute"))
    assert [str(taint) for taint in found.taints] == ["a=x:NoSchedule", "b:NoExecute"]


def test_a_document_with_little_in_it() -> None:
    found = read({"metadata": {"name": "bare", "labels": gfd()}})
    assert (found.kind.platform, found.kind.trouble, found.ready) == ("linux/amd64", None, None)


def test_arm_and_windows() -> None:
    assert read(node("a", gfd(), arch="arm64")).kind.platform == "linux/arm64"
    document = node("a", gfd())
    document["status"]["nodeInfo"]["operatingSystem"] = "windows"
    assert read(document).kind.platform == "windows/amd64"


def test_nodes_alike_share_their_kind() -> None:
    reader = Reader(load_products())
    first, second, third = (reader.node(node(name, gfd(cc=cc)), "x") for name, cc in (("a", "8.9"), ("b", "8.9"), ("c", "8.6")))
    assert first.kind is second.kind
    assert first.kind is not third.kind


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ([], "items[0]"),
        ({}, "items[0].metadata"),
        ({"metadata": {}}, "items[0].metadata.name"),
        ({"metadata": {"name": "a", "labels": {"nvidia.com/gpu.count": 3}}}, "items[0].metadata.labels[nvidia.com/gpu.count]"),
        ({"metadata": {"name": "a"}, "spec": {"taints": [{"value": "x"}]}}, "items[0].spec.taints[0].key"),
        ({"metadata": {"name": "a"}, "status": {"nodeInfo": {"architecture": "A M D"}}}, "items[0].status.nodeInfo"),
    ],
)
def test_what_is_no_node_is_told_by_its_key(document: Any, key: str) -> None:
    with pytest.raises(Malformed) as fault:
        Reader(load_products()).node(document, "items[0]")
    assert fault.value.key == key
