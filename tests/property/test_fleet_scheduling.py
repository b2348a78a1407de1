"""For whole clusters: a pod lands only where its image runs, and where its class was planned for it can land. The scheduler's
rules (fleets.scheduler) and the rules of resolving (resolving.oracle) are both written a second time for these tests."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import pytest
import yaml
from fleets.generated import ASSUMED, SORTS, Truth, cluster
from fleets.samples import version
from fleets.scheduler import may_land
from resolving import oracle
from resolving.samples import gpu, host, host_document, image, index

from sdrun.catalog.gpus import load_products
from sdrun.core.facts import CudaFacts
from sdrun.core.fleet import FleetPlan
from sdrun.core.index import Index
from sdrun.core.lock import Lock, lock_of
from sdrun.core.plan import Plan
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve
from sdrun.core.workload import Cluster, Workload
from sdrun.fleet.manifests import files
from sdrun.fleet.nodes import Reader
from sdrun.fleet.planning import plan_fleet

NODES = 10_000
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LOAD = Workload("server", "/usr/bin/sd-server", ("--steps", "4"), {"HOME": "/tmp"}, "tiny", "tiny", ())
ROWS = [
    *(image(f"cu118-sm{arch}", arch) for arch in ("61", "70", "75", "80", "86")),
    *(image(f"cu124-sm{arch}", arch) for arch in ("80", "89", "90")),
    *(image(f"cu130-sm{arch}", arch, zstd=True) for arch in ("75", "86", "89", "90", "100")),
    image("cu129-multi", "", "100", zstd=True),
    image("cu128-sm120", "120a", zstd=True),
    image("cu134-multi", "", "90", zstd=True),
    *(image(f"cu130-sm{arch}", arch, zstd=True, platform="linux/arm64") for arch in ("75", "90", "100")),
]
ROWS = [row | {"image": f"registry.example/sdrun@sha256:{number:064x}"} for number, row in enumerate(ROWS)]


def plan_of(nodes: list[dict[str, Any]], facts: CudaFacts) -> FleetPlan:
    reader = Reader(load_products(), version(ASSUMED))
    return plan_fleet([reader.node(document, "x") for document in nodes], index(*ROWS), facts)


def pods(lock: Lock) -> dict[str, dict[str, Any]]:
    """Each class's pod, put together from the written base and overlay as kustomize would."""
    written = files(lock.classes, LOAD, "kustomize", Cluster(tolerate=lock.tolerate))
    base = yaml.load(written["base/server.yaml"], Loader=LOADER)["spec"]["template"]["spec"]
    found = {}
    for row in lock.classes:
        patch = yaml.load(written[f"overlays/{row.name}/placement.yaml"], Loader=LOADER)["spec"]["template"]["spec"]
        pod = copy.deepcopy(base) | {"affinity": patch["affinity"]}
        pod["containers"][0]["resources"]["limits"] |= patch["containers"][0]["resources"]["limits"]
        found[row.name] = pod
    return found


def labelled(nodes: list[dict[str, Any]], lock: Lock) -> None:
    """Runs label-nodes.sh, as far as it concerns the nodes."""
    written = files(lock.classes, LOAD, "kustomize", Cluster())
    by_name = {document["metadata"]["name"]: document for document in nodes}
    for line in written["label-nodes.sh"].splitlines():
        if line.startswith("kubectl"):
            match = re.fullmatch(r"kubectl label node (\S+) (\S+)=(\S+) --overwrite", line)
            assert match is not None, line
            by_name[match[1]]["metadata"]["labels"][match[2]] = match[3]


class Judge:
    """Whether an image runs on every GPU that a pod may be given: by the resolver, which the second reading must confirm."""

    def __init__(self, facts: CudaFacts) -> None:
        self.facts, self.published = facts, index(*ROWS)
        self.runs = cache(self._runs)

    def _runs(self, target: str, reference: str, truth: Truth) -> bool:
        cards = [gpu(cc, place, uuid=f"GPU-{place}") for place, cc in enumerate(truth.capabilities)]
        more = {"platform": truth.platform, "driver_version": truth.driver, "cuda_driver": truth.cuda}
        only = Index("x", tuple(row for row in self.published.images if row.image == reference))
        answer = resolve(host(*cards, **more), only, Policy(gpu="all"), self.facts)
        (row,) = (row for row in ROWS if row["image"] == reference)
        document = host_document(*cards, **more)
        again = all(oracle.code_path(cc, document, row) is not None for cc in truth.capabilities)
        assert isinstance(answer, Plan) == again, (target, truth)
        return again


@pytest.fixture(scope="module")
def judge(facts: CudaFacts) -> Judge:
    return Judge(facts)


def landings(lock: Lock, nodes: list[tuple[dict[str, Any], Truth]]) -> list[tuple[str, str, Truth]]:
    """Every (class, node, truth) that the scheduler allows."""
    made = pods(lock)
    return [
        (row.name, document["metadata"]["name"], truth)
        for row in lock.classes
        for document, truth in nodes
        if may_land(made[row.name], document)
    ]


def test_ten_thousand_nodes_and_no_pod_where_its_image_does_not_run(facts: CudaFacts, judge: Judge) -> None:
    nodes = cluster(NODES, seed=1)
    plan = plan_of([document for document, _ in nodes], facts)
    lock = lock_of(plan)
    labelled([document for document, _ in nodes], lock)
    assert len(plan.classes) > 50
    assert len(plan.refused) > 1000
    images = {row.name: row.image for row in lock.classes}
    landed = landings(lock, nodes)
    wrong = [entry for entry in landed if not judge.runs(images[entry[0]].target, images[entry[0]].image, entry[2])]
    assert not wrong, wrong[:3]
    homes = {(name, node) for name, node, _ in landed}
    for row in plan.classes:
        for one in row.nodes:
            kept_away = one.cordoned or one.ready is False or any(taint.key == "dedicated" for taint in one.taints)
            bare = any("no nvidia.com resource" in note for note in one.kind.notes)
            assert ((row.name, one.name) in homes) != (kept_away or bare), (row.name, one)


def test_nodes_that_came_later_are_not_landed_on_wrongly_either(facts: CudaFacts, judge: Judge) -> None:
    lock = lock_of(plan_of([document for document, _ in cluster(NODES // 10, seed=2)], facts))
    later = cluster(NODES // 10, seed=3, sorts=tuple(sort for sort in SORTS if sort != "models"))
    images = {row.name: row.image for row in lock.classes}
    landed = landings(lock, later)
    assert len(landed) > 200
    wrong = [entry for entry in landed if not judge.runs(images[entry[0]].target, images[entry[0]].image, entry[2])]
    assert not wrong, wrong[:3]


@pytest.mark.parametrize("number", [16])
def test_the_test_would_see_a_wrong_term(facts: CudaFacts, judge: Judge, number: int) -> None:
    """The same with a class whose driver floor is forgotten: it must be found out."""
    from dataclasses import replace

    nodes = cluster(NODES // 10, seed=number)
    lock = lock_of(plan_of([document for document, _ in nodes], facts))
    careless = replace(lock, classes=tuple(replace(row, min_driver=None) for row in lock.classes))
    images = {row.name: row.image for row in lock.classes}
    assert any(not judge.runs(images[name].target, images[name].image, truth) for name, _, truth in landings(careless, nodes))
