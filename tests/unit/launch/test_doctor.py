"""Each check in each of its outcomes, on hosts and runtimes that are values."""

from __future__ import annotations

import dataclasses
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core import host as hosts
from sdrun.core import index as indexes
from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu, HostFacts, RuntimeFacts
from sdrun.core.index import Index
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.errors import BadConfiguration, RuntimeUnavailable
from sdrun.launch.doctor import containers, host, places
from sdrun.launch.doctor.check import Check, Outcome, failed_by, to_json, worst
from sdrun.launch.doctor.registry import CHECKS, Item, examine
from sdrun.launch.doctor.surroundings import Surroundings
from sdrun.launch.doctor.survey import data_folder, docker_root, survey
from sdrun.runtime.fake import FakeRuntime, Script
from sdrun.runtime.protocol import ContainerRuntime, Exit, LocalImage

UUID = "GPU-11111111-2222-3333-4444-555555555555"
H100 = Gpu(0, UUID, "NVIDIA H100 80GB HBM3", hosts.ComputeCapability(9, 0), 81559)
CDI = RuntimeFacts("docker", "28.5.2", ("nvidia.com/gpu=all", f"nvidia.com/gpu={UUID}"))
GPU_HOST = HostFacts("linux/amd64", DriverVersion.parse("580.159.04"), CudaVersion(13, 0), (H100,), runtime=CDI, probe="nvml")
CPU_HOST = HostFacts("linux/amd64", runtime=RuntimeFacts("docker", "28.5.2"))
DEVICE = b"[INFO ] ggml_extend.hpp:63 -   Device 0: NVIDIA H100 80GB HBM3, compute capability 9.0, VMM: yes, VRAM: 81079 MiB\n"
NO_MODEL = b"[ERROR] stable-diffusion.cpp:299  - get sd version from file failed: '/no-model'\n"
CPU_FLAGS = "cmov syscall fpu cx8 fxsr mmx sse sse2 "
CPU_FLAGS += "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"


def row(target: str, toolkit: str | None, sass: tuple[str, ...] = (), ptx: tuple[str, ...] = (), **more: object) -> dict:
    compression = "none" if toolkit else None
    base = {"target": target, "image": f"r/sdrun@sha256:{target}", "platform": "linux/amd64", "toolkit": toolkit}
    return base | {"sass": list(sass), "ptx": list(ptx), "fatbin_compression": compression, "tag": f"e-{target}"} | more


def published(*rows: dict) -> Index:
    return indexes.from_json({"schema": "sdrun.index/v1", "engine": "e", "images": list(rows)})


PUBLISHED = published(row("cu124-sm90", "12.4", ("90",)), row("cu130-sm90", "13.0", ("90",)), row("cpu", None))


def local(target: str, id: str = "sha256:0", **labels: str) -> LocalImage:
    toolkit = {"cpu": "", "cu124-sm90": "12.4"}[target]
    own = {"io.sdrun.target": target, "io.sdrun.engine": "e", "io.sdrun.toolkit": toolkit}
    own |= {"io.sdrun.sass": "90", "io.sdrun.fatbin-compression": "none"} if toolkit else {}
    return LocalImage(id, (f"sdrun:e-{target}",), (f"r/sdrun@sha256:{target}",), own | labels, 1000, "linux/amd64")


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Surroundings]:
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\nflags\t\t: {CPU_FLAGS}\n")

    def make(facts: HostFacts = GPU_HOST, runtime: ContainerRuntime | None = None, **more: object) -> Surroundings:
        def find_host(_: ContainerRuntime | None) -> HostFacts:
            return facts

        def open_runtime() -> ContainerRuntime:
            if runtime is None:
                raise RuntimeUnavailable("no container runtime is installed", "Install one", id="runtime-missing")
            return runtime

        return Surroundings.of(
            **{
                "environ": {},
                "open_runtime": open_runtime,
                "find_host": find_host,
                "find_cuda": load_cuda_facts,
                "cache": tmp_path / "cache",
                "state": tmp_path / "state",
                "root": tmp_path,
                "published": PUBLISHED,
                "data_folder": lambda _: tmp_path,
                **more,
            }
        )

    return make


class TestRuntime:
    def test_ok(self, around) -> None:
        assert containers.runtime(around(runtime=FakeRuntime())) == Outcome("ok", "docker 28.5.2 answers")

    def test_missing(self, around) -> None:
        check = examine(around(), CHECKS[:1])[0]
        assert (check.status, check.exit_code, check.remedy) == ("fail", 6, "Install one")


