"""The self-test in the proof of an image, over a runtime that plays the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from selftesting import CUDA_IMAGE, CUDA_RUNTIME, HOST, engine, surround, with_gpu_image

from sdrun.core.selftest import NOT_RUN
from sdrun.errors import EngineFailed, RuntimeUnavailable
from sdrun.launch.selftest.proving import prove
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import LocalImage


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surround(tmp_path, monkeypatch)


@pytest.fixture
def runtime(fake_runtime: FakeRuntime) -> FakeRuntime:
    return with_gpu_image(fake_runtime)


def proven(image: LocalImage, runtime: FakeRuntime) -> tuple[str, list[str]]:
    said: list[str] = []
    return prove(image, runtime, said.append, lambda text: None), said


def test_a_cpu_image_is_drawn_with_on_the_cpu_also_where_there_is_a_gpu(runtime: FakeRuntime) -> None:
    runtime.script = engine("cpu")
    line, said = proven(runtime.local[0], runtime)
    assert "pictures are as recorded on cpu" in line
    assert len(said) == 1, "only that it is done; what is right is told to who asks for more"
    assert {spec.image for spec in runtime.specs} == {runtime.local[0].id}
    assert all(spec.gpu is None for spec in runtime.specs)


def test_a_cuda_image_is_drawn_with_on_the_gpu_that_it_is_for(runtime: FakeRuntime) -> None:
    runtime.script = engine("cuda")
    line, _ = proven(CUDA_IMAGE, runtime)
    assert "as recorded on CUDA0 NVIDIA L4" in line


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [(None, "No NVIDIA GPU"), ({"compute_capability": "9.0", "name": "NVIDIA H100"}, "9.0")],
)
def test_without_a_gpu_that_it_is_for_nothing_is_drawn_and_that_is_said(
    gpu: dict[str, str] | None, reason: str, runtime: FakeRuntime, tmp_path: Path
) -> None:
    gpus = [] if gpu is None else [{**HOST["gpus"][0], **gpu}]  # type: ignore[index]
    (tmp_path / "host.json").write_text(json.dumps({**HOST, "gpus": gpus}))
    line, _ = proven(CUDA_IMAGE, runtime)
    assert line.startswith(NOT_RUN)
    assert reason in line
    assert runtime.specs == []


def test_a_gpu_that_cannot_be_handed_over_is_said(runtime: FakeRuntime) -> None:
    runtime.reported = replace(CUDA_RUNTIME, cdi_devices=())
    line, _ = proven(CUDA_IMAGE, runtime)
    assert line.startswith(NOT_RUN)


def test_an_image_that_computes_wrongly_is_no_proof(runtime: FakeRuntime) -> None:
    runtime.script = engine("cuda", off="flash-attention")
    with pytest.raises(EngineFailed, match="flash attention is computed wrongly") as caught:
        proven(CUDA_IMAGE, runtime)
    assert (caught.value.id, caught.value.exit_code) == ("kernels-wrong", 9)


def test_another_engine_may_draw_other_pictures(runtime: FakeRuntime) -> None:
    labels = {**CUDA_IMAGE.labels, "io.sdrun.engine": "local-0123abc"}
    line, _ = proven(replace(CUDA_IMAGE, labels=labels), runtime)
    assert line.startswith(NOT_RUN)
    assert "sdcpp-90e87bc" in line
    assert "local-0123abc" in line
    assert runtime.specs == []


def test_a_runtime_that_is_gone_is_no_reason_to_pass(runtime: FakeRuntime) -> None:
    with pytest.raises(RuntimeUnavailable):
        proven(replace(CUDA_IMAGE, id=f"sha256:{'e' * 64}"), runtime)
