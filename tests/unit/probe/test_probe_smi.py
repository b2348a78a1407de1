"""nvidia-smi's CSV."""

from __future__ import annotations

import pytest

from sdrun.core.capability import ComputeCapability
from sdrun.core.version import DriverVersion
from sdrun.probe.smi import judge, parse_csv

UUID = "GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21"
H100 = f"0, {UUID}, NVIDIA H100 80GB HBM3, 9.0, 580.159.04, 81559\n"


def test_one_gpu() -> None:
    rows, other = parse_csv(H100)
    answer = judge(rows, other)
    assert answer.answered
    assert answer.driver_version == DriverVersion.parse("580.159.04")
    assert answer.cuda_driver is None
    assert answer.notes == ()
    (gpu,) = answer.gpus
    assert (gpu.index, gpu.uuid, gpu.compute_capability, gpu.memory_mib) == (0, UUID, ComputeCapability(9, 0), 81559)


def test_names_may_hold_commas() -> None:
    rows, _ = parse_csv(f"3, {UUID}, Graphics Device, rev. A, 8.9, 550.54.14, 24564")
    assert (rows[0].index, rows[0].name, rows[0].capability) == (3, "Graphics Device, rev. A", ComputeCapability(8, 9))


@pytest.mark.parametrize("missing", ["[N/A]", "[Not Supported]", "[Unknown Error]", "N/A", ""])
def test_fields_nvidia_smi_cannot_fill(missing: str) -> None:
    rows, other = parse_csv(f"0, {UUID}, {missing}, {missing}, {missing}, {missing}")
    assert (rows[0].capability, rows[0].driver, rows[0].memory_mib) == (None, None, None)
    assert "SDRUN_COMPUTE_CAPABILITY" in judge(rows, other).notes[0]


def test_unknown_memory_is_said() -> None:
    answer = judge(*parse_csv(f"0, {UUID}, Orin, 8.7, 540.3.0, [N/A]"))
    assert answer.gpus[0].memory_mib == 0
    assert "how much memory" in answer.notes[0]


def test_gpu_without_uuid() -> None:
    answer = judge(*parse_csv("0, [Unknown Error], NVIDIA H100, 9.0, 580.159.04, 81559"))
    assert answer.gpus == ()
    assert answer.driver_version is not None
    assert "no UUID" in answer.notes[0]


def test_lost_gpu_is_quoted() -> None:
    text = H100 + "Unable to determine the device handle for GPU0000:1A:00.0: Unknown Error\n"
    answer = judge(*parse_csv(text))
    assert len(answer.gpus) == 1
    assert "GPU0000:1A:00.0: Unknown Error" in answer.notes[0]


def test_same_uuid_twice() -> None:
    answer = judge(*parse_csv(H100 + H100.replace("0,", "1,", 1)))
    assert [gpu.index for gpu in answer.gpus] == [0]
    assert "has the UUID of GPU 0" in answer.notes[0]


def test_without_capability_column() -> None:
    rows, _ = parse_csv(f"0, {UUID}, Tesla K80, 470.82.01, 11441", with_capability=False)
    assert (rows[0].name, rows[0].capability, rows[0].memory_mib) == ("Tesla K80", None, 11441)
    assert rows[0].driver == DriverVersion.parse("470.82.01")


def test_human_output_is_no_row() -> None:
    rows, other = parse_csv("| NVIDIA-SMI 580.159.04   Driver Version: 580.159.04   CUDA Version: 13.0 |\n")
    assert rows == []
    assert len(other) == 1


def test_sixteen_gpus() -> None:
    text = "".join(f"{i}, {UUID[:-2]}{i:02}, NVIDIA H100 80GB HBM3, 9.0, 580.159.04, 81559\n" for i in range(16))
    assert [gpu.index for gpu in judge(*parse_csv(text)).gpus] == list(range(16))