class TestGpu:
    def test_ok(self, around) -> None:
        assert host.gpu(around()) == Outcome("ok", "NVIDIA H100 80GB HBM3 (9.0, 80 GiB); driver 580.159.04 (found by nvml)")

    def test_several_of_a_kind_are_counted(self, around) -> None:
        second = dataclasses.replace(H100, index=1, uuid="GPU-2")
        assert host.gpu(around(dataclasses.replace(GPU_HOST, gpus=(H100, second)))).seen.startswith("2 x NVIDIA H100")

    def test_none_on_a_host_without_driver(self, around) -> None:
        outcome = host.gpu(around(CPU_HOST))
        assert (outcome.status, outcome.exit_code) == ("fail", 3)
        assert "--allow-cpu" in outcome.remedy

    def test_driver_without_gpu_tells_what_the_probe_noticed(self, around) -> None:
        facts = dataclasses.replace(GPU_HOST, gpus=(), notes=("NVML failed with code 9: load it.",))
        outcome = host.gpu(around(facts))
        assert (outcome.status, outcome.exit_code) == ("fail", 3)
        assert "code 9" in outcome.seen
        assert "nvidia-smi" in outcome.remedy

    def test_gpu_without_driver(self, around) -> None:
        outcome = host.gpu(around(dataclasses.replace(GPU_HOST, driver_version=None)))
        assert (outcome.status, outcome.exit_code) == ("fail", 3)

    def test_note_is_a_warning(self, around) -> None:
        outcome = host.gpu(around(dataclasses.replace(GPU_HOST, notes=("GPU 1 (X) is left out, NVML code 15.",))))
        assert outcome.status == "warn"
        assert "left out" in outcome.seen

    def test_notes_that_other_checks_tell_are_no_warning_here(self, around) -> None:
        notes = ("The CDI spec /etc/cdi/a was made for driver 1.", "SDRUN_DRIVER_VERSION=1.2 is taken; no driver was found.")
        assert host.gpu(around(dataclasses.replace(GPU_HOST, notes=notes))).status == "ok"
        facts = dataclasses.replace(GPU_HOST, notes=("/f.json says driver 1.2; this machine runs none.",))
        environ = {"SDRUN_HOST_FACTS": "/f.json"}
        assert host.gpu(around(facts, environ=environ)).status == "ok"
        assert "this machine runs none" in host.overrides(around(facts, environ=environ)).seen


class TestDriver:
    def with_driver(self, version: str) -> HostFacts:
        return dataclasses.replace(GPU_HOST, driver_version=DriverVersion.parse(version), cuda_driver=None)

    def test_ok(self, around) -> None:
        assert host.driver(around()) == Outcome("ok", "580.159.04 serves 2 of 2 published images")

    def test_too_old_for_some(self, around) -> None:
        outcome = host.driver(around(self.with_driver("535.54.03")))
        assert outcome.status == "warn"
        assert outcome.seen == "535.54.03 serves 1 of 2 published images; cu130-sm90 needs NVIDIA driver 580.65.06"
        assert "580.65.06" in outcome.remedy

    def test_too_old_for_all(self, around) -> None:
        outcome = host.driver(around(self.with_driver("470.82")))
        assert (outcome.status, outcome.exit_code) == ("fail", 5)
        assert "525.60.13" in outcome.remedy

    def test_compression_and_ptx_raise_the_floor(self, around) -> None:
        index = published(
            row("cu124-sm90", "12.4", ("90",), fatbin_compression="zstd"), row("cu126-multi", "12.6", (), ("80",))
        )
        outcome = host.driver(around(self.with_driver("535.54.03"), published=index))
        assert outcome.status == "fail"
        assert "serves 0 of 2" in outcome.seen

    def test_no_update_beyond_the_last_branch_of_a_gpu(self, around) -> None:
        pascal = dataclasses.replace(GPU_HOST.gpus[0], compute_capability=ComputeCapability(6, 1))
        facts = dataclasses.replace(self.with_driver("580.65.06"), gpus=(pascal,))
        newer = row("cu132-multi", "13.2", (), ("50",))
        outcome = host.driver(around(facts, published=published(newer)))
        assert (outcome.status, outcome.exit_code) == ("fail", 5)
        assert "newer than any for this GPU" in outcome.seen
        assert "595" not in outcome.seen + outcome.remedy
        some = host.driver(around(facts, published=published(newer, row("cu124-sm61", "12.4", ("61",)))))
        assert some.status == "ok"
        assert some.seen.startswith("580.65.06 serves 1 of 2")

    def test_a_jetson_is_told_of_a_jetpack(self, around) -> None:
        orin = dataclasses.replace(GPU_HOST.gpus[0], compute_capability=ComputeCapability(8, 7))
        facts = dataclasses.replace(self.with_driver("540.4.0"), gpus=(orin,), tegra="36.4")
        outcome = host.driver(around(facts, published=published(row("cu130-sm87", "13.0", ("87",)))))
        assert outcome.remedy == "Install JetPack 7.2 (L4T 39) or newer."

    def test_images_of_the_own_store(self, around) -> None:
        own = dataclasses.replace(published(row("cu124-sm90", "12.4", ("90",))), published=False)
        assert host.driver(around(published=own)).seen == "580.159.04 serves 1 of 1 local images"

    def test_skipped_without_driver_or_index(self, around) -> None:
        assert host.driver(around(CPU_HOST)).status == "skip"
        assert host.driver(around(published=published(row("cpu", None)))).status == "skip"
        assert host.driver(around(published=None)).status == "skip"


