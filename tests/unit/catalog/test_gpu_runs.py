"""images/gpu_runs.yaml: recorded runs count for the GPUs and the bytes that ran, and every fault of a row is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.catalog.gpu_runs import gpu_runs
from sdrun.catalog.targets import targets
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.gpurun import awaited
from sdrun.core.target import Target
from sdrun.errors import BadConfiguration

ROOT = Path(__file__).parents[3]
LIBRARY = "a" * 64
ROW = {
    "target": "cu124-sm90",
    "platform": "linux/amd64",
    "engine": "sdcpp-90e87bc",
    "library": LIBRARY,
    "cublas": '"12.4.5.8"',
    "device": "NVIDIA H100 80GB HBM3",
    "compute_capability": '"9.0"',
    "driver": '"580.159.04"',
    "date": '"2026-11-23"',
    "selftest": '"9 pictures"',
    "evidence": "bench/results/run-cu124-sm90.json",
}


def written(folder: Path, *rows: dict[str, str], schema: str = "sdrun.gpu-runs/v1") -> Path:
    lines = ["  - {" + ", ".join(f"{name}: {value}" for name, value in row.items()) + "}" for row in rows]
    file = folder / "gpu_runs.yaml"
    file.write_text("\n".join([f"schema: {schema}", "runs:" if rows else "runs: []", *lines, ""]), encoding="utf-8")
    return file


def pruned(name: str) -> Target:
    return replace(next(row for row in targets().rows if row.name == name), pruned=True)


def test_what_is_recorded_has_its_evidence() -> None:
    for run in gpu_runs():
        assert (ROOT / run.evidence).is_file()


def test_a_run_counts_for_its_target_its_gpu_and_its_bytes(tmp_path: Path) -> None:
    runs = gpu_runs(written(tmp_path, ROW))
    assert runs[0].capability == ComputeCapability(9, 0)
    target = pruned("cu124-sm90")
    assert awaited(target, runs) == awaited(target, runs, LIBRARY) == ()
    assert awaited(target, ()) == (Arch(90),)
    assert awaited(target, runs, "b" * 64) == (Arch(90),), "other bytes are another library"
    assert awaited(target, runs, "") == (Arch(90),), "an image whose library nobody read"
    assert awaited(pruned("cu124-sm90-arm64"), runs) == (Arch(90),)
    assert awaited(pruned("cu118-sm90"), runs) == (Arch(90),)
    assert awaited(replace(target, pruned=False), ()) == ()


def test_every_arch_of_several_needs_a_run(tmp_path: Path) -> None:
    """An image for several archs waits for a GPU of each."""
    target = replace(pruned("cu124-multi"), ptx=())
    one = ROW | {"target": "cu124-multi"}
    runs = gpu_runs(written(tmp_path, one))
    assert awaited(target, runs) == (Arch(89),)
    other = one | {"compute_capability": '"8.9"', "device": "NVIDIA L4"}
    (tmp_path / "more").mkdir()
    assert awaited(target, gpu_runs(written(tmp_path / "more", one, other))) == ()


def test_none_is_recorded(tmp_path: Path) -> None:
    assert gpu_runs(written(tmp_path)) == ()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"target": "cu124"}, "must be a target id"),
        ({"target": "cpu"}, "cpu is not for 9.0"),
        ({"target": "cu124-sm89"}, "cu124-sm89 is not for 9.0"),
        ({"platform": "linux"}, "must be a platform"),
        ({"library": "sha256:aa"}, "must be 64 lower-case hex digits"),
        ({"cublas": '"12"'}, "must be a version such as"),
        ({"compute_capability": "9.0"}, "must be a string"),
        ({"compute_capability": '"9.7"'}, "capabilities.yaml does not know 9.7"),
        ({"driver": '"new"'}, "driver"),
        ({"date": '"23.11.2026"'}, "must be a date such as"),
        ({"evidence": "/tmp/x.json"}, "must be a file below bench/results"),
        ({"evidence": "bench/results/../x.json"}, "must be a file below bench/results"),
        ({"gpu": "H100"}, "is not a key here"),
    ],
)
def test_faults(tmp_path: Path, changes: dict[str, str], fault: str) -> None:
    with pytest.raises(BadConfiguration, match=rf"gpu_runs.yaml:3: .*{fault}"):
        gpu_runs(written(tmp_path, ROW | changes))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"must be 'sdrun\.gpu-runs/v1'"):
        gpu_runs(written(tmp_path, schema="sdrun.runs/v1"))
    with pytest.raises(BadConfiguration, match=r"gpu_runs.yaml:4: .*stands here a second time"):
        gpu_runs(written(tmp_path, ROW, ROW))
    (tmp_path / "gpu_runs.yaml").write_text("schema: sdrun.gpu-runs/v1\n", encoding="utf-8")
    gpu_runs.cache_clear()
    with pytest.raises(BadConfiguration, match="runs"):
        gpu_runs(tmp_path / "gpu_runs.yaml")
