"""Facts from a file and from variables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdrun.catalog import jsonfile
from sdrun.core.capability import ComputeCapability
from sdrun.core.host import HostFacts, RuntimeFacts, from_json, to_json
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.errors import BadConfiguration
from sdrun.probe.detect import detect
from sdrun.probe.hostfile import read_host_facts
from sdrun.probe.overrides import apply_overrides, current_host

UUID = "GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21"
DOCUMENT: dict[str, object] = {
    "schema": "sdrun.host/v1",
    "platform": "linux/amd64",
    "driver_version": "580.159.04",
    "cuda_driver": "13.0",
    "gpus": [
        {"index": 0, "uuid": UUID, "name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "memory_mib": 81559, "mig": []}
    ],
    "wsl": False,
    "tegra": None,
    "runtime": None,
    "probe": "nvml",
}


@pytest.fixture
def host() -> HostFacts:
    return from_json(DOCUMENT)


def written(folder: Path, document: object) -> Path:
    path = folder / "host.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_file_round_trip(tmp_path: Path, host: HostFacts) -> None:
    assert read_host_facts(written(tmp_path, to_json(host))) == host


def gpu(**changes: object) -> dict[str, object]:
    gpus = DOCUMENT["gpus"]
    assert isinstance(gpus, list)
    return {**DOCUMENT, "gpus": [{**gpus[0], **changes}]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", "is not JSON"),
        ("{", "host.json:1: is not JSON"),
        ("[]", "(document)"),
        ("NaN", "NaN"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 5000, "host.json"),
        ({}, "schema"),
        ({**DOCUMENT, "schema": "sdrun.host/v9"}, "schema"),
        ({**DOCUMENT, "schema": 1}, "schema"),
        ({**DOCUMENT, "driver_version": "five"}, "driver_version"),
        ({**DOCUMENT, "driver_version": 580.159}, "driver_version"),
        ({**DOCUMENT, "cuda_driver": 13.0}, "cuda_driver"),
        ({**DOCUMENT, "gpus": None}, "gpus"),
        ({**DOCUMENT, "gpus": "H100"}, "gpus"),
        (gpu(compute_capability=9.0), "gpus[0].compute_capability"),
        (gpu(compute_capability="sm_90"), "gpus[0].compute_capability"),
        (gpu(memory_mib=-1), "gpus[0].memory_mib"),
        (gpu(memory_mib="80GB"), "gpus[0].memory_mib"),
        (gpu(uuid=None), "gpus[0].uuid"),
        (gpu(mig=[{"uuid": "MIG-1"}]), "gpus[0].mig[0].profile"),
    ],
)
def test_bad_files_name_file_and_key(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        read_host_facts(written(tmp_path, document))
    assert (caught.value.id, caught.value.exit_code) == ("bad-host-facts", 8)
    assert words in caught.value.message
    assert "host.json" in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.remedy


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfiguration, match="UTF-8"):
        read_host_facts(path)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", "a\0b"):
        with pytest.raises(BadConfiguration):
            read_host_facts(path)


def test_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonfile, "MAX_BYTES", 1 << 20)
    with pytest.raises(BadConfiguration, match="larger than 1 MiB"):
        read_host_facts(written(tmp_path, " " * ((1 << 20) + 1)))


def test_capability_contradicts_the_hardware(host: HostFacts) -> None:
    changed = apply_overrides(host, {"SDRUN_COMPUTE_CAPABILITY": "8.9"})
    assert changed.gpus[0].compute_capability == ComputeCapability(8, 9)
    assert changed.gpus[0].uuid == UUID
    assert "8.9 is taken for GPU 0 (NVIDIA H100 80GB HBM3), which says 9.0" in changed.notes[0]


def test_capability_that_agrees_is_silent(host: HostFacts) -> None:
    assert apply_overrides(host, {"SDRUN_COMPUTE_CAPABILITY": "9.0"}).notes == ()


def test_capability_without_gpu_invents_one() -> None:
    changed = apply_overrides(HostFacts("linux/amd64"), {"SDRUN_COMPUTE_CAPABILITY": "12.0"})
    (found,) = changed.gpus
    assert (found.uuid, found.compute_capability, found.memory_mib) == ("GPU-override", ComputeCapability(12, 0), 0)
    assert "No GPU was found" in changed.notes[0]
    assert from_json(to_json(changed)) == changed


def test_driver_contradicts_the_hardware_and_forgets_its_cuda(host: HostFacts) -> None:
    changed = apply_overrides(host, {"SDRUN_DRIVER_VERSION": "535.183.01"})
    assert (changed.driver_version, changed.cuda_driver) == (DriverVersion.parse("535.183.01"), None)
    assert "535.183.01 is taken; the running driver says 580.159.04" in changed.notes[0]


def test_driver_that_agrees_keeps_its_cuda(host: HostFacts) -> None:
    changed = apply_overrides(host, {"SDRUN_DRIVER_VERSION": "580.159.04"})
    assert (changed.cuda_driver, changed.notes) == (CudaVersion(13, 0), ())


@pytest.mark.parametrize("name", ["SDRUN_COMPUTE_CAPABILITY", "SDRUN_DRIVER_VERSION"])
@pytest.mark.parametrize("value", ["five", "9", "sm_90", "-1", "9.0; rm", "9,0"])
def test_bad_variables_are_named(host: HostFacts, name: str, value: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        apply_overrides(host, {name: value})
    assert (caught.value.id, caught.value.exit_code) == ("bad-host-facts", 8)
    assert caught.value.message.startswith(name)


def test_empty_variables_are_unset(host: HostFacts) -> None:
    assert apply_overrides(host, {"SDRUN_COMPUTE_CAPABILITY": "", "SDRUN_DRIVER_VERSION": " "}) == host


def test_current_host_from_file_says_what_differs(
    tmp_path: Path, make_root, host: HostFacts, driver_files: dict[str, str]
) -> None:
    path = written(tmp_path, {**DOCUMENT, "driver_version": "550.54.14", "platform": "linux/arm64"})
    runtime = RuntimeFacts("docker", "28.5.2")
    environ = {"SDRUN_HOST_FACTS": str(path), "SDRUN_COMPUTE_CAPABILITY": "8.9"}
    found = current_host(environ, runtime, make_root(driver_files))
    assert found.driver_version == DriverVersion.parse("550.54.14")
    assert found.runtime == runtime
    assert found.gpus[0].compute_capability == ComputeCapability(8, 9)
    text = "\n".join(found.notes)
    assert "not from this machine" in text
    assert "driver 550.54.14; this machine runs 580.159.04" in text
    assert "platform linux/arm64" in text
    assert "which says 9.0" in text


def test_current_host_keeps_the_files_runtime(tmp_path: Path, make_root) -> None:
    path = written(tmp_path, {**DOCUMENT, "runtime": {"name": "podman", "version": "5.0"}})
    found = current_host({"SDRUN_HOST_FACTS": str(path)}, RuntimeFacts("docker", "28.5.2"), make_root({}))
    assert found.runtime is not None
    assert found.runtime.name == "podman"


def test_current_host_without_variables_detects(make_root) -> None:
    root = make_root({})
    assert current_host({}, None, root) == detect(root, {})


def test_runtime_may_be_a_function(tmp_path: Path, make_root) -> None:
    calls: list[None] = []

    def ask() -> RuntimeFacts:
        calls.append(None)
        return RuntimeFacts("podman", "5.0")

    root = make_root({})
    path = written(tmp_path, DOCUMENT)
    for environ in ({}, {"SDRUN_HOST_FACTS": str(path)}):
        calls.clear()
        assert current_host(environ, ask, root).runtime == RuntimeFacts("podman", "5.0")
        assert len(calls) == 1


def test_detect_of_an_empty_root(make_root) -> None:
    runtime = RuntimeFacts("docker", "28.5.2")
    found = detect(make_root({}), {}, runtime)
    assert (found.gpus, found.driver_version, found.probe, found.notes) == ((), None, "none", ())
    assert found.runtime == runtime
    assert found.platform.startswith("linux/")


def test_detect_of_a_driver_without_libraries(make_root, driver_files: dict[str, str]) -> None:
    spec = "kind: nvidia.com/gpu\n- hostPath: /lib/libcuda.so.570.86.15\n"
    found = detect(make_root({**driver_files, "etc/cdi/nvidia.yaml": spec}), {})
    assert (found.probe, str(found.driver_version), found.gpus) == ("sysfs", "580.159.04", ())
    assert "SDRUN_COMPUTE_CAPABILITY" in found.notes[0]
    assert "570.86.15" in found.notes[1]


def test_detect_of_wsl_without_driver(make_root) -> None:
    found = detect(make_root({"dev/dxg": ""}), {})
    assert found.wsl
    assert "install NVIDIA's driver in Windows" in found.notes[0]