class TestGpuAccess:
    def test_cdi(self, around) -> None:
        assert containers.gpu_access(around()) == Outcome("ok", f"by CDI: nvidia.com/gpu={UUID}")

    def test_nvidia_runtime(self, around) -> None:
        facts = dataclasses.replace(GPU_HOST, runtime=RuntimeFacts("docker", "20.10", nvidia_runtime=True))
        assert containers.gpu_access(around(facts)).status == "ok"

    def test_neither(self, around) -> None:
        facts = dataclasses.replace(GPU_HOST, runtime=RuntimeFacts("docker", "20.10"))
        outcome = containers.gpu_access(around(facts))
        assert (outcome.status, outcome.exit_code, outcome.remedy) == ("fail", 6, containers.CDI_REMEDY)

    def test_cdi_of_other_gpus_and_all(self, around) -> None:
        names = ("nvidia.com/gpu=all", "nvidia.com/gpu=GPU-other")
        facts = dataclasses.replace(GPU_HOST, runtime=RuntimeFacts("docker", "28.5", names))
        outcome = containers.gpu_access(around(facts))
        assert (outcome.status, outcome.remedy) == ("warn", containers.CDI_REMEDY)
        assert outcome.seen == "by CDI: nvidia.com/gpu=all; of single devices it names only nvidia.com/gpu=GPU-other"

    def test_cdi_of_other_gpus(self, around) -> None:
        facts = dataclasses.replace(GPU_HOST, runtime=RuntimeFacts("docker", "28.5", ("nvidia.com/gpu=GPU-other",)))
        outcome = containers.gpu_access(around(facts))
        assert (outcome.status, outcome.exit_code) == ("fail", 6)
        assert "not this host's" in outcome.seen

    @pytest.mark.parametrize(("nvidia_runtime", "status"), [(False, "fail"), (True, "warn")])
    def test_stale_spec(self, around, tmp_path: Path, nvidia_runtime: bool, status: str) -> None:
        (tmp_path / "etc/cdi").mkdir(parents=True)
        (tmp_path / "etc/cdi/nvidia.yaml").write_text(
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\ncontainerEdits:\n  mounts:\n"
            "  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.570.10\n"
        )
        names = () if nvidia_runtime else CDI.cdi_devices
        runtime = RuntimeFacts("docker", "28.5", names, nvidia_runtime=nvidia_runtime)
        outcome = containers.gpu_access(around(dataclasses.replace(GPU_HOST, runtime=runtime)))
        assert outcome.status == status
        assert "was made for driver 570.10, 580.159.04 is running" in outcome.seen
        assert outcome.remedy == containers.CDI_REMEDY
        given = around(dataclasses.replace(GPU_HOST, runtime=runtime), from_file=True)
        assert containers.gpu_access(given).status == "ok"

    def test_skipped(self, around) -> None:
        assert containers.gpu_access(around(CPU_HOST)).status == "skip"
        assert containers.gpu_access(around(dataclasses.replace(GPU_HOST, runtime=None))).status == "skip"


