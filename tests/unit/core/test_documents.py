"""Host facts, indexes and plans as documents: what is refused, and by which key."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from resolving.samples import CPU, gpu, host_document, image, index_document

from sdrun.core import host as host_facts
from sdrun.core import index as index_facts
from sdrun.core import plan as plans
from sdrun.core.decode import Malformed, describe
from sdrun.core.plan import EXIT_CODES, Refusal


def deep(levels: int = 100_000) -> list[Any]:
    """A list in a list in a list ..."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def put(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of `document` with `value` at a path such as `gpus.0.uuid`; `...` as value takes the key away."""
    document = copy.deepcopy(document)
    where: Any = document
    *parents, last = path.split(".")
    for name in parents:
        where = where[int(name)] if isinstance(where, list) else where[name]
    if value is ...:
        del where[last]
    else:
        where[int(last) if isinstance(where, list) else last] = value
    return document


HOST = host_document(gpu("8.9", 0, mig=(9856, 9856)), gpu("8.6", 1))
BAD_HOSTS = [
    ("schema", "sdrun.host/v2", "schema"),
    ("schema", 1, "schema"),
    ("schema", ..., "schema"),
    ("platform", "amd64", "platform"),
    ("platform", None, "platform"),
    ("platform", "Linux/AMD64", "platform"),
    ("driver_version", "five", "driver_version"),
    ("driver_version", 580.65, "driver_version"),
    ("driver_version", "580", "driver_version"),
    ("driver_version", "580.65.06.1", "driver_version"),
    ("driver_version", " 580.65.06", "driver_version"),
    ("driver_version", "9" * 5000, "driver_version"),
    ("driver_version", "580.65.06\n", "driver_version"),
    ("driver_version", "٥٨٠.65", "driver_version"),
    ("cuda_driver", 13.0, "cuda_driver"),
    ("cuda_driver", "13", "cuda_driver"),
    ("cuda_driver", 13, "cuda_driver"),
    ("gpus", ..., "gpus"),
    ("gpus", None, "gpus"),
    ("gpus", {}, "gpus"),
    ("gpus", "none", "gpus"),
    ("gpus.0", None, "gpus[0]"),
    ("gpus.1", [], "gpus[1]"),
    ("gpus.1", deep(), "gpus[1]"),
    ("gpus.1.index", "1", "gpus[1].index"),
    ("gpus.1.index", 1.0, "gpus[1].index"),
    ("gpus.1.index", True, "gpus[1].index"),
    ("gpus.1.index", -1, "gpus[1].index"),
    ("gpus.1.index", 0, "gpus"),
    ("gpus.1.uuid", "", "gpus[1].uuid"),
    ("gpus.1.uuid", "GPU-\x1b[31m", "gpus[1].uuid"),
    ("gpus.1.uuid", "GPU-\ud800", "gpus[1].uuid"),
    ("gpus.1.uuid", "MIG-0-0", "gpus"),
    ("gpus.1.name", "a\nb", "gpus[1].name"),
    ("gpus.1.name", ..., "gpus[1].name"),
    ("gpus.1.compute_capability", 8.6, "gpus[1].compute_capability"),
    ("gpus.1.compute_capability", "8,6", "gpus[1].compute_capability"),
    ("gpus.1.compute_capability", "sm_86", "gpus[1].compute_capability"),
    ("gpus.1.compute_capability", "8.10", "gpus[1].compute_capability"),
    ("gpus.1.memory_mib", -1, "gpus[1].memory_mib"),
    ("gpus.1.memory_mib", -(10**6000), "gpus[1].memory_mib"),
    ("gpus.1.memory_mib", "24 GB", "gpus[1].memory_mib"),
    ("gpus.1.memory_mib", float("nan"), "gpus[1].memory_mib"),
    ("gpus.0.mig", "yes", "gpus[0].mig"),
    ("gpus.0.mig.1", 7, "gpus[0].mig[1]"),
    ("gpus.0.mig.1.memory_mib", -5, "gpus[0].mig[1].memory_mib"),
    ("gpus.0.mig.1.uuid", "MIG-0-0", "gpus"),
    ("wsl", "no", "wsl"),
    ("wsl", 0, "wsl"),
    ("tegra", 36.4, "tegra"),
    ("tegra", "R36", "tegra"),
    ("runtime", "docker", "runtime"),
    ("runtime", [], "runtime"),
    ("runtime.name", "", "runtime.name"),
    ("runtime.version", 28, "runtime.version"),
    ("runtime.version", "28\x1b[2J", "runtime.version"),
    ("runtime.cdi_devices", "all", "runtime.cdi_devices"),
    ("runtime.cdi_devices.0", None, "runtime.cdi_devices[0]"),
    ("runtime.cdi_devices.0", "a\tb", "runtime.cdi_devices[0]"),
    ("runtime.nvidia_runtime", 1, "runtime.nvidia_runtime"),
    ("probe", 5, "probe"),
]


