"""Do the pins still fit? One thing changes at a time, and the finding, its exit code and its nodes are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleets.samples import IMAGES, gfd, node, version, write
from resolving.samples import image, index

from sdrun.cli.fleettext import findings_text
from sdrun.core.facts import CudaFacts
from sdrun.core.finding import Checked
from sdrun.core.lock import Lock, lock_of
from sdrun.errors import VerificationFailed
from sdrun.fleet.checking import check_fleet
from sdrun.fleet.planning import plan_fleet
from sdrun.fleet.reading import read_nodes

NEWER = "580.65.06"
NODES: dict[str, dict[str, Any]] = {
    "l4": node("l4", gfd()),
    "l4-new": node("l4-new", gfd(driver=NEWER, cuda="13.0")),
    "h100": node("h100", gfd("NVIDIA-H100-80GB-HBM3", "9.0")),
    "gke": node("gke", {"cloud.google.com/gke-accelerator": "nvidia-l4"}),
    "old": node("old", gfd(driver="515.65.01", cuda="11.7")),
    "v100": node("v100", gfd("Tesla-V100-SXM2-16GB", "7.0")),
    "two": node("two", gfd(), {"nvidia.com/gpu": 2}),
    "cpu": node("cpu"),
}


def locked(folder: Path, facts: CudaFacts) -> Lock:
    live = read_nodes(write(folder, *NODES.values()), version("550.54.14"))
    return lock_of(plan_fleet(live, index(*IMAGES), facts))


def check(folder: Path, facts: CudaFacts, changes: dict[str, dict[str, Any] | None], **more: Any) -> Checked:
    lock = more.pop("lock", None) or locked(folder, facts)
    nodes = {name: entry for name, entry in (NODES | changes).items() if entry is not None}
    assumed = more.pop("assumed", "550.54.14")
    return check_fleet(lock, read_nodes(write(folder, *nodes.values()), assumed and version(assumed)), facts, **more)


def told(found: Checked) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(finding.id, finding.exit_code, finding.nodes) for finding in found.findings]


def test_nothing_has_changed(tmp_path: Path, facts: CudaFacts) -> None:
    found = check(tmp_path, facts, {}, index=index(*IMAGES), holds=lambda reference: True)
    assert (told(found), found.exit_code) == ([], 0)
    assert found.to_json() == {"schema": "sdrun.fleet-check/v1", "status": "fits", "exit_code": 0, "findings": []}
    assert findings_text(found) == "The pins fit."


CHANGES: list[tuple[str, dict[str, dict[str, Any] | None], list[tuple[str, int, tuple[str, ...]]]]] = [
    ("a newer driver", {"l4": node("l4", gfd(driver=NEWER, cuda="13.0"))}, [("driver-changed", 0, ("l4",))]),
    ("an older driver", {"l4-new": node("l4-new", gfd())}, [("driver-too-old", 5, ("l4-new",))]),
    ("another GPU", {"l4": node("l4", gfd("NVIDIA-H100-PCIe", "9.0"))}, [("gpu-changed", 4, ("l4",))]),
    ("slices", {"h100": node("h100", gfd("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "9.0"))}, [("gpu-changed", 4, ("h100",))]),
    ("a node gone", {"h100": None}, [("node-gone", 0, ("h100",))]),
    ("one more", {"l4-2": node("l4-2", gfd(driver="550.90.07"))}, [("node-new", 0, ("l4-2",))]),
    ("a new kind", {"b200": node("b200", gfd("NVIDIA-B200", "10.0", NEWER, cuda="13.0"))}, [("gpu-new", 4, ("b200",))]),
    ("arm", {"arm": node("arm", gfd(), arch="arm64")}, [("platform-mismatch", 4, ("arm",))]),
    ("one more, too old", {"x": node("x", gfd(driver="470.82", cuda="11.4"))}, [("driver-too-old", 5, ("x",))]),
    ("another model beside it", {"l4": node("l4", gfd(), {"nvidia.com/gpu": 2})}, [("mixed-gpus", 4, ("l4",))]),
    ("a new mixed machine", {"y": node("y", gfd(), {"nvidia.com/gpu": 2})}, [("mixed-gpus", 4, ("y",))]),
    ("labels lost", {"l4": node("l4", {"nvidia.com/gpu.product": "NVIDIA-L4"})}, []),
    ("served now", {"old": node("old", gfd())}, [("node-served", 0, ("old",))]),
    ("no GPU any more", {"v100": node("v100")}, []),
    ("a new machine without a GPU", {"cpu2": node("cpu2")}, []),
]


@pytest.mark.parametrize(("what", "changes", "wanted"), CHANGES, ids=[entry[0] for entry in CHANGES])
def test_changes_of_nodes(
    tmp_path: Path, facts: CudaFacts, what: str, changes: dict[str, Any], wanted: list[tuple[str, int, tuple[str, ...]]]
) -> None:
    found = check(tmp_path, facts, changes)
    assert told(found) == wanted
    assert found.exit_code == max((code for _, code, _ in wanted), default=0)
    assert all(finding.message and finding.remedy for finding in found.findings)


def test_a_driver_that_is_no_longer_known(tmp_path: Path, facts: CudaFacts) -> None:
    found = check(tmp_path, facts, {"new": node("new", {"cloud.google.com/gke-accelerator": "nvidia-l4"})}, assumed=None)
    assert told(found) == [("driver-unknown", 5, ("gke",)), ("driver-unknown", 5, ("new",))]


def test_a_new_node_that_pods_would_not_find(tmp_path: Path, facts: CudaFacts) -> None:
    lock = lock_of(plan_fleet(read_nodes(write(tmp_path, NODES["gke"]), version("550.54.14")), index(*IMAGES), facts))
    more = node("gke-2", {"cloud.google.com/gke-accelerator": "nvidia-l4"})
    live = read_nodes(write(tmp_path, NODES["gke"], more, NODES["l4"]), version("550.54.14"))
    assert told(check_fleet(lock, live, facts)) == [("node-unlabelled", 4, ("gke-2", "l4"))]


def test_the_gravest_comes_first_and_decides(tmp_path: Path, facts: CudaFacts) -> None:
    changes = {"l4": node("l4", gfd(driver="570.26", cuda="12.8")), "l4-new": node("l4-new", gfd()), "h100": None}
    found = check(tmp_path, facts, changes, holds=lambda reference: "3333" not in reference)
    assert [code for _, code, _ in told(found)] == [7, 5, 0, 0]
    assert found.exit_code == 7
    assert found.to_json()["status"] == "stale"
    lines = findings_text(found).splitlines()
    assert lines[0].startswith("digest-gone (exit 7): The registry no longer has registry.example/team/sdrun@sha256:3333")
    assert lines[-1] == "The pins no longer fit."


def test_a_registry_that_does_not_answer_is_told_once(tmp_path: Path, facts: CudaFacts) -> None:
    def down(reference: str) -> bool:
        raise VerificationFailed("nobody listens", "Start it.", id="registry-unreachable")

    assert told(check(tmp_path, facts, {}, holds=down)) == [("registry-unreachable", 7, ())]


def test_what_is_published_now(tmp_path: Path, facts: CudaFacts) -> None:
    newer = index(*IMAGES, image("cu118-sm70", "70"))
    assert told(check(tmp_path, facts, {}, index=newer)) == [("node-served", 0, ("v100",))]
    assert told(check(tmp_path, facts, {}, index=replace(index(*IMAGES), engine="next")))[0] == ("engine-newer", 0, ())
    again = [row | {"image": row["image"].replace("3333", "9999")} for row in IMAGES]
    assert told(check(tmp_path, facts, {}, index=index(*again))) == [("image-newer", 0, ())]
    other = [row | ({"fatbin_compression": "none"} if row["target"] == "cu124-sm89" else {}) for row in IMAGES]
    assert told(check(tmp_path, facts, {}, index=index(*other))) == [("image-differs", 7, ())]


def test_the_gzip_form_pinned_by_hand_is_the_same_image(tmp_path: Path, facts: CudaFacts) -> None:
    """As docs/publishing.md says, for nodes whose container runtime reads no zstd."""
    forms = [row | {"gzip": row["image"].replace("3333", "9999")} if "3333" in row["image"] else row for row in IMAGES]
    lock = locked(tmp_path, facts)
    pinned = tuple(
        replace(row, image=replace(row.image, image=row.image.image.replace("3333", "9999"))) for row in lock.classes
    )
    assert pinned != lock.classes
    assert told(check(tmp_path, facts, {}, lock=replace(lock, classes=pinned), index=index(*forms))) == []


def test_a_better_image_after_an_update(tmp_path: Path, facts: CudaFacts) -> None:
    changes = {"l4": node("l4", gfd(driver=NEWER, cuda="13.0"))}
    found = check(tmp_path, facts, changes, index=index(*IMAGES))
    assert told(found) == [("driver-changed", 0, ("l4",)), ("better-image", 0, ("l4",))]
    assert "Pinned is cu124-sm89; today cu130-sm89 would be chosen." in findings_text(found)