class TestImage:
    def test_winner_and_runner_up(self, around) -> None:
        assert containers.image(around()).seen == "cu130-sm90 (sass-exact), then cu124-sm90 (sass-exact)"

    def test_only_one(self, around) -> None:
        outcome = containers.image(around(published=published(row("cu124-sm90", "12.4", ("90",)))))
        assert outcome == Outcome("ok", "cu124-sm90 (sass-exact), no other would run")

    def test_jit_is_said(self, around) -> None:
        assert containers.image(around(published=published(row("cu124-multi", "12.4", (), ("80",))))).status == "warn"

    def test_compiled_code_is_told_where_it_is(self, around) -> None:
        image = f"r/sdrun@sha256:{'a' * 64}"
        surroundings = around(published=published(row("cu124-sm80", "12.4", (), ("80",), image=image)))
        outcome = containers.image(surroundings)
        assert "the driver compiles it on the first run" in outcome.seen
        folder = surroundings.cache / "jit" / f"580.159.04-cc9.0-{'a' * 64}"
        (folder / "cache").mkdir(parents=True)
        with (folder / "cache" / "code").open("wb") as code:
            code.truncate(41_000_000)
        assert containers.image(surroundings) == outcome  # no run has ended well
        (folder / "record.json").write_text("{}")
        told = containers.image(surroundings)
        assert (told.status, told.remedy) == ("warn", outcome.remedy)
        assert told.seen.endswith(f"what the driver compiled of it is kept: 41 MB in {folder}")

    def test_refusal_keeps_its_exit_code(self, around) -> None:
        outcome = containers.image(around(published=published(row("cu124-sm89", "12.4", ("89",)))))
        assert (outcome.status, outcome.exit_code) == ("fail", 4)
        facts = dataclasses.replace(GPU_HOST, driver_version=DriverVersion.parse("470.82"), cuda_driver=None)
        assert containers.image(around(facts)).exit_code == 5

    def test_no_image_at_all(self, around) -> None:
        for more in ({"published": published()}, {"published": None, "runtime": FakeRuntime()}):
            outcome = containers.image(around(**more))
            assert (outcome.status, outcome.exit_code) == ("fail", 4)
            assert outcome.remedy.startswith("sdrun build cpu")

    def test_nothing_to_look_at(self, around) -> None:
        assert containers.image(around(published=None)).status == "skip"

    def test_cpu_host(self, around) -> None:
        assert containers.image(around(CPU_HOST)).status == "skip"
        outcome = containers.image(around(CPU_HOST, published=published(row("cu124-sm90", "12.4", ("90",)))))
        assert (outcome.status, outcome.remedy) == ("fail", "sdrun build cpu")

    def test_local_images_are_the_index_where_none_is_named(self, around) -> None:
        broken = local("cpu", "sha256:2", **{"io.sdrun.toolkit": "12.4"})
        runtime = FakeRuntime(local=[local("cu124-sm90"), broken])
        assert containers.image(around(runtime=runtime, published=None)).seen.startswith("cu124-sm90 (sass-exact)")


class TestContainer:
    def test_runs_the_engine_shut_off(self, around) -> None:
        runtime = FakeRuntime(local=[local("cpu"), local("cu124-sm90", "sha256:1")])
        outcome = containers.container(around(runtime=runtime))
        assert outcome.status == "ok"
        (spec,) = runtime.specs
        assert (spec.image, spec.command, spec.network, spec.gpu, spec.mounts) == ("sha256:0", ("--version",), "none", None, ())

    def test_engine_that_fails(self, around) -> None:
        runtime = FakeRuntime(Script(exit=Exit(132, False, 0.1)), local=[local("cpu")])
        outcome = containers.container(around(runtime=runtime))
        assert (outcome.status, outcome.exit_code) == ("fail", 9)
        assert "SIGILL" in outcome.seen

    def test_start_that_fails_is_told_in_the_runtimes_words(self, around) -> None:
        error = RuntimeUnavailable("it cannot be started", "?", id="runtime-failed", detail="exec format error")
        runtime = FakeRuntime(Script(start_error=error), local=[local("cpu")])
        outcome = containers.container(around(runtime=runtime))
        assert (outcome.status, outcome.exit_code) == ("fail", 4)
        unknown = RuntimeUnavailable("it cannot be started", "?", id="runtime-failed", detail="the moon")
        runtime = FakeRuntime(Script(start_error=unknown), local=[local("cpu")])
        assert containers.container(around(runtime=runtime)) == Outcome("fail", "it cannot be started", "?", 6)

    def test_skipped(self, around) -> None:
        assert containers.container(around()).status == "skip"
        assert containers.container(around(runtime=FakeRuntime())).status == "skip"
        assert containers.container(around(runtime=FakeRuntime(local=[local("cu124-sm90")]))).status == "skip"
        other = FakeRuntime(local=[dataclasses.replace(local("cpu"), platform="linux/arm64")])
        assert containers.container(around(runtime=other)).status == "skip"


