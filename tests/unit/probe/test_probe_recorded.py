"""Recordings of whole machines: all readers must tell the same story, the one in host.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.core.host import HostFacts
from sdrun.probe.answer import Answer
from sdrun.probe.driver import parse_rows
from sdrun.probe.hostfile import read_host_facts
from sdrun.probe.smi import judge, parse_csv
from sdrun.probe.sysfs import read_driver_version, read_kernel_gpus

RECORDINGS = sorted(path.parent for path in (Path(__file__).parents[2] / "fixtures/probe").glob("*/host.json"))


@pytest.fixture(params=RECORDINGS, ids=lambda folder: folder.name)
def recording(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture
def host(recording: Path) -> HostFacts:
    return read_host_facts(recording / "host.json")


def only(recording: Path, probe: str) -> Answer:
    (answer,) = parse_rows((recording / f"{probe}.jsonl").read_text(encoding="utf-8"))
    return answer


def test_nvml(recording: Path, host: HostFacts) -> None:
    answer = only(recording, "nvml")
    assert (answer.gpus, answer.driver_version, answer.cuda_driver) == (host.gpus, host.driver_version, host.cuda_driver)
    assert answer.notes == ()


def test_libcuda(recording: Path, host: HostFacts) -> None:
    answer = only(recording, "libcuda")
    told = [(gpu.index, gpu.uuid, gpu.name, gpu.compute_capability) for gpu in answer.gpus]
    assert told == [(gpu.index, gpu.uuid, gpu.name, gpu.compute_capability) for gpu in host.gpus]
    assert answer.cuda_driver == host.cuda_driver
    for ours, full in zip(answer.gpus, host.gpus, strict=True):
        assert (
            0.97 * full.memory_mib < ours.memory_mib <= full.memory_mib
        )  # libcuda leaves out what the driver keeps for itself


def test_nvidia_smi(recording: Path, host: HostFacts) -> None:
    answer = judge(*parse_csv((recording / "smi.csv").read_text(encoding="utf-8")))
    assert (answer.gpus, answer.driver_version, answer.notes) == (host.gpus, host.driver_version, ())


def test_kernel(recording: Path, host: HostFacts) -> None:
    assert read_driver_version(recording) == host.driver_version
    listed = read_kernel_gpus(recording)
    assert [gpu.model for gpu in listed] == [gpu.name for gpu in host.gpus]
    assert all(told.uuid in (None, gpu.uuid) for told, gpu in zip(listed, host.gpus, strict=True))
