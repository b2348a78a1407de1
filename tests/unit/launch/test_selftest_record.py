"""`sdrun selftest --record-run`: the evidence that images with pruned libraries wait for."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from fatbins.files import docker_archive, elf, layer
from selftesting import CUDA_IMAGE, HOST, ON, SUITE, engine, surround, with_gpu_image

from sdrun.build import recording
from sdrun.catalog.gpu_runs import gpu_runs
from sdrun.catalog.selftest import pictures_dir
from sdrun.cli.main import main
from sdrun.core.capability import Arch
from sdrun.core.gpurun import awaited
from sdrun.core.host import MigSlice
from sdrun.core.labels import target_from_labels
from sdrun.core.selftest import Backend, Probe
from sdrun.errors import UsageProblem
from sdrun.launch.choosing import Fetching
from sdrun.launch.selftest import Result, run
from sdrun.launch.selftest.record import check_recordable, document
from sdrun.launch.watch import Listener
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

LIBRARY = elf({".text": b"pruned"})
DIGEST = hashlib.sha256(LIBRARY).hexdigest()
ROOTFS = {"usr/lib/x86_64-linux-gnu/libsdrun-cublas.so.12": LIBRARY}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surround(tmp_path, monkeypatch)
    monkeypatch.delenv("SDRUN_REGISTRY", raising=False)


@pytest.fixture
def runtime(fake_runtime: FakeRuntime) -> FakeRuntime:
    runtime = with_gpu_image(fake_runtime)
    runtime.script = engine("cuda")
    return runtime


@pytest.fixture
def call(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The program over that runtime, whose images are saved as one with a pruned library."""

    def save(image: LocalImage, archive: Path, asked: ContainerRuntime) -> None:
        archive.write_bytes(docker_archive([layer(dict(ROOTFS))]))

    monkeypatch.setattr("sdrun.runtime.connect", lambda wanted: runtime)
    monkeypatch.setattr(recording, "save_image", save)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdrun", "selftest", *arguments])
        ended = main()
        out, err = capsys.readouterr()
        return ended, out, err

    return call


def result_of(runtime: FakeRuntime, backend: Backend = "cuda", probes: tuple[Probe, ...] = SUITE.probes) -> Result:
    runtime.script = engine(backend)
    return run(SUITE, probes, ON[backend], Fetching(pull=False), Listener(), lambda: runtime, pictures_dir())


def test_the_row_is_one_that_the_catalogue_takes(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    ended, out, err = call("--image", CUDA_IMAGE.tags[0], "--record-run", "l4.json", "--cublas", "12.4.5.8")
    assert ended == 0, err
    file = tmp_path / "gpu_runs.yaml"
    file.write_text(f"schema: sdrun.gpu-runs/v1\nruns:\n{out}")
    (read,) = gpu_runs(file)
    assert (str(read.target), read.device, str(read.capability), read.library) == ("cu124-sm89", "NVIDIA L4", "8.9", DIGEST)
    assert read.evidence == "bench/results/l4.json"
    evidence = json.loads(Path("l4.json").read_text())
    assert evidence["schema"] == "sdrun.gpu-run/v1"
    assert evidence["run"]["driver"] == HOST["driver_version"]
    assert evidence["selftest"]["status"] == "ok"
    assert len(evidence["selftest"]["probes"]) == len(SUITE.probes)
    target = replace(target_from_labels({**CUDA_IMAGE.labels, "io.sdrun.cpu-level": "x86-64-v3"}), pruned=True)
    assert awaited(target, [read], DIGEST) == ()
    assert awaited(target, [read], "0" * 64) == (Arch(89),)


def test_wrong_kernels_are_not_recorded(runtime: FakeRuntime, call: Callable[..., tuple[int, str, str]]) -> None:
    runtime.script = engine("cuda", "flash-attention")
    ended, out, _ = call("--image", CUDA_IMAGE.tags[0], "--record-run", "l4.json", "--cublas", "12.4.5.8")
    assert (ended, out) == (9, "")
    assert not Path("l4.json").exists()


def test_an_image_without_pruned_library_has_nothing_to_record(
    call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROOTFS, "usr/lib/x86_64-linux-gnu/libcublas.so.12", LIBRARY)
    monkeypatch.delitem(ROOTFS, "usr/lib/x86_64-linux-gnu/libsdrun-cublas.so.12")
    ended, _, err = call("--image", CUDA_IMAGE.tags[0], "--record-run", "l4.json", "--cublas", "12.4.5.8")
    assert ended == 2
    assert "has no pruned library" in err
    assert not Path("l4.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--record-run", "l4.json"), "needs the version of cuBLAS"),
        (("--record-run", "l4.json", "--cublas", "12.4.5.8", "--quick"), "--quick draws one"),
        (("--record-run", "l4.json", "--cublas", "12"), "needs the version of cuBLAS, not '12'"),
        (("--record-run", "l4.txt", "--cublas", "12.4.5.8"), "is no .json file"),
        (("--record-run", "an l4.json", "--cublas", "12.4.5.8"), "is no .json file"),
        (("--record-run", "nowhere/l4.json", "--cublas", "12.4.5.8"), "is no .json file in a folder that is there"),
    ],
)
def test_what_cannot_be_recorded_is_known_before_anything_is_drawn(
    runtime: FakeRuntime, call: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], says: str
) -> None:
    ended, _, err = call("--image", CUDA_IMAGE.tags[0], *arguments)
    assert ended == 2
    assert says in err
    assert runtime.specs == []


def test_runs_that_prove_nothing_of_a_library(runtime: FakeRuntime) -> None:
    with pytest.raises(UsageProblem, match="it drew on the CPU"):
        check_recordable(result_of(runtime, "cpu"))
    with pytest.raises(UsageProblem, match="1 of 9 pictures"):
        check_recordable(result_of(runtime, probes=SUITE.probes[:1]))
    whole = result_of(runtime)
    check_recordable(whole)
    older = replace(whole.chosen, plan=replace(whole.chosen.plan, code_path="sass-compatible"))
    with pytest.raises(UsageProblem, match="sass-compatible"):
        check_recordable(replace(whole, chosen=older))


def test_a_slice_is_its_gpu(runtime: FakeRuntime) -> None:
    whole = result_of(runtime)
    slices = replace(whole.chosen.plan, devices=("MIG-1",))
    (gpu,) = whole.chosen.host.gpus
    host = replace(whole.chosen.host, gpus=(replace(gpu, mig=(MigSlice("MIG-1", "1g.10gb", 9856),)),))
    made = document(
        replace(whole, chosen=replace(whole.chosen, plan=slices, host=host)),
        DIGEST,
        "12.4.5.8",
        Path("x.json"),
        date(2026, 1, 2),
    )
    assert made["run"]["device"] == "NVIDIA L4"  # type: ignore[index]
    lost = replace(whole.chosen, plan=replace(whole.chosen.plan, devices=("GPU-9",)))
    with pytest.raises(UsageProblem, match="no GPU GPU-9"):
        document(replace(whole, chosen=lost), DIGEST, "12.4.5.8", Path("x.json"), date(2026, 1, 2))