class TestGpuContainer:
    def outcome(self, around, script: Script, **more: object) -> tuple[Outcome, FakeRuntime]:
        runtime = FakeRuntime(script, local=[local("cu124-sm90")])
        index = published(row("cu124-sm90", "12.4", ("90",)))
        return containers.gpu_container(around(runtime=runtime, published=index, **more)), runtime

    def test_engine_names_the_gpu(self, around) -> None:
        script = Script((("stdout", DEVICE), ("stderr", NO_MODEL)), exit=Exit(1, False, 0.5))
        outcome, runtime = self.outcome(around, script)
        assert outcome == Outcome("ok", "cu124-sm90 sees NVIDIA H100 80GB HBM3 (9.0) by cdi")
        (spec,) = runtime.specs
        assert (spec.gpu.access, spec.gpu.devices) == ("cdi", (f"nvidia.com/gpu={UUID}",))

    def test_engine_sees_none(self, around) -> None:
        outcome, _ = self.outcome(around, Script((("stderr", NO_MODEL),), exit=Exit(1, False, 0.5)))
        assert (outcome.status, outcome.exit_code) == ("fail", 6)

    def test_reason_is_told(self, around) -> None:
        line = b"ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version\n"
        outcome, _ = self.outcome(around, Script((("stderr", line),), exit=Exit(1, False, 0.5)))
        assert (outcome.status, outcome.exit_code) == ("fail", 5)

    def test_libcuda_missing(self, around) -> None:
        line = b"sd-cli: error while loading shared libraries: libcuda.so.1: cannot open shared object file\n"
        outcome, _ = self.outcome(around, Script((("stderr", line),), exit=Exit(127, False, 0.1)))
        assert (outcome.status, outcome.exit_code) == ("fail", 6)

    def test_start_refused(self, around) -> None:
        words = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1"
        error = RuntimeUnavailable("cannot be started", "?", id="gpu-access-unavailable", detail=words)
        outcome, _ = self.outcome(around, Script(start_error=error))
        assert (outcome.status, outcome.exit_code, outcome.remedy) == ("fail", 6, containers.CDI_REMEDY)

    def test_narrowed_by_cuda_visible_devices(self, around) -> None:
        second = dataclasses.replace(H100, index=1, uuid="GPU-2", memory_mib=1000)
        only_all = RuntimeFacts("docker", "28.5", ("nvidia.com/gpu=all",))
        facts = dataclasses.replace(GPU_HOST, gpus=(H100, second), runtime=only_all)
        _, runtime = self.outcome(around, Script((("stdout", DEVICE),), exit=Exit(1, False, 0.5)), facts=facts)
        assert runtime.specs[0].environment == {"CUDA_VISIBLE_DEVICES": UUID}

    def test_skipped(self, around) -> None:
        assert containers.gpu_container(around(CPU_HOST)).status == "skip"
        assert containers.gpu_container(around(from_file=True)).status == "skip"
        assert containers.gpu_container(around()).status == "skip"
        assert containers.gpu_container(around(runtime=FakeRuntime())).seen == "cu130-sm90 is not here yet"
        assert containers.gpu_container(around(published=published(), runtime=FakeRuntime())).status == "skip"


class TestProcessor:
    def test_ok(self, around) -> None:
        assert host.processor(around()) == Outcome("ok", "x86-64-v3, images need x86-64-v3")

    def test_too_old(self, around, tmp_path: Path) -> None:
        (tmp_path / "proc/cpuinfo").write_text("flags : " + CPU_FLAGS.replace("avx2 ", ""))
        outcome = host.processor(around())
        assert (outcome.status, outcome.exit_code) == ("fail", 9)
        assert "x86-64-v2" in outcome.seen
        assert "lacks avx2" in outcome.seen

    def test_ancient(self, around, tmp_path: Path) -> None:
        (tmp_path / "proc/cpuinfo").write_text("flags : fpu")
        assert "below x86-64" in host.processor(around()).seen

    def test_skipped(self, around, tmp_path: Path) -> None:
        assert host.processor(around(from_file=True)).status == "skip"
        (tmp_path / "proc/cpuinfo").write_text("Features : asimd")
        assert host.processor(around()).status == "skip"


class TestMachine:
    def test_plain(self, around) -> None:
        assert host.machine(around()) == Outcome("ok", "linux/amd64, neither WSL2 nor Jetson")

    def test_wsl(self, around) -> None:
        assert host.machine(around(dataclasses.replace(GPU_HOST, wsl=True))).status == "ok"
        outcome = host.machine(around(dataclasses.replace(CPU_HOST, wsl=True)))
        assert outcome.status == "warn"
        assert "wsl --shutdown" in outcome.remedy

    def test_tegra(self, around) -> None:
        assert "CUDA 12.6" in host.machine(around(dataclasses.replace(GPU_HOST, tegra="36.4"))).seen
        assert host.machine(around(dataclasses.replace(GPU_HOST, tegra="1.0"))).status == "warn"


