"""`detect` over the stub libraries: every case a driver shows, through pynvml, the loader and a process of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import HostFacts, RuntimeFacts, from_json, to_json
from sdrun.core.version import CudaVersion, DriverVersion
from sdrun.probe.detect import detect

LIMIT_S = 8.0  # far above what an answer takes, also on a busy machine
NO_CUDA = {"STUB_CUDA": "init=100"}


@pytest.fixture
def look(driver_folder: Path, empty_root: Path):
    """`look("gpus=2", limit_s=..., NAME=value)`: the facts under those options of the stub NVML."""

    def look(nvml: str = "", limit_s: float = LIMIT_S, **environ: str) -> HostFacts:
        given = {"LD_LIBRARY_PATH": str(driver_folder), "STUB_NVML": nvml, **environ}
        host = detect(empty_root, given, limit_s=limit_s)
        assert from_json(to_json(host)) == host
        return host

    return look


def test_one_gpu(look) -> None:
    host = look()
    assert (host.probe, host.notes) == ("nvml", ())
    assert (str(host.driver_version), host.cuda_driver) == ("580.159.04", CudaVersion(13, 0))
    (gpu,) = host.gpus
    assert (gpu.index, gpu.name, gpu.compute_capability) == (0, "NVIDIA H100 80GB HBM3", ComputeCapability(9, 0))
    assert (gpu.uuid, gpu.memory_mib, gpu.mig) == ("GPU-00000001-0000-4000-8000-00000000ab1e", 81559, ())


def test_driver_without_gpu(look) -> None:
    host = look("gpus=0", **NO_CUDA)
    assert (host.probe, host.gpus) == ("nvml", ())
    assert host.driver_version == DriverVersion.parse("580.159.04")


def test_sixteen_mixed_gpus(look) -> None:
    host = look("gpus=16,mixed=1")
    assert [gpu.index for gpu in host.gpus] == list(range(16))
    assert [str(gpu.compute_capability) for gpu in host.gpus] == ["9.0", "8.9", "7.5", "12.0"] * 4
    assert len({gpu.uuid for gpu in host.gpus}) == 16


def test_mig_devices(look) -> None:
    host = look("gpus=2,mig=7")
    assert [piece.profile for piece in host.gpus[0].mig] == ["1g.10gb"] * 7
    assert {piece.memory_mib for piece in host.gpus[0].mig} == {9856}
    assert host.gpus[1].mig == ()


def test_mig_profile_from_traits(look) -> None:
    assert [piece.profile for piece in look("mig=2,unnamed=1").gpus[0].mig] == ["1g.10gb"] * 2


def test_mig_mode_without_devices(look) -> None:
    host = look("mig=-1", **NO_CUDA)
    assert (host.probe, host.gpus) == ("nvml", ())
    assert "MIG mode" in host.notes[0]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4, "may not talk"),
        (9, "modprobe nvidia"),
        (12, "libnvidia-ml.so.1 is missing"),
        (18, "different versions"),
        (999, "dmesg"),
        (4242, "code 4242"),
    ],
)
def test_nvml_fails_and_libcuda_is_asked(look, code: int, words: str) -> None:
    host = look(f"init={code}", STUB_CUDA="gpus=2,mixed=1")
    assert host.probe == "libcuda"
    assert words in host.notes[0]
    assert [str(gpu.compute_capability) for gpu in host.gpus] == ["9.0", "8.9"]
    assert (host.driver_version, host.cuda_driver) == (None, CudaVersion(13, 0))


def test_both_libraries_fail(look) -> None:
    host = look("init=18", STUB_CUDA="init=803")
    assert (host.probe, host.gpus) == ("none", ())
    assert "NVML failed with code 18" in host.notes[0]
    assert "libcuda failed with code 803" in host.notes[1]


def test_mismatch_names_both_versions(driver_folder: Path, empty_root: Path, tmp_path: Path) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "libnvidia-ml.so.580.159.04").write_bytes((driver_folder / "libnvidia-ml.so.1").read_bytes())
    (libraries / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.159.04")
    (libraries / "libcuda.so.1").symlink_to(driver_folder / "libcuda.so.1")
    module = empty_root / "sys/module/nvidia/version"
    module.parent.mkdir(parents=True)
    module.write_text("570.86.15\n", encoding="utf-8")
    environ = {"LD_LIBRARY_PATH": str(libraries), "STUB_NVML": "init=18", "STUB_CUDA": "init=803"}
    host = detect(empty_root, environ, limit_s=LIMIT_S)
    assert (host.probe, str(host.driver_version)) == ("sysfs", "570.86.15")
    assert any("is 570.86.15, libnvidia-ml.so.1 is 580.159.04: restart" in note for note in host.notes)


@pytest.mark.parametrize("options", ["fail=1,code=15", "fail=1,late=15"])
def test_one_lost_gpu_of_three(look, options: str) -> None:
    host = look(f"gpus=3,{options}")
    assert host.probe == "nvml"
    assert [gpu.index for gpu in host.gpus] == [0, 2]
    assert len(host.notes) == 1
    assert "GPU 1 " in host.notes[0]
    assert "fallen off the bus" in host.notes[0]


def test_gpu_that_may_not_be_used(look) -> None:
    assert "may not use it" in look("gpus=2,fail=0,code=4").notes[0]


@pytest.mark.parametrize("kind", [1, 2])
def test_uuid_that_is_none_lets_libcuda_answer(look, kind: int) -> None:
    host = look(f"uuid={kind}")
    assert host.probe == "libcuda"
    assert host.gpus[0].uuid == "GPU-11111111-1111-1111-1111-111111111100"
    assert str(host.driver_version) == "580.159.04"
    assert host.notes == ("nvml shows no GPU that can be used: the facts are those of libcuda.",)


@pytest.mark.parametrize("kind", [1, 2])
def test_uuid_that_nobody_knows(look, kind: int) -> None:
    host = look(f"uuid={kind}", **NO_CUDA)
    assert (host.probe, host.gpus) == ("nvml", ())
    assert "no UUID" in host.notes[0]


def test_gpus_of_one_uuid(look) -> None:
    host = look("gpus=2,uuid=3")
    assert [gpu.index for gpu in host.gpus] == [0]
    assert "has the UUID of GPU 0" in host.notes[0]


def test_cuda_version_of_an_old_driver(look) -> None:
    assert look("old=1").cuda_driver == CudaVersion(12, 8)


def test_cuda_version_that_cannot_be_had(look) -> None:
    host = look("cuda=12")
    assert (host.cuda_driver, len(host.gpus)) == (None, 1)
    assert "CUDA version" in host.notes[0]


def test_driver_version_that_cannot_be_read(look) -> None:
    host = look("version=1")
    assert (host.driver_version, len(host.gpus)) == (None, 1)


def test_memory_that_cannot_be_had(look) -> None:
    assert look("memory=3").gpus[0].memory_mib == 0


def test_library_that_prints(look) -> None:
    assert len(look("noise=1,gpus=2").gpus) == 2


@pytest.mark.parametrize("where", [1, 2])
def test_nvml_crashes_and_libcuda_is_asked(look, where: int) -> None:
    host = look(f"crash={where}")
    assert host.probe == "libcuda"
    assert len(host.gpus) == 1
    assert host.notes == ("NVML crashed (signal SIGSEGV): reinstall the NVIDIA driver and restart the machine.",)


def test_both_libraries_crash(look) -> None:
    host = look("crash=1", STUB_CUDA="crash=2")
    assert (host.probe, host.gpus) == ("none", ())
    assert [note.split(" crashed")[0] for note in host.notes] == ["NVML", "libcuda"]


@pytest.mark.parametrize("where", [1, 2])
def test_nvml_hangs_and_libcuda_is_asked(look, where: int) -> None:
    start = time.monotonic()
    host = look(f"hang={where}", limit_s=1.0)
    assert 1.0 <= time.monotonic() - start < 4.0
    assert host.probe == "libcuda"
    assert "did not answer within 1 s" in host.notes[0]


def test_everything_hangs(look, make_smi) -> None:
    environ = make_smi("exec sleep 600")
    start = time.monotonic()
    host = look("hang=1", limit_s=1.0, STUB_CUDA="hang=1", **environ)
    assert time.monotonic() - start < 6.0
    assert (host.probe, host.gpus) == ("none", ())
    assert len(host.notes) == 3
    assert not any(b"sleep\x00600" in _command(process) for process in Path("/proc").glob("[0-9]*"))


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_libcuda_hangs_after_nvml_failed_and_keeps_its_answer(look) -> None:
    host = look("init=9", limit_s=1.0, STUB_CUDA="hang=2")
    assert host.probe == "none"
    assert "NVML failed with code 9" in host.notes[0]
    assert "libcuda did not answer within 1 s" in host.notes[1]


def test_crash_leaves_no_core_file(look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    look("crash=1")
    assert set(tmp_path.iterdir()) == before


def test_cudas_variables_do_not_hide_gpus(look) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "STUB_CUDA": "gpus=4,mixed=1"}
    host = look("init=12", **environ)
    assert [str(gpu.compute_capability) for gpu in host.gpus] == ["9.0", "8.9", "7.5", "12.0"]


def test_order_that_differs_from_cudas_is_said(look) -> None:
    host = look("gpus=2,mixed=1", CUDA_VISIBLE_DEVICES="1")
    assert len(host.gpus) == 2
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in host.notes[0]


def test_libcuda_shows_a_mig_device(look) -> None:
    (gpu,) = look("init=12", STUB_CUDA="mig=1").gpus
    assert gpu.uuid == "GPU-11111111-1111-1111-1111-111111111100"
    (piece,) = gpu.mig
    assert (piece.uuid, piece.profile) == ("MIG-22222222-2222-2222-2222-222222222200", "2g.20gb")


def test_libcuda_device_that_fails(look) -> None:
    host = look("init=12", STUB_CUDA="gpus=3,fail=1")
    assert [gpu.index for gpu in host.gpus] == [0, 2]
    assert "GPU 1 is left out" in host.notes[1]


def test_tegra_shares_its_memory(look, empty_root: Path) -> None:
    (empty_root / "etc").mkdir()
    (empty_root / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n", encoding="utf-8")
    (empty_root / "proc").mkdir()
    (empty_root / "proc/meminfo").write_text("MemTotal:       65536 kB\n", encoding="utf-8")
    host = look("memory=3")
    assert (host.tegra, host.gpus[0].memory_mib) == ("36.4", 64)


def test_wsl_libraries_are_found_without_the_loaders_help(driver_folder: Path, empty_root: Path) -> None:
    folder = empty_root / "usr/lib/wsl/lib"
    folder.mkdir(parents=True)
    (empty_root / "dev").mkdir()
    (empty_root / "dev/dxg").touch()
    for library in driver_folder.iterdir():
        (folder / library.name).symlink_to(library)
    host = detect(empty_root, {}, limit_s=LIMIT_S)
    assert (host.wsl, host.probe, len(host.gpus), host.notes) == (True, "nvml", 1, ())


def test_libraries_that_are_none(empty_root: Path, tmp_path: Path) -> None:
    for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
        (tmp_path / name).write_text("not a library", encoding="utf-8")
    host = detect(empty_root, {"LD_LIBRARY_PATH": str(tmp_path)}, limit_s=LIMIT_S)
    assert host.probe == "none"
    assert [note.split(":")[0] for note in host.notes] == ["NVML failed with code 12", "libcuda.so.1 is missing"]


def test_runtime_is_asked_once_while_the_driver_works(driver_folder: Path, empty_root: Path) -> None:
    calls: list[float] = []

    def ask() -> RuntimeFacts:
        calls.append(time.monotonic())
        return RuntimeFacts("docker", "28.5.2")

    environ = {"LD_LIBRARY_PATH": str(driver_folder), "STUB_NVML": "crash=1"}
    host = detect(empty_root, environ, ask, limit_s=LIMIT_S)
    assert (len(calls), host.runtime, host.probe) == (1, RuntimeFacts("docker", "28.5.2"), "libcuda")


def test_what_the_runtime_raises_is_raised_and_ends_the_probe(driver_folder: Path, empty_root: Path) -> None:
    def ask() -> RuntimeFacts:
        raise ConnectionRefusedError("daemon")

    start = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        detect(empty_root, {"LD_LIBRARY_PATH": str(driver_folder), "STUB_NVML": "hang=1"}, ask, limit_s=LIMIT_S)
    assert time.monotonic() - start < LIMIT_S / 2


def test_nothing_is_loaded_into_this_process(look) -> None:
    look()
    assert "libnvidia-ml" not in Path(f"/proc/{os.getpid()}/maps").read_text(encoding="utf-8")