@pytest.mark.parametrize(("path", "value", "key"), BAD_HOSTS, ids=[f"{row[0]}-{n}" for n, row in enumerate(BAD_HOSTS)])
def test_bad_host_facts_name_the_key(path, value, key) -> None:
    with pytest.raises(Malformed) as caught:
        host_facts.from_json(put(HOST, path, value))
    assert caught.value.key == key
    assert len(str(caught.value)) < 250


INDEX = index_document(image("cu124-sm89", "86 89", "80"), CPU)
BAD_INDEXES = [
    ("schema", "sdrun.host/v1", "schema"),
    ("engine", None, "engine"),
    ("engine", "", "engine"),
    ("images", ..., "images"),
    ("images", "none", "images"),
    ("images.0", "cpu", "images[0]"),
    ("images.0.target", 5, "images[0].target"),
    ("images.0.target", "", "images[0].target"),
    ("images.0.target", "a\x00b", "images[0].target"),
    ("images.0.image", None, "images[0].image"),
    ("images.0.image", "x" * 5 + "\n", "images[0].image"),
    ("images.0.tag", 7, "images[0].tag"),
    ("images.0.platform", "linux", "images[0].platform"),
    ("images.0.toolkit", 12.4, "images[0].toolkit"),
    ("images.0.toolkit", 12, "images[0].toolkit"),
    ("images.0.toolkit", "cu124", "images[0].toolkit"),
    ("images.0.toolkit", None, "images[0].toolkit"),
    ("images.0.sass", "89", "images[0].sass"),
    ("images.0.sass.1", 89, "images[0].sass[1]"),
    ("images.0.sass.1", 8.9, "images[0].sass[1]"),
    ("images.0.sass.1", "8.9", "images[0].sass[1]"),
    ("images.0.sass.1", "sm_89", "images[0].sass[1]"),
    ("images.0.sass.1", "89b", "images[0].sass[1]"),
    ("images.0.ptx.0", None, "images[0].ptx[0]"),
    ("images.0.ptx", {}, "images[0].ptx"),
    ("images.0.fatbin_compression", "gzip", "images[0].fatbin_compression"),
    ("images.0.fatbin_compression", True, "images[0].fatbin_compression"),
    ("images.0.size_bytes", -1, "images[0].size_bytes"),
    ("images.0.size_bytes", 1.5, "images[0].size_bytes"),
    ("images.0.layers", "xz", "images[0].layers"),
    ("images.0.layers", 1, "images[0].layers"),
    ("images.0.gzip", 5, "images[0].gzip"),
    ("images.0.gzip_bytes", -1, "images[0].gzip_bytes"),
]


@pytest.mark.parametrize(("path", "value", "key"), BAD_INDEXES, ids=[f"{row[0]}-{n}" for n, row in enumerate(BAD_INDEXES)])
def test_bad_indexes_name_the_key(path, value, key) -> None:
    with pytest.raises(Malformed) as caught:
        index_facts.from_json(put(INDEX, path, value))
    assert caught.value.key == key
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("document", [None, [], "text", 5, deep(), True])
def test_what_is_no_object_at_all(document) -> None:
    for read in (host_facts.from_json, index_facts.from_json, plans.from_json):
        with pytest.raises(Malformed) as caught:
            read(document)
        assert caught.value.key == "(document)"


def test_hosts_and_indexes_round_trip() -> None:
    machine, rows = host_facts.from_json(HOST), index_facts.from_json(INDEX)
    assert json.loads(json.dumps(host_facts.to_json(machine))) == HOST
    assert json.loads(json.dumps(index_facts.to_json(rows))) == INDEX
    bare = host_facts.from_json(HOST | {"runtime": None, "driver_version": None, "cuda_driver": "12.4", "tegra": "36.4"})
    assert host_facts.from_json(host_facts.to_json(bare)) == bare