class TestOverrides:
    def test_none(self, around) -> None:
        assert host.overrides(around(environ={"PATH": "/bin"})) == Outcome("ok", "none set")

    def test_harmless_ones_are_said(self, around) -> None:
        outcome = host.overrides(around(environ={"SDRUN_RUNTIME": "podman", "CUDA_VISIBLE_DEVICES": "0"}))
        assert outcome == Outcome("ok", "SDRUN_RUNTIME=podman, CUDA_VISIBLE_DEVICES=0")

    def test_facts_set_by_hand_are_said_aloud(self, around) -> None:
        facts = dataclasses.replace(GPU_HOST, notes=("SDRUN_DRIVER_VERSION=550.1 is taken; the running driver says 580.1.",))
        outcome = host.overrides(around(facts, environ={"SDRUN_DRIVER_VERSION": "550.1"}))
        assert outcome.status == "warn"
        assert "the running driver says 580.1" in outcome.seen
        assert outcome.remedy == "unset SDRUN_DRIVER_VERSION"

    def test_typing_mistake(self, around) -> None:
        outcome = host.overrides(around(environ={"SDRUN_REGISTERY": "x"}))
        assert (outcome.status, outcome.remedy) == ("warn", "unset SDRUN_REGISTERY")

    def test_bad_value(self, around) -> None:
        def find(_: object) -> HostFacts:
            raise BadConfiguration("SDRUN_DRIVER_VERSION: must be a version", "Correct it.", id="bad-host-facts")

        outcome = host.overrides(around(environ={"SDRUN_DRIVER_VERSION": "five"}, find_host=find))
        assert (outcome.status, outcome.exit_code) == ("fail", 8)


