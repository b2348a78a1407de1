"""From the machine's facts to a picture: published, chosen from the registry's index, pulled by digest, run through CDI."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdrun.catalog.selftest import pictures_dir, selftest
from sdrun.core.selftest import Difference, Probe
from tests.gpu.published import Shop, is_here
from tests.gpu.running import Sdrun, apart, containers, docker, first_container, request_of, smi
from tests.registries.server import Logged

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

Record = Callable[[str, object], None]
LAYER = 1_000_000  # bytes: an answer that large is a layer's


@pytest.fixture(scope="module")
def probe() -> Probe:
    """The model as it is: its recorded picture was drawn on a CPU, its bounds were measured between CPU and GPU."""
    return next(probe for probe in selftest().probes if probe.quick)


def asked_for(probe: Probe) -> tuple[str, ...]:
    """The words that draw it."""
    suite = selftest()
    size = ("-W", str(suite.size), "-H", str(suite.size), "--steps", str(suite.steps), "--seed", str(suite.seed))
    assert not probe.arguments
    return ("-m", suite.model, "-p", suite.prompt, *size)


def told(found: Difference) -> dict[str, float]:
    """For the record."""
    return {"mean": round(found.mean, 4), "worst": round(found.worst, 3)}


def test_the_facts_are_those_of_nvidia_smi(host: dict[str, Any], record_property: Record) -> None:
    rows = smi("index", "uuid", "name", "compute_cap", "memory.total", "driver_version")
    found = [
        [gpu["index"], gpu["uuid"], gpu["name"], gpu["compute_capability"], gpu["memory_mib"], host["driver_version"]]
        for gpu in host["gpus"]
    ]
    assert [list(map(str, row)) for row in found] == rows
    record_property("gpus", [gpu["name"] for gpu in host["gpus"]])
    record_property("probe", host["probe"])


def test_the_doctor_finds_no_fault(plan: dict[str, Any], sdrun: Sdrun, record_property: Record) -> None:
    checks = sdrun.answer("doctor")["checks"]
    assert [check for check in checks if check["status"] == "fail"] == []
    record_property("statuses", {check["name"]: check["status"] for check in checks})


def test_resolve_explains_from_the_registrys_index(
    shop: Shop, plan: dict[str, Any], sdrun: Sdrun, record_property: Record
) -> None:
    """One request answers it. Every published image is named, taken or not."""
    customer, begun = sdrun.pointed_to(SDRUN_REGISTRY=shop.repository), len(shop.asked())
    answer = customer.answer("resolve", "--explain")
    assert [(one.method, one.path, one.status) for one in shop.asked(begun)] == [
        ("GET", "/v2/team/sdrun/manifests/latest", 200)
    ]
    assert (answer["target"], answer["image"], answer["devices"]) == (shop.target, shop.reference, plan["devices"])
    assert {row["target"] for row in answer["candidates"]} == set(shop.digests)
    shown = customer("resolve", "--explain")
    assert shown.returncode == 0
    assert shop.target in shown.stdout
    record_property("code_path", answer["code_path"])
    record_property("candidates", {row["target"]: row["verdict"] for row in answer["candidates"]})


def test_generate_pulls_by_digest_and_draws_what_the_cpu_draws(
    shop: Shop, probe: Probe, sdrun: Sdrun, host: dict[str, Any], record_property: Record
) -> None:
    """The image is not here: its layers come from the registry. The recorded picture is a CPU's."""
    assert not is_here(shop.image)
    customer, begun = sdrun.pointed_to(SDRUN_REGISTRY=shop.repository), len(shop.asked())
    done = customer("generate", *asked_for(probe), "-o", "x.png", "--no-metadata", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert f"pulling {shop.reference}" in done.stderr
    assert docker("image", "inspect", "--format", "{{.Id}}", shop.reference) == shop.image  # what was built is what came back
    pulled = layers(shop.asked(begun))
    assert pulled, "no layer came from the registry"
    gpu = next(gpu for gpu in host["gpus"] if gpu["name"] in answer["device"])
    assert answer["device"] == f"CUDA0 {gpu['name']}"
    assert answer["code_path"] == "sass-exact"
    found = apart(sdrun.work / "x.png", pictures_dir() / probe.picture)
    assert found.within(probe.bounds["cuda"]), found
    again = customer.answer("generate", *asked_for(probe), "-o", "y.png", "--no-metadata")
    assert apart(sdrun.work / "x.png", sdrun.work / "y.png") == Difference(0, 0)
    record_property("from_the_cpus", told(found))
    record_property("bounds", told(probe.bounds["cuda"]))
    record_property("twice_the_same", True)
    record_property("layer_bytes_pulled", sum(one.size for one in pulled))
    record_property("seconds_with_pull", answer["seconds"])
    record_property("seconds_without", again["seconds"])


def layers(requests: list[Logged]) -> list[Logged]:
    """Those that fetched a layer."""
    return [one for one in requests if one.method == "GET" and "/blobs/" in one.path and one.size > LAYER]


def test_the_gpu_is_handed_over_by_uuid(plan: dict[str, Any], shop: Shop, sdrun: Sdrun, record_property: Record) -> None:
    """The running container's own configuration, as the daemon tells it: this GPU and no other, and nothing that opens it."""
    customer = sdrun.pointed_to(SDRUN_REGISTRY=shop.repository)
    argv = customer.argv("generate", "-m", "shapes", "-p", "a red circle", "--steps", "1000", "-o", "x.png")
    with first_container() as events:
        drawing = subprocess.Popen(argv, cwd=sdrun.work, env=customer.environ, stderr=subprocess.PIPE, text=True)
        try:
            assert events.stdout is not None  # it was asked for
            container = events.stdout.readline().strip()
            details = json.loads(docker("inspect", container))[0]
        finally:
            drawing.terminate()
            _, said = drawing.communicate(timeout=60)
    assert drawing.returncode == 130, said
    settings = details["HostConfig"]
    (request,) = settings["DeviceRequests"]
    assert tuple(request["DeviceIDs"]) == request_of(plan).devices
    assert request["Driver"] == ("cdi" if plan["gpu_access"] == "cdi" else "")
    assert (settings["NetworkMode"], settings["ReadonlyRootfs"], settings["CapDrop"]) == ("none", True, ["ALL"])
    assert not settings["Privileged"]
    assert details["Image"] == shop.image
    assert container[:12] not in " ".join(containers())
    record_property("gpu_access", plan["gpu_access"])
    record_property("devices_handed_over", len(request["DeviceIDs"]))


def test_a_picture_of_the_usual_size_is_the_cpus(shop: Shop, probe: Probe, sdrun: Sdrun, record_property: Record) -> None:
    """The shipped model as users draw with it, on both devices, within the same bounds."""
    if "cpu" not in shop.digests:
        pytest.skip("needs the cpu image beside the GPU's: sdrun build cpu")
    words = ("generate", "-m", "shapes", "-p", "a red circle left of a blue square", "--no-metadata")
    on_gpu = sdrun.pointed_to(SDRUN_REGISTRY=shop.repository).answer(*words, "-o", "gpu.png")
    on_cpu = sdrun.answer(*words, "-o", "cpu.png", "--gpu", "none", "--allow-cpu", "--image", "cpu")
    assert (on_gpu["device"].partition(" ")[0], on_cpu["device"]) == ("CUDA0", "cpu")
    found = apart(sdrun.work / "gpu.png", sdrun.work / "cpu.png")
    assert found.within(probe.bounds["cuda"]), found
    record_property("apart", told(found))
    record_property("seconds_on_the_gpu", on_gpu["seconds"])
    record_property("seconds_on_the_cpu", on_cpu["seconds"])


def test_a_first_picture_and_a_batch(shop: Shop, sdrun: Sdrun) -> None:
    """What reads a picture and what writes several, in the closed container with a GPU."""
    customer = sdrun.pointed_to(SDRUN_REGISTRY=shop.repository)
    customer.answer("generate", "-m", "shapes", "-p", "a green star", "-o", "one.png")
    words = ("-m", "shapes", "-p", "a green star", "-i", "one.png", "--strength", "0.5", "-b", "2", "-o", "more.png")
    answer = customer.answer("generate", *words)
    assert [Path(name).name for name in answer["files"]] == ["more_1.png", "more_2.png"]
    assert apart(sdrun.work / "more_1.png", sdrun.work / "more_2.png").mean > 0
