"""The self-test over a runtime that plays the engine: a sound one, one with any kernel family broken, one on another device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selftesting import (
    ABORTED,
    DRAWN,
    FELL_BACK,
    HOST,
    ON,
    STARTED,
    SUITE,
    drawn,
    engine,
    probe_of,
    surround,
    with_gpu_image,
)

from sdrun.catalog.selftest import pictures_dir
from sdrun.core.selftest import BACKENDS, Backend, Difference, Probe, Reading
from sdrun.errors import EngineFailed, NoGpu, NotEnoughMemory, VerificationFailed
from sdrun.launch.choosing import Fetching
from sdrun.launch.selftest import Result, run
from sdrun.launch.selftest.report import line
from sdrun.launch.watch import Listener
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerSpec, Exit


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surround(tmp_path, monkeypatch)


@pytest.fixture
def runtime(fake_runtime: FakeRuntime) -> FakeRuntime:
    """With an image for the CPU and one for the GPU."""
    return with_gpu_image(fake_runtime)


def outcome_of(runtime: FakeRuntime, backend: Backend = "cpu", probes: tuple[Probe, ...] = SUITE.probes) -> Result:
    return run(SUITE, probes, ON[backend], Fetching(pull=False), Listener(), lambda: runtime, pictures_dir())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sound_engine(backend: Backend, runtime: FakeRuntime) -> None:
    runtime.script = engine(backend)
    told: list[Reading] = []
    result = run(SUITE, SUITE.probes, ON[backend], Fetching(), Listener(), lambda: runtime, pictures_dir(), tell=told.append)
    assert result.error() is None
    assert tuple(told) == result.readings
    assert {reading.difference for reading in told} == {Difference(0, 0)}
    document = json.loads(json.dumps(result.to_json()))
    assert (document["schema"], document["status"], document["error"]) == ("sdrun.selftest/v1", "ok", None)
    assert (document["backend"], document["device"]) == (backend, "cpu" if backend == "cpu" else "CUDA0 NVIDIA L4")
    assert set(document["cleared"]) == set(SUITE.families)
    assert f"{len(SUITE.probes)} pictures are as recorded" in result.summary()


def test_every_probe_is_a_run_like_any_other(runtime: FakeRuntime) -> None:
    runtime.script = engine("cuda")
    outcome_of(runtime, "cuda")
    assert [probe_of(spec)[0] for spec in runtime.specs] == list(SUITE.probes)
    for spec in runtime.specs:
        assert spec.network == "none"
        assert spec.gpu is not None
        assert spec.gpu.devices == ("nvidia.com/gpu=GPU-1",)
        assert [mount.target for mount in spec.mounts if not mount.read_only] == ["/out"]
        words = list(spec.command)
        assert words[words.index("--seed") + 1] == str(SUITE.seed)
        assert words[words.index("--prompt") + 1] == SUITE.prompt
    assert not list((Path.cwd() / "cache").glob("selftest-*")), "nothing is left behind"


@pytest.mark.parametrize("family", SUITE.families)
def test_names_the_family_that_is_off(family: str, runtime: FakeRuntime) -> None:
    backend: Backend = "cuda"
    runtime.script = engine(backend, off=family)
    result = outcome_of(runtime, backend)
    error = result.error()
    assert isinstance(error, EngineFailed)
    assert (error.id, error.exit_code) == ("kernels-wrong", 9)
    assert SUITE.families[family].title in error.message
    assert not [name for name in SUITE.families if name != family and SUITE.families[name].title in error.message]
    assert SUITE.families[family].avoid in error.remedy
    document = result.to_json()
    assert document["status"] == "failed"
    assert [*document["off"], *document["suspects"]] == [family]  # type: ignore[misc]
    assert document["error"] == {key: value for key, value in error.to_json().items() if key != "schema"}
    assert (error.detail or "").count("WRONG") == sum(family in probe.exercises[backend] for probe in SUITE.probes)


def test_within_the_bounds_is_sound_and_beyond_is_not(runtime: FakeRuntime) -> None:
    least = min(int(probe.bounds["cuda"].mean) for probe in SUITE.probes)
    runtime.script = engine("cuda", off="common", levels=least)
    assert outcome_of(runtime, "cuda").error() is None
    runtime.script = engine("cuda", off="common", levels=60)
    assert outcome_of(runtime, "cuda").error() is not None


def test_two_families_at_once(runtime: FakeRuntime) -> None:
    one, other = engine("cpu", off="q4_0-product"), engine("cpu", off="flash-attention")

    def play(spec: ContainerSpec) -> Script:
        return (one if "q4_0-product" in probe_of(spec)[0].exercises["cpu"] else other)(spec)

    runtime.script = play
    error = outcome_of(runtime).error()
    assert error is not None
    assert "Q4_0" in error.message
    assert "flash attention" in error.message
    assert "are computed wrongly" in error.message


def test_an_engine_that_aborts_in_one_probe_is_a_finding(runtime: FakeRuntime) -> None:
    def play(spec: ContainerSpec) -> Script:
        probe, name = probe_of(spec)
        if "q4_0-product" in probe.exercises["cpu"]:
            return Script((("stderr", ABORTED),), {}, Exit(134, False, 0.2))
        return Script((("stdout", DRAWN),), {name: drawn(probe)}, Exit(0, False, 0.5))

    runtime.script = play
    result = outcome_of(runtime)
    assert result.finding.off == ("q4_0-product",)
    failed = [reading for reading in result.readings if not reading.passed]
    assert all(reading.difference is None and reading.fault in line(reading) for reading in failed)
    statuses = {row["name"]: row["status"] for row in result.to_json()["probes"]}  # type: ignore[attr-defined]
    assert statuses["q4_0"] == "failed"
    assert statuses["f16"] == "ok"


def test_a_picture_of_another_size_is_wrong(runtime: FakeRuntime) -> None:
    def play(spec: ContainerSpec) -> Script:
        probe, name = probe_of(spec)
        return Script((("stdout", DRAWN),), {name: drawn(probe, size=64)}, Exit(0, False, 0.5))

    runtime.script = play
    readings = outcome_of(runtime).readings
    assert all("size" in reading.fault or "64x64" in reading.fault for reading in readings)
    assert not any(reading.passed for reading in readings)


def test_exit_0_on_the_cpu_where_a_gpu_was_asked_for_fails_at_once(runtime: FakeRuntime) -> None:
    def play(spec: ContainerSpec) -> Script:
        probe, name = probe_of(spec)
        return Script((("stdout", FELL_BACK + DRAWN),), {name: drawn(probe)}, Exit(0, False, 0.5))

    runtime.script = play
    with pytest.raises(EngineFailed) as caught:
        outcome_of(runtime, "cuda")
    assert caught.value.exit_code == 9
    assert len(runtime.specs) == 1


def test_another_gpu_than_the_chosen_one_fails_at_once(runtime: FakeRuntime) -> None:
    def play(spec: ContainerSpec) -> Script:
        probe, name = probe_of(spec)
        said = STARTED.replace(b"NVIDIA L4", b"NVIDIA A100-SXM4-40GB") + DRAWN
        return Script((("stdout", said),), {name: drawn(probe)}, Exit(0, False, 0.5))

    runtime.script = play
    with pytest.raises(EngineFailed) as caught:
        outcome_of(runtime, "cuda")
    assert caught.value.id == "wrong-gpu"


def test_what_is_no_fault_of_the_kernels_ends_the_test(runtime: FakeRuntime) -> None:
    runtime.script = Script((("stderr", b"CUDA error: out of memory\n"),), {}, Exit(1, False, 0.2))
    with pytest.raises(NotEnoughMemory):
        outcome_of(runtime, "cuda")


def test_no_gpu_is_no_selftest(runtime: FakeRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host.json").write_text(json.dumps({**HOST, "gpus": [], "driver_version": None, "cuda_driver": None}))
    with pytest.raises(NoGpu):
        outcome_of(runtime, "cuda")
    assert runtime.specs == []


def test_a_recorded_picture_that_is_damaged(runtime: FakeRuntime, tmp_path: Path) -> None:
    for name in {probe.picture for probe in SUITE.probes} | {"start.png"}:
        (tmp_path / name).write_bytes((pictures_dir() / name).read_bytes()[:-30])
    runtime.script = engine("cpu")
    with pytest.raises(VerificationFailed) as caught:
        run(SUITE, SUITE.probes, ON["cpu"], Fetching(), Listener(), lambda: runtime, tmp_path)
    assert (caught.value.id, caught.value.exit_code) == ("recorded-picture-damaged", 7)


def test_a_puzzle_is_told_as_one(runtime: FakeRuntime) -> None:
    """q4_k exercises nothing that q4_0 and the others do not, once its own products are left out."""
    readings = [Reading(probe, "cpu", Difference(0, 0)) for probe in SUITE.probes]
    again = Reading(SUITE.probes[-1], "cpu", Difference(50, 50))
    runtime.script = engine("cpu")
    result = outcome_of(runtime)
    puzzled = Result(SUITE, result.chosen, "cpu", "cpu", (*readings, again), 1.0)
    error = puzzled.error()
    assert error is not None
    assert "although each of its kernels" in error.message


def test_pictures_can_be_kept(runtime: FakeRuntime, tmp_path: Path) -> None:
    runtime.script = engine("cpu")
    run(SUITE, SUITE.probes, ON["cpu"], Fetching(), Listener(), lambda: runtime, pictures_dir(), keep=tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {f"{probe.name}.png" for probe in SUITE.probes}