class TestDisk:
    def free(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        usage = SimpleNamespace(free=count)
        monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage)

    def test_enough(self, around, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.free(monkeypatch, 100 * places.GIB)
        here = around(runtime=FakeRuntime())
        assert places.disk_images(here) == Outcome("ok", f"100.0 GiB free at {tmp_path}")
        assert places.disk_models(here).status == "ok"

    def test_too_little_for_the_chosen_image(self, around, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free(monkeypatch, places.GIB)
        index = published(row("cu124-sm90", "12.4", ("90",), size_bytes=600 << 20))
        outcome = places.disk_images(around(runtime=FakeRuntime(), published=index))
        assert (outcome.status, outcome.exit_code) == ("fail", 10)
        assert "cu124-sm90 needs 2.3 GiB" in outcome.seen
        have = FakeRuntime(local=[local("cu124-sm90")])
        assert places.disk_images(around(runtime=have, published=index)).status == "ok"

    def test_a_reference_that_is_none_is_an_image_that_is_not_here(
        self, around, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        class Strict(FakeRuntime):
            def image(self, reference: str) -> LocalImage | None:
                raise RuntimeUnavailable("that is not the name of an image", "?", id="runtime-failed")

        self.free(monkeypatch, 100 * places.GIB)
        assert places.disk_images(around(runtime=Strict())).status == "ok"

    def test_little_and_none_for_models(self, around, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free(monkeypatch, 2 * places.GIB)
        assert places.disk_models(around()).status == "warn"
        self.free(monkeypatch, 1 << 20)
        outcome = places.disk_models(around())
        assert (outcome.status, outcome.exit_code) == ("fail", 10)

    def test_models_on_a_disk_of_their_own(self, around, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "big").mkdir()
        free = {str(tmp_path / "big"): 1 << 20, str(tmp_path): 100 * places.GIB}
        monkeypatch.setattr(places.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[str(path)]))
        assert places.disk_models(around(environ={})).status == "ok"
        outcome = places.disk_models(around(environ={"SDRUN_MODELS_DIR": str(tmp_path / "big/models")}))
        assert (outcome.status, outcome.exit_code) == ("fail", 10)
        assert outcome.remedy.endswith(f"du -sh {tmp_path / 'big/models'}/*")

    def test_disk_that_cannot_be_looked_at(self, around, monkeypatch: pytest.MonkeyPatch) -> None:
        def gone(_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(places.shutil, "disk_usage", gone)
        assert places.disk_models(around()).status == "warn"

    def test_runtime_elsewhere(self, around) -> None:
        assert places.disk_images(around()).status == "skip"
        assert places.disk_images(around(runtime=FakeRuntime(), data_folder=lambda _: None)).status == "skip"

    def test_where_docker_keeps_its_images(self, tmp_path: Path) -> None:
        assert docker_root(tmp_path) == Path("/var/lib/docker")
        (tmp_path / "etc/docker").mkdir(parents=True)
        (tmp_path / "etc/docker/daemon.json").write_text('{"data-root": "/big/docker"}')
        assert docker_root(tmp_path) == Path("/big/docker")
        (tmp_path / "etc/docker/daemon.json").write_text("[]")
        assert docker_root(tmp_path) == Path("/var/lib/docker")
        assert data_folder(FakeRuntime(), {}) is None


class TestCache:
    def test_not_made_yet(self, around, tmp_path: Path) -> None:
        assert places.cache(around()) == Outcome("ok", f"{tmp_path}/cache is made on first use")

    def test_there(self, around, tmp_path: Path) -> None:
        (tmp_path / "cache/models").mkdir(parents=True)
        assert places.cache(around()).seen.endswith("is yours and can be written")

    def test_file_in_the_way(self, around, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("")
        outcome = places.cache(around())
        assert (outcome.status, outcome.exit_code) == ("fail", 2)

    def test_not_writable(self, around, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(places.os, "access", lambda *_: False)
        outcome = places.cache(around())
        assert (outcome.status, outcome.exit_code) == ("fail", 2)
        assert outcome.remedy.startswith("sudo chown")

    def test_folder_of_another_user(self, around, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "cache/models").mkdir(parents=True)
        owner = tmp_path.stat().st_uid
        monkeypatch.setattr(places.os, "getuid", lambda: owner + 1)
        outcome = places.cache(around())
        assert (outcome.status, outcome.exit_code) == ("fail", 2)

    def test_state_folder_costs_the_logs_only(self, around, tmp_path: Path) -> None:
        assert places.state(around()).status == "ok"
        (tmp_path / "state").write_text("")
        outcome = places.state(around())
        assert (outcome.status, outcome.exit_code) == ("warn", 0)
        assert "no logs" in outcome.seen


class Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestRegistry:
    @pytest.mark.parametrize(("code", "status"), [(200, "ok"), (401, "ok"), (404, "ok"), (503, "fail")])
    def test_answers(self, around, registry, code: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        registry.answer = code
        outcome = places.registry(around(registry=f"127.0.0.1:{registry.server_port}/team/sdrun"))
        assert outcome.status == status
        assert f"({code})" in outcome.seen

    @pytest.mark.parametrize("name", ["127.0.0.1:1/sdrun", "localhost:1/sdrun", "[::1]:1/sdrun"])
    def test_unreachable(self, around, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "*")
        outcome = places.registry(around(registry=name))
        assert (outcome.status, outcome.exit_code) == ("fail", 7)
        assert name.removesuffix("/sdrun") in outcome.seen

    @pytest.mark.parametrize("name", ["no such host/sdrun", "[::1", "\x00", "https://registry.example/sdrun"])
    def test_a_name_that_is_none(self, around, name: str) -> None:
        outcome = places.registry(around(registry=name))
        assert (outcome.status, outcome.exit_code) == ("fail", 8)
        assert outcome.seen.startswith("registry: must be")

    def test_an_authority_of_its_own_that_cannot_be_read(self, around, tmp_path: Path) -> None:
        folder = tmp_path / "docker/certs.d/127.0.0.1:1"
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_text("none")
        outcome = places.registry(around(registry="127.0.0.1:1/sdrun", environ={"XDG_CONFIG_HOME": str(tmp_path)}))
        assert (outcome.status, outcome.exit_code) == ("fail", 8)
        assert "ca.crt cannot be used" in outcome.seen

    def test_none_named(self, around) -> None:
        assert places.registry(around()).status == "skip"


class TestClock:
    @pytest.mark.parametrize(
        ("now", "status"),
        [
            (datetime(1970, 1, 1, tzinfo=UTC), "fail"),
            (datetime(2025, 1, 2, tzinfo=UTC), "fail"),
            (datetime(2099, 1, 1, tzinfo=UTC), "ok"),
        ],
    )
    def test_clock(self, around, monkeypatch: pytest.MonkeyPatch, now: datetime, status: str) -> None:
        monkeypatch.setattr(places, "_newest_file", lambda: datetime(2026, 1, 1, tzinfo=UTC).timestamp())
        outcome = places.clock(around(now=lambda: now))
        assert outcome.status == status
        assert outcome.exit_code == (7 if status == "fail" else 0)

    def test_real_one(self, around) -> None:
        assert places.clock(around()).status == "ok"


class TestExamine:
    def test_checks_run_side_by_side_in_a_stable_order(self, around) -> None:
        barrier = threading.Barrier(3, timeout=5)

        def meet(_: Surroundings) -> Outcome:
            barrier.wait()
            return Outcome("ok", "met")

        checks = examine(around(), [Item(name, meet) for name in "cab"])
        assert [check.name for check in checks] == ["c", "a", "b"]

    def test_a_hanging_check_is_told_and_those_behind_it_are_skipped(self, around) -> None:
        release = threading.Event()

        def hang(_: Surroundings) -> Outcome:
            release.wait(20)
            return Outcome("ok", "late")

        items = [
            Item("gpu", hang, limit_s=0.2, exit_code=3, remedy="nvidia-smi"),
            Item("driver", hang, ("gpu",), limit_s=0.2),
            Item("clock", lambda _: Outcome("ok", "now")),
        ]
        start = time.monotonic()
        checks = examine(around(), items)
        assert time.monotonic() - start < 2
        release.set()
        assert [(check.status, check.exit_code) for check in checks] == [("fail", 3), ("skip", 0), ("ok", 0)]
        assert worst(checks) == 3

    def test_a_defect_in_a_check_reaches_the_caller(self, around) -> None:
        def broken(_: Surroundings) -> Outcome:
            raise ZeroDivisionError("defect")

        with pytest.raises(ZeroDivisionError):
            examine(around(), [Item("a", broken)])

    def test_shared_facts_are_found_once_and_only_if_asked_for(self, around) -> None:
        asked: list[int] = []

        def find(_: object) -> HostFacts:
            asked.append(1)
            time.sleep(0.05)
            return GPU_HOST

        here = around(find_host=find)
        examine(here, [Item("clock", places.clock)])
        assert not asked
        examine(here, [Item("gpu", host.gpu), Item("machine", host.machine), Item("driver", host.driver)])
        assert len(asked) == 1

    def test_a_whole_gpu_host_in_order(self, around, monkeypatch: pytest.MonkeyPatch) -> None:
        script = Script((("stdout", DEVICE),), exit=Exit(0, False, 0.1))
        runtime = FakeRuntime(script, local=[local("cpu"), local("cu124-sm90", "sha256:1")])
        here = around(runtime=runtime, published=published(row("cu124-sm90", "12.4", ("90",)), row("cpu", None)))
        items = [item for item in CHECKS if item.name != "selftest"]  # which draws: test_doctor_selftest.py
        checks = examine(here, items)
        assert [check.name for check in checks] == [item.name for item in items]
        assert {check.name: check.status for check in checks if check.status not in ("ok", "warn")} == {"registry": "skip"}
        assert worst(checks) == 0

    def test_a_bare_host_ends_with_the_code_of_what_must_be_mended_first(self, around) -> None:
        assert worst(examine(around(CPU_HOST))) == 6
        assert worst(examine(around(CPU_HOST, runtime=FakeRuntime(local=[local("cpu")])))) == 3

    def test_every_failure_and_warning_has_a_remedy(self, around) -> None:
        for facts in (GPU_HOST, CPU_HOST, dataclasses.replace(GPU_HOST, runtime=None, driver_version=None)):
            for runtime in (None, FakeRuntime(), FakeRuntime(local=[local("cpu")])):
                for check in examine(around(facts, runtime)):
                    assert bool(check.remedy) == (check.status in ("warn", "fail")), check
                    assert bool(check.exit_code) == (check.status == "fail"), check
                    assert "\n" not in check.seen + (check.remedy or "")


def test_document() -> None:
    checks = (Check("gpu", "fail", "none", "buy one", 3), Check("clock", "ok", "now"))
    assert to_json(checks) == {
        "schema": "sdrun.doctor/v1",
        "checks": [
            {"name": "gpu", "status": "fail", "seen": "none", "remedy": "buy one"},
            {"name": "clock", "status": "ok", "seen": "now", "remedy": None},
        ],
    }
    assert worst(checks) == 3
    assert worst(checks[1:]) == 0
    assert failed_by(BadConfiguration("m", "r")).exit_code == 8


class TestSurvey:
    def test_named_files_are_read_at_once(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.json"
        bad.write_text("{")
        with pytest.raises(BadConfiguration) as caught:
            survey(index_file=str(bad), environ={})
        assert caught.value.id == "bad-index"
        with pytest.raises(BadConfiguration) as caught:
            survey(host_file=str(bad), environ={})
        assert caught.value.id == "bad-host-facts"

    def test_given_facts_are_used_with_overrides(self, tmp_path: Path) -> None:
        import json

        file = tmp_path / "host.json"
        file.write_text(json.dumps(hosts.to_json(GPU_HOST)))
        here = survey(host_file=str(file), environ={"SDRUN_DRIVER_VERSION": "550.54.14", "SDRUN_RUNTIME": "podman"})
        assert here.from_file
        assert str(here.host().driver_version) == "550.54.14"
