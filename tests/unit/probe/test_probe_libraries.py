"""Finding the driver's libraries, the environment of probes, and CUDA's variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.core.capability import ComputeCapability
from sdrun.core.host import Gpu, HostFacts
from sdrun.core.version import DriverVersion
from sdrun.probe.libraries import cached_paths, find_libraries, has_signs, probe_environment, version_of_file
from sdrun.probe.visible import order_note, visible_devices


def test_library_on_the_path_with_its_version(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.580.159.04").touch()
    (tmp_path / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.159.04")
    found = find_libraries(tmp_path, {"LD_LIBRARY_PATH": f"::{tmp_path}"})
    assert (found.found, found.folders, found.nvml_version) == (True, (), DriverVersion.parse("580.159.04"))


def test_wsl_folder_is_found_and_stands_first(make_root) -> None:
    root = make_root({"usr/lib/wsl/lib/libcuda.so.1": "", "usr/local/nvidia/lib64/libcuda.so.1": ""})
    found = find_libraries(root, {})
    assert found.found
    assert found.nvml_version is None
    wsl, other = str(root / "usr/lib/wsl/lib"), str(root / "usr/local/nvidia/lib64")
    assert found.folders == (wsl, other)
    assert probe_environment({"LD_LIBRARY_PATH": "/mine"}, found.folders)["LD_LIBRARY_PATH"] == f"{wsl}:/mine:{other}"


def test_no_library(make_root) -> None:
    found = find_libraries(make_root({"etc/ld.so.conf": ""}), {"LD_LIBRARY_PATH": "/nonexistent:\0:/" + "x" * 300})
    assert (found.found, found.folders, found.nvml_version) == (False, (), None)


def test_the_machine_itself_can_be_searched() -> None:
    found = find_libraries(Path("/"), {})
    assert found.found or (found.folders, found.nvml_version) == ((), None)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.1")
    assert not find_libraries(tmp_path, {"LD_LIBRARY_PATH": str(tmp_path)}).found


def test_loader_cache() -> None:
    table = b"\x00\x10glibc-ld.so.cache1.1\0\x01\0libcuda.so.1\0/lib/x86_64-linux-gnu/libcuda.so.1\0libnvidia-ml.so.1\0"
    table += b"/usr/lib/wsl/lib/libnvidia-ml.so.1\0libz.so.1\0/lib/libz.so.1\0/lib/libcuda.so\0"
    assert cached_paths(table) == ["/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"]


@pytest.mark.parametrize(
    ("name", "version"),
    [("libcuda.so.580.159.04", "580.159.04"), ("libcuda.so.1", None), ("libcuda.so.1.1", None), ("libcuda", None)],
)
def test_version_of_file(name: str, version: str | None) -> None:
    assert version_of_file(name) == (DriverVersion.parse(version) if version else None)


def test_cudas_variables_do_not_reach_a_probe() -> None:
    given = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "HOME": "/root"}
    assert probe_environment(given, ()) == {"HOME": "/root", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    "sign", ["proc/driver/nvidia/version", "dev/nvidiactl", "dev/dxg", "etc/nv_tegra_release", "dev/nvgpu/x"]
)
def test_signs_of_a_driver(make_root, sign: str) -> None:
    assert has_signs(make_root({sign: ""}))


def test_no_signs(make_root) -> None:
    assert not has_signs(make_root({"dev/null": ""}))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        ("", ()),
        ("0", ("0",)),
        ("1, 0", ("1", "0")),
        ("0,-1,1", ("0",)),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("none", ()),
        ("GPU-6f2c1f0e", ("GPU-6f2c1f0e",)),
        ("MIG-2ac1f0e6-3a52-4b1e-9a55-1f4f3c0b7d21,1", ("MIG-2ac1f0e6-3a52-4b1e-9a55-1f4f3c0b7d21", "1")),
        ("MIG-GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21/7/0", ("MIG-GPU-6f2c1f0e-3a52-4b1e-9a55-1f4f3c0b7d21/7/0",)),
        ("0,,1", ("0",)),
    ],
)
def test_visible_devices(value: str | None, names: tuple[str, ...] | None) -> None:
    assert visible_devices({} if value is None else {"CUDA_VISIBLE_DEVICES": value}) == names


def two_gpus(second: str) -> HostFacts:
    gpus = tuple(Gpu(i, f"GPU-{i}", f"NVIDIA {cc}", ComputeCapability.parse(cc), 1) for i, cc in enumerate(("9.0", second)))
    return HostFacts("linux/amd64", gpus=gpus)


@pytest.mark.parametrize(
    ("second", "environ", "noted"),
    [
        ("8.9", {"CUDA_VISIBLE_DEVICES": "1"}, True),
        ("8.9", {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True),
        ("8.9", {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, False),
        ("8.9", {"CUDA_VISIBLE_DEVICES": "GPU-1"}, False),
        ("8.9", {}, False),
        ("9.0", {"CUDA_VISIBLE_DEVICES": "1"}, False),
    ],
)
def test_order_of_devices_is_said_where_it_matters(second: str, environ: dict[str, str], noted: bool) -> None:
    assert bool(order_note(environ, two_gpus(second))) is noted
