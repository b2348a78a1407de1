"""What NVML's and libcuda's answers mean, from the rows their child process prints."""

from __future__ import annotations

import json

import pytest

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import MigSlice
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.probe.driver import parse_libcuda, parse_nvml, parse_rows
from sdrun.probe.driver_reader import enough
from sdrun.probe.failures import cuda_failure, gpu_failure, nvml_failure

UUID = "GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21"
MIG_UUID = "MIG-2ac1f0e6-3a52-4b1e-9a55-1f4f3c0b7d21"


def gpu(index: int = 0, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "index": index,
        "uuid": UUID[:-1] + str(index),
        "name": "NVIDIA H100 80GB HBM3",
        "capability": [9, 0],
        "memory": 85520809984,
        "mig_mode": 0,
        "mig": [],
    }
    return {**row, **changes}


def nvml(*gpus: dict[str, object], **changes: object) -> dict[str, object]:
    row = {"probe": "nvml", "driver_version": "580.159.04", "cuda": 13000, "count": len(gpus), "gpus": list(gpus)}
    return {**row, **changes}


def test_one_gpu() -> None:
    answer = parse_nvml(nvml(gpu()))
    assert answer.answered
    assert answer.driver_version == DriverVersion.parse("580.159.04")
    assert answer.cuda_driver == CudaVersion(13, 0)
    assert answer.notes == ()
    (found,) = answer.gpus
    assert (found.index, found.uuid, found.name) == (0, UUID[:-1] + "0", "NVIDIA H100 80GB HBM3")
    assert (found.compute_capability, found.memory_mib, found.mig) == (ComputeCapability(9, 0), 81559, ())


def test_no_gpu_is_an_answer() -> None:
    answer = parse_nvml(nvml())
    assert answer.answered
    assert answer.gpus == ()


def test_lost_gpu_leaves_the_others_with_their_index() -> None:
    answer = parse_nvml(nvml(gpu(0), {"index": 1, "error": 15}, gpu(2)))
    assert [found.index for found in answer.gpus] == [0, 2]
    assert len(answer.notes) == 1
    assert answer.notes[0].startswith("GPU 1 ")
    assert "fallen off the bus" in answer.notes[0]


@pytest.mark.parametrize("field", ["uuid", "capability"])
def test_gpu_lost_after_its_handle_was_given(field: str) -> None:
    answer = parse_nvml(nvml(gpu(0, **{field: {"error": 15}}), gpu(1)))
    assert [found.index for found in answer.gpus] == [1]
    assert "fallen off the bus" in answer.notes[0]


@pytest.mark.parametrize("uuid", [None, "", "N/A", "GPU-", "GPU-6f2c1f0e", "GPU-zzzzzzzz-3a52-4b1e-9a55-1f4f3c0b7d21", 7])
def test_gpu_without_uuid_is_left_out(uuid: object) -> None:
    answer = parse_nvml(nvml(gpu(0, uuid=uuid), gpu(1)))
    assert [found.index for found in answer.gpus] == [1]
    assert "no UUID" in answer.notes[0]


@pytest.mark.parametrize("capability", [None, [], [9], [9, None], ["9", "x"], [9, 0, 0], [-1, 0], 9.0])
def test_gpu_without_capability_is_left_out(capability: object) -> None:
    answer = parse_nvml(nvml(gpu(capability=capability)))
    assert answer.gpus == ()
    assert "compute capability" in answer.notes[0]


def test_same_uuid_twice_keeps_the_first() -> None:
    answer = parse_nvml(nvml(gpu(0, uuid=UUID), gpu(1, uuid=UUID)))
    assert [found.index for found in answer.gpus] == [0]
    assert "has the UUID of GPU 0" in answer.notes[0]


def test_name_is_made_printable() -> None:
    (found,) = parse_nvml(nvml(gpu(name="\x1b[31mH100\n" + "x" * 500))).gpus
    assert found.name.startswith("[31mH100x")
    assert len(found.name) == 96


@pytest.mark.parametrize("name", [None, "", "\n", {"error": 999}])
def test_missing_name(name: object) -> None:
    (found,) = parse_nvml(nvml(gpu(name=name))).gpus
    assert found.name == "NVIDIA GPU"


@pytest.mark.parametrize("memory", [None, {"error": 3}, -1, "80GB", True])
def test_unknown_memory_is_zero_and_said(memory: object) -> None:
    answer = parse_nvml(nvml(gpu(memory=memory)))
    assert answer.gpus[0].memory_mib == 0
    assert "how much memory" in answer.notes[0]