def test_unknown_keys_are_ignored_and_optional_ones_may_be_absent() -> None:
    bare = {"schema": "sdrun.host/v1", "platform": "linux/amd64", "gpus": [], "future": deep()}
    assert host_facts.from_json(bare) == host_facts.from_json(bare | {"runtime": None, "wsl": False, "probe": "none"})
    row = {"target": "cpu", "image": "r@sha256:0", "platform": "linux/amd64", "toolkit": None, "new": 1}
    assert index_facts.from_json(index_document(row)).images[0].is_cpu


def test_arm64_variant_v8_is_plain_arm64() -> None:
    assert host_facts.from_json(HOST | {"platform": "linux/arm64/v8"}).platform == "linux/arm64"
    assert host_facts.from_json(HOST | {"platform": "linux/arm/v7"}).platform == "linux/arm/v7"


def test_notes_travel_but_decide_nothing() -> None:
    noted = host_facts.from_json(HOST | {"notes": ["the CDI specification is stale"]})
    assert noted == host_facts.from_json(HOST)
    assert host_facts.to_json(noted)["notes"] == ["the CDI specification is stale"]


@pytest.mark.parametrize("notes", ["text", {}, 5, None, [5, "", "\ud800", "\x1b[2J", "a\nb"]])
def test_notes_are_no_key_of_the_schema_and_what_cannot_be_printed_is_left_out(notes) -> None:
    assert host_facts.from_json(HOST | {"notes": notes}).notes == ()


def test_archs_are_sorted_by_number_then_suffix_and_told_once() -> None:
    row = image("cu129-x") | {"sass": ["120f", "90", "120a", "90a", "120", "90"], "ptx": []}
    assert [str(arch) for arch in index_facts.from_json(index_document(row)).images[0].sass] == [
        "90",
        "90a",
        "120",
        "120a",
        "120f",
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 10**6, "'" + "x" * 57 + "'..."),
        (None, "null"),
        (True, "true"),
        (10**5000, "a number of more than 20 digits"),
        (12, "12"),
        (12.1, "12.1"),
        (deep(), "a list"),
        ({"a": deep()}, "an object"),
        (object, "type"),
    ],
    ids=["text", "null", "bool", "huge", "int", "float", "list", "object", "other"],
)
def test_a_wrong_value_is_shown_briefly(value, said) -> None:
    assert describe(value) == said


OK = {
    "schema": "sdrun.plan/v1",
    "status": "ok",
    "target": "cu124-sm89",
    "image": "r@sha256:0",
    "code_path": "sass-exact",
    "devices": ["GPU-1"],
    "gpu_access": "cdi",
    "rejected": [{"target": "cu130-sm89", "reason": "driver-too-old", "detail": "needs another"}],
}
REFUSED = {
    "schema": "sdrun.plan/v1",
    "status": "refused",
    "error": {"id": "driver-too-old", "exit_code": 5, "message": "No.", "remedy": "Do."},
    "rejected": [],
}


@pytest.mark.parametrize("document", [OK, REFUSED])
def test_plans_round_trip(document) -> None:
    assert json.loads(json.dumps(plans.from_json(document).to_json())) == document


@pytest.mark.parametrize(
    ("document", "path", "value", "key"),
    [
        (OK, "schema", "sdrun.plan/v2", "schema"),
        (OK, "status", "maybe", "status"),
        (OK, "code_path", "gpu", "code_path"),
        (OK, "gpu_access", None, "gpu_access"),
        (OK, "devices", "GPU-1", "devices"),
        (OK, "devices.0", 1, "devices[0]"),
        (OK, "rejected", ..., "rejected"),
        (OK, "rejected.0.reason", "because", "rejected[0].reason"),
        (REFUSED, "error", ..., "error"),
        (REFUSED, "error.id", "because", "error.id"),
        (REFUSED, "error.exit_code", 4, "error.exit_code"),
    ],
)
def test_bad_plans_name_the_key(document, path, value, key) -> None:
    with pytest.raises(Malformed) as caught:
        plans.from_json(put(document, path, value))
    assert caught.value.key == key


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {name: Refusal(name, "", "").exit_code for name in EXIT_CODES} == {  # type: ignore[arg-type]
        "platform-mismatch": 4,
        "no-code-for-capability": 4,
        "driver-too-old": 5,
        "ptx-newer-than-driver": 5,
        "fatbin-compression-newer-than-driver": 5,
        "arch-mismatch": 4,
        "jit-forbidden": 4,
        "cpu-not-allowed": 4,
        "no-gpu": 3,
        "gpu-not-found": 2,
        "gpu-access-unavailable": 6,
        "mixed-gpus": 4,
    }
