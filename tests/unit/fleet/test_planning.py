"""Classes: who shares an image, what they are called, what is said of the others."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from fleets.samples import IMAGES, gfd, node, write, write_index
from resolving.samples import image, index, index_document

from sdrun.cli.fleettext import digest, named, plan_table
from sdrun.core.facts import CudaFacts
from sdrun.core.fleet import FleetPlan
from sdrun.fleet.naming import natural
from sdrun.fleet.planning import plan_fleet
from sdrun.fleet.reading import read_nodes


def plan(folder: Path, facts: CudaFacts, nodes: list[dict[str, Any]], *rows: dict[str, Any], **more: Any) -> FleetPlan:
    return plan_fleet(read_nodes(write(folder, *nodes)), index(*(rows or IMAGES)), facts, **more)


CLUSTER = [
    node("gpu-10", gfd(driver="580.65.06", cuda="13.0"), pool="new"),
    node("gpu-9", gfd(driver="550.90.07"), pool="old"),
    node("gpu-2", gfd(), pool="old", cordoned=True),
    node("t4", gfd("Tesla-T4", "7.5", "470.82", cuda="11.4"), taints=(("dedicated", "ml", "NoSchedule"),)),
    node("arm", gfd("NVIDIA-GH200-480GB", "9.0", "580.65.06", cuda="13.0"), arch="arm64"),
    node("v100", gfd("Tesla-V100-SXM2-16GB", "7.0", "580.65.06", cuda="13.0")),
    node("old-l4", gfd(driver="515.65.01", cuda="11.7")),
    node("cpu"),
]


def test_every_node_once_in_a_stable_order(tmp_path: Path, facts: CudaFacts) -> None:
    found = plan(tmp_path, facts, CLUSTER)
    assert [(row.name, row.image.target, row.code_path, row.names) for row in found.classes] == [
        ("cc75-r470", "cu118-sm75", "sass-exact", ("t4",)),
        ("cc89-r550", "cu124-sm89", "sass-exact", ("gpu-2", "gpu-9")),
        ("cc89-r580", "cu130-sm89", "sass-exact", ("gpu-10",)),
        ("cc90-r580-arm64", "cu130-sm90", "sass-exact", ("arm",)),
    ]
    assert [(row.node.name, row.error.id, row.error.exit_code) for row in found.refused] == [
        ("cpu", "no-gpu", 3),
        ("old-l4", "driver-too-old", 5),
        ("v100", "no-code-for-capability", 4),
    ]
    again = list(CLUSTER)
    for seed in range(5):
        random.Random(seed).shuffle(again)
        assert plan(tmp_path, facts, again).to_json() == found.to_json()


def test_the_document_has_what_the_contract_says(tmp_path: Path, facts: CudaFacts) -> None:
    document = plan(tmp_path, facts, CLUSTER).to_json()
    assert document["schema"] == "sdrun.fleet/v1"
    classes = document["classes"]
    assert isinstance(classes, list)
    assert {key: classes[1][key] for key in ("name", "target", "image", "code_path", "nodes")} == {
        "name": "cc89-r550",
        "target": "cu124-sm89",
        "image": f"registry.example/team/sdrun@sha256:{'3' * 64}",
        "code_path": "sass-exact",
        "nodes": ["gpu-2", "gpu-9"],
    }
    refused = document["refused"]
    assert isinstance(refused, list)
    assert set(refused[0]) == {"node", "error"}
    assert set(refused[0]["error"]) == {"id", "exit_code", "message", "remedy"}
    json.dumps(document)


def test_what_is_said_of_nodes(tmp_path: Path, facts: CudaFacts) -> None:
    notes = plan(tmp_path, facts, [*CLUSTER, node("down", gfd(), ready=False)]).notes
    assert notes["cordoned: no new pods until it is uncordoned"] == ("gpu-2",)
    assert notes["not ready"] == ("down",)
    assert notes["tainted dedicated=ml:NoSchedule, which pods do not tolerate unless told to (--tolerate dedicated)"] == ("t4",)
    tolerant = plan(tmp_path, facts, CLUSTER, tolerate=["dedicated"]).notes
    assert not [note for note in tolerant if "tainted" in note]


@pytest.mark.parametrize(
    "taint",
    [
        ("nvidia.com/gpu", "present", "NoSchedule"),
        ("x", "", "PreferNoSchedule"),
        ("node.kubernetes.io/unreachable", "", "NoExecute"),
    ],
)
def test_taints_that_keep_no_pod_away_or_go_by_themselves(
    tmp_path: Path, facts: CudaFacts, taint: tuple[str, str, str]
) -> None:
    assert not plan(tmp_path, facts, [node("a", gfd(), taints=(taint,))]).notes


def test_ptx_demands_the_cuda_version_and_no_jit_forbids_it(tmp_path: Path, facts: CudaFacts) -> None:
    b200 = [node("b200", gfd("NVIDIA-B200", "10.0", "580.65.06", cuda="13.0"))]
    (row,) = plan(tmp_path, facts, b200).classes
    assert (row.code_path, str(row.min_cuda), str(row.min_driver)) == ("ptx-jit", "12.9", "550.54.14")
    assert "the driver compiles" in row.reason
    (refused,) = plan(tmp_path, facts, b200, allow_jit=False).refused
    assert (refused.error.id, refused.error.exit_code) == ("jit-forbidden", 4)


def test_labels_that_say_nothing_of_cuda_do_not_select_where_cuda_decides(tmp_path: Path, facts: CudaFacts) -> None:
    labels = gfd("NVIDIA-B200", "10.0", "580.65.06", style="new")
    for part in ("major", "minor"):
        del labels[f"nvidia.com/cuda.runtime-version.{part}"]
    (row,) = plan(tmp_path, facts, [node("b200", labels)]).classes
    assert row.selectors == ("class-label",)


def test_why_this_image(tmp_path: Path, facts: CudaFacts) -> None:
    rows = {row.name: row.reason for row in plan(tmp_path, facts, CLUSTER).classes}
    assert rows["cc89-r550"] == (
        "machine code for exactly 8.9; needs driver 525.60.13 or newer; cu130-sm89 needs driver 580.65.06, has 550.54.14"
    )


def test_several_models_in_one_machine_share_one_image_or_are_refused(tmp_path: Path, facts: CudaFacts) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(
        'nodes:\n- name: a\n  driver: "550.54.14"\n  gpus: [{product: NVIDIA L4}, {product: NVIDIA A10}]\n'
        '- name: b\n  driver: "550.54.14"\n  gpus: [{product: NVIDIA L4}, {product: Tesla T4}]\n'
    )
    multi = image("cu124-multi", "86 89")
    found = plan_fleet(read_nodes(inventory), index(multi, *IMAGES), facts)
    (row,) = found.classes
    assert (row.name, row.image.target, row.names, row.selectors) == ("cc86-89-r550", "cu124-multi", ("a",), ("class-label",))
    (refused,) = found.refused
    assert (refused.node.name, refused.error.id, refused.error.exit_code) == ("b", "mixed-gpus", 4)
    assert "--gpu" not in refused.error.remedy


def test_names_that_would_be_the_same_say_more(tmp_path: Path, facts: CudaFacts) -> None:
    nodes = [
        node("a", gfd(driver="550.40.07")),
        node("b", gfd(driver="550.54.14")),
        node("c", gfd(driver="550.54.14", memory=9000, product="NVIDIA-L4-MIG-1g.9gb")),
        node("d", gfd(driver="550.54.14", replicas=2), {"nvidia.com/gpu.shared": 2}),
    ]
    rows = (image("cu124-sm89", "89"), image("cu128-sm89", "89", zstd=True))
    found = plan(tmp_path, facts, nodes, *rows)
    assert [row.name for row in found.classes] == [
        "cc89-r550-40-07",
        "cc89-r550-54-14",
        "cc89-r550-mig-1g-9gb",
        "cc89-r550-shared",
    ]


def test_names_once_given_are_kept_and_not_given_to_others(tmp_path: Path, facts: CudaFacts) -> None:
    first = plan(tmp_path, facts, [node("a", gfd()), node("b", gfd("Tesla-T4", "7.5"))])
    held = {row.key: row.name for row in first.classes}
    later = plan(tmp_path, facts, [node("a", gfd(driver="570.26", cuda="12.8"))], names=held)
    assert [row.name for row in later.classes] == ["cc89-r550"]
    swapped = {next(iter(held)): "cc89-r550"}
    taken = plan(tmp_path, facts, [node("a", gfd())], names=swapped)
    assert [row.name for row in taken.classes] == ["cc89-r550-54-14"]


def test_names_when_nothing_tells_two_classes_apart(tmp_path: Path, facts: CudaFacts) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(
        "nodes:\n- {name: a, platform: linux/arm64, tegra: '36.4', gpus: [{product: Orin, capability: '8.7'}]}\n"
        "- {name: b, platform: linux/arm64, tegra: '36.5', gpus: [{product: Orin, capability: '8.7'}]}\n"
        "- {name: c, platform: linux/arm64, tegra: '36.6', gpus: [{product: Orin, capability: '8.7'}]}\n"
    )
    found = plan_fleet(read_nodes(inventory), index(image("cu126-sm87", "87", platform="linux/arm64")), facts)
    assert [row.name for row in found.classes] == [
        "cc87-arm64-cu126-sm87-2",
        "cc87-arm64-cu126-sm87-3",
        "cc87-arm64-cu126-sm87-4",
    ]


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["gpu-10", "gpu-9", "gpu-09", "a", "9", "gpu"]
    assert sorted(names, key=natural) == ["9", "a", "gpu", "gpu-09", "gpu-9", "gpu-10"]


def test_the_table(tmp_path: Path, facts: CudaFacts) -> None:
    lines = plan_table(plan(tmp_path, facts, CLUSTER)).splitlines()
    assert lines[0].split() == ["CLASS", "POOL", "NODES", "GPU", "DRIVER", "TARGET", "DIGEST", "RUNS", "BY"]
    assert "cc89-r550        old   2      NVIDIA-L4 (8.9)           550.54.14 .. 550.90.07  cu124-sm89" in lines[2]
    assert "sha256:333333333333" in lines[2]
    assert "refused (driver-too-old): old-l4" in lines
    assert plan_table(plan(tmp_path, facts, [node("cpu")])).startswith("No node gets an image.\n\nrefused (no-gpu): cpu")
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert digest("sdrun:tag") == "sdrun:tag"


def test_the_index_file_of_the_samples_is_one(tmp_path: Path) -> None:
    assert json.loads(write_index(tmp_path).read_text()) == index_document(*IMAGES)