def test_mig_devices() -> None:
    row = {"uuid": MIG_UUID, "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "memory": 9856 << 20}
    (found,) = parse_nvml(nvml(gpu(mig_mode=1, mig=[row, {"error": 15}, {"uuid": "garbage"}, row]))).gpus
    assert found.mig == (MigSlice(MIG_UUID, "1g.10gb", 9856),)


def test_mig_mode_without_devices_is_no_usable_gpu() -> None:
    answer = parse_nvml(nvml(gpu(mig_mode=1), gpu(1)))
    assert [found.index for found in answer.gpus] == [1]
    assert "nvidia-smi -i 0 -mig 0" in answer.notes[0]


@pytest.mark.parametrize("value", [{"error": 12}, None, "13.0", 13.0, 7, True])
def test_cuda_version_that_cannot_be_had(value: object) -> None:
    answer = parse_nvml(nvml(gpu(), cuda=value))
    assert answer.cuda_driver is None
    assert "CUDA version" in answer.notes[0]


@pytest.mark.parametrize("value", [{"error": 999}, "five", None, 580])
def test_driver_version_that_cannot_be_read(value: object) -> None:
    answer = parse_nvml(nvml(gpu(), driver_version=value))
    assert answer.driver_version is None
    assert len(answer.gpus) == 1
    assert "driver version" in answer.notes[0]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4, "may not talk to the NVIDIA driver"),
        (9, "modprobe nvidia"),
        (12, "libnvidia-ml.so.1 is missing"),
        (18, "different versions"),
        (17, "operating system"),
        (4242, "code 4242"),
        (999, "dmesg"),
    ],
)
def test_nvml_as_a_whole_fails(code: int, words: str) -> None:
    answer = parse_nvml({"probe": "nvml", "error": code})
    assert not answer.answered
    assert words in answer.notes[0]


def test_count_that_fails_is_no_answer_but_keeps_the_version() -> None:
    answer = parse_nvml(nvml(count={"error": 999}))
    assert not answer.answered
    assert answer.driver_version == DriverVersion.parse("580.159.04")


def test_every_code_makes_one_sentence() -> None:
    for code in range(-1, 1100):
        for text in (nvml_failure(code), cuda_failure(code), gpu_failure(3, "NVIDIA H100", code)):
            assert str(code) in text
            assert text.endswith(".")
            assert "{" not in text


def cuda_gpu(**changes: object) -> dict[str, object]:
    plain = UUID[4:].replace("-", "")
    row: dict[str, object] = {"index": 0, "uuid": plain, "instance": plain, "name": "Orin", "capability": [8, 7]}
    return {**row, "memory": 32895762432, "integrated": 1, **changes}


def test_libcuda() -> None:
    answer = parse_libcuda({"probe": "libcuda", "cuda": 12060, "count": 1, "gpus": [cuda_gpu()]})
    assert answer.answered
    assert answer.cuda_driver == CudaVersion(12, 6)
    (found,) = answer.gpus
    assert (found.uuid, found.compute_capability, found.memory_mib, found.mig) == (UUID, ComputeCapability(8, 7), 31371, ())


def test_libcuda_shows_a_mig_device_in_its_gpus_place() -> None:
    row = cuda_gpu(instance=MIG_UUID[4:].replace("-", ""), name="NVIDIA A100-SXM4-40GB MIG 2g.10gb", memory=9728 << 20)
    (found,) = parse_libcuda({"cuda": 13000, "count": 1, "gpus": [row]}).gpus
    assert found.uuid == UUID
    assert found.mig == (MigSlice(MIG_UUID, "2g.10gb", 9728),)


def test_libcuda_device_that_fails() -> None:
    answer = parse_libcuda({"cuda": 13000, "count": 2, "gpus": [{"index": 0, "error": 101}, cuda_gpu()]})
    assert [found.index for found in answer.gpus] == [1]
    assert "code 101" in answer.notes[0]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("missing", "libcuda.so.1 is missing"),
        (34, "stub"),
        (100, "no GPU"),
        (802, "fabricmanager"),
        (803, "restart"),
        (804, "compat"),
    ],
)
def test_libcuda_fails(code: object, words: str) -> None:
    answer = parse_libcuda({"probe": "libcuda", "error": code})
    assert not answer.answered
    assert words in answer.notes[0]


def test_rows_of_both_probes_between_noise() -> None:
    lines = ["noise", "[1]", "null", json.dumps({"probe": "nvml", "error": 12}), '{"probe": []}', "[" * 100_000]
    lines.append(json.dumps({"probe": "libcuda", "cuda": 13000, "count": 1, "gpus": [cuda_gpu()]}))
    assert [(answer.probe, answer.answered) for answer in parse_rows("\n".join(lines))] == [("nvml", False), ("libcuda", True)]


def test_first_row_of_a_probe_counts() -> None:
    text = json.dumps(nvml(gpu())) + "\n" + json.dumps({"probe": "nvml", "error": 9})
    assert parse_rows(text)[0].answered


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (nvml(gpu()), True),
        (nvml(), True),
        (nvml({"index": 0, "error": 15}), False),
        (nvml(gpu(uuid="N/A")), False),
        (nvml(gpu(capability={"error": 3})), False),
        (nvml(gpu(), {"index": 1, "error": 15}), True),
        (nvml(count={"error": 999}), False),
        ({"error": 12}, False),
    ],
)
def test_when_the_next_probe_is_asked(row: dict[str, object], expected: bool) -> None:
    assert enough(row) is expected
