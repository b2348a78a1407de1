"""The doctor's check that draws a picture, over a runtime that plays the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from selftesting import CUDA_IMAGE, CUDA_RUNTIME, STARTED
from selftesting import HOST as GPU_HOST
from selftesting import engine as suite_engine

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.host import HostFacts, from_json
from sdrun.core.selftest import Backend
from sdrun.errors import RuntimeUnavailable
from sdrun.launch.doctor.computing import selftest as check
from sdrun.launch.doctor.surroundings import Surroundings
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit

RUNTIME = {"name": "docker", "version": "28.5.2", "cdi_devices": ["nvidia.com/gpu=GPU-1"], "nvidia_runtime": False}
HOST = {**GPU_HOST, "runtime": RUNTIME}


def engine(said: bytes = b"", levels: int = 0, exit: int = 0) -> Callable[[ContainerSpec], Script]:
    """Draws the picture so many levels off, saying this; or ends with that code."""
    backend: Backend = "cuda" if said else "cpu"

    def play(spec: ContainerSpec) -> Script:
        if exit:
            return Script((("stdout", said),), {}, Exit(exit, False, 0.5))
        return replace(suite_engine(backend, off="common", levels=levels)(spec), output=(("stdout", said),))

    return play


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`look(runtime, host document)`: what the check finds there."""
    for name in ("state", "cache"):
        monkeypatch.setenv(f"SDRUN_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)

    def make(runtime: ContainerRuntime | None, host: dict[str, object] | None = None, **more: object):  # type: ignore[no-untyped-def]
        document = host or HOST
        (tmp_path / "host.json").write_text(json.dumps(document))

        def open_runtime() -> ContainerRuntime:
            if runtime is None:
                raise RuntimeUnavailable("none is installed", "Install one.")
            return runtime

        def find_host(_: ContainerRuntime | None) -> HostFacts:
            return from_json(document)

        around = Surroundings.of(
            environ={"SDRUN_HOST_FACTS": str(tmp_path / "host.json")},
            open_runtime=open_runtime,
            find_host=find_host,
            find_cuda=load_cuda_facts,
            cache=tmp_path / "cache",
            state=tmp_path / "state",
            **more,  # type: ignore[arg-type]
        )
        return check(around)

    return make


@pytest.fixture
def runtime(fake_runtime: FakeRuntime) -> FakeRuntime:
    fake_runtime.local.append(CUDA_IMAGE)
    fake_runtime.reported = CUDA_RUNTIME
    return fake_runtime


def no_gpu() -> dict[str, object]:
    return {**HOST, "gpus": [], "driver_version": None, "cuda_driver": None}


def test_a_sound_gpu(look, runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    runtime.script = engine(STARTED)
    outcome = look(runtime)
    assert outcome.status == "ok", outcome
    assert "cu124-sm89 on CUDA0 NVIDIA L4 drew" in outcome.seen
    (spec,) = runtime.specs
    assert spec.gpu is not None


def test_without_a_gpu_the_cpu_image_is_tested(look, runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    runtime.script = engine()
    outcome = look(runtime, no_gpu())
    assert (outcome.status, outcome.exit_code) == ("ok", 0), outcome
    assert outcome.seen.startswith("cpu on cpu drew")


def test_a_picture_that_is_not_as_recorded(look, runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    runtime.script = engine(STARTED, levels=60)
    outcome = look(runtime)
    assert (outcome.status, outcome.exit_code) == ("fail", 9)
    assert outcome.remedy.startswith(f"sdrun selftest --image {CUDA_IMAGE.id}")


def test_exit_0_on_the_cpu_is_a_failure(look, runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    runtime.script = engine()
    outcome = look(runtime)
    assert (outcome.status, outcome.exit_code) == ("fail", 9)
    assert "CPU although a GPU was asked for" in outcome.seen


def test_an_engine_that_crashes(look, runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    runtime.script = engine(exit=134)
    assert (look(runtime).status, look(runtime).exit_code) == ("fail", 9)


def test_nothing_to_test(look, fake_runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    assert look(None).seen == "no container runtime"
    assert look(fake_runtime, from_file=True).seen == "the facts describe another host"
    assert look(fake_runtime).seen == "no image for this GPU (see above)"
    assert look(FakeRuntime(), no_gpu()).seen == "no GPU, and no image for the CPU here"
    assert fake_runtime.specs == []


def test_another_engine_is_not_judged_by_pictures_of_this_one(look, fake_runtime: FakeRuntime) -> None:  # type: ignore[no-untyped-def]
    labels = {**fake_runtime.local[0].labels, "io.sdrun.engine": "sdcpp-fffffff"}
    fake_runtime.local[:] = [replace(fake_runtime.local[0], labels=labels)]
    outcome = look(fake_runtime, no_gpu())
    assert outcome.status == "skip"
    assert "sdcpp-fffffff" in outcome.seen
    assert fake_runtime.specs == []


def test_a_store_that_cannot_be_written_is_another_checks_business(  # type: ignore[no-untyped-def]
    look, runtime: FakeRuntime, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("in the way")
    outcome = look(runtime)
    assert outcome.status == "skip"
    assert "cannot be drawn" in outcome.seen
