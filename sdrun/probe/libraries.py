"""Where the driver's libraries are, and the environment in which its probes run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.version import DriverVersion
from sdrun.probe.answer import driver_version

LIBRARIES = ("libnvidia-ml.so.1", "libcuda.so.1")
WSL_FOLDER = "usr/lib/wsl/lib"
# Folders that dynamic loaders search without being told; glibc's by distribution, then musl's.
_LOADER_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "lib64", "lib")
# Folders that some systems put the driver's libraries into and whose loader may not know them: WSL2, NixOS, Google's COS.
_EXTRA_FOLDERS = (WSL_FOLDER, "run/opengl-driver/lib", "usr/local/nvidia/lib64", "home/kubernetes/bin/nvidia/lib64")
_SIGNS = (
    "proc/driver/nvidia",
    "sys/module/nvidia",
    "dev/nvidiactl",
    "dev/dxg",
    "dev/nvgpu",
    "dev/nvhost-gpu",
    "etc/nv_tegra_release",
)
# CUDA's own filters would hide GPUs from libcuda and renumber them. What they ask for is applied to the facts later.
_FILTERS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


@dataclass(frozen=True, slots=True)
class Libraries:
    """The driver's libraries under one root. `folders` must be added to the loader's path; `nvml_version` is the version in
    the file name behind libnvidia-ml.so.1."""

    found: bool
    folders: tuple[str, ...]
    nvml_version: DriverVersion | None


def find_libraries(root: Path, environ: Mapping[str, str]) -> Libraries:
    """Looks where the loader would: LD_LIBRARY_PATH, its cache, its own folders, and those of systems that tell nobody. Under
    another root than `/` the loader's own places are left out: it does not look there."""
    told = [Path(folder) for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    extra = [root / folder for folder in _EXTRA_FOLDERS]
    candidates = [folder / name for folder in (*told, *extra) for name in LIBRARIES]
    if root == Path("/"):
        candidates += [Path(path) for path in cached_paths(_read(root / "etc/ld.so.cache"))]
        candidates += [root / folder / name for folder in _LOADER_FOLDERS for name in LIBRARIES]
    found = [path for path in candidates if _there(path)]
    nvml = next((path for path in found if path.name == LIBRARIES[0]), None)
    holders = {path.parent for path in found}
    return Libraries(
        found=bool(found),
        folders=tuple(str(folder) for folder in extra if folder in holders and folder not in told),
        nvml_version=version_of_file(nvml.resolve().name) if nvml else None,
    )


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder this user may not enter, or a name no file can have
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def cached_paths(cache: bytes) -> list[str]:
    """The paths of the driver's libraries in the loader's cache, a file of NUL-terminated strings behind a table
    (`...libcuda.so.1\\0/lib/x86_64-linux-gnu/libcuda.so.1\\0...`)."""
    pattern = rb"(?<=\0)(/[^\0]{1,4096}/(?:libnvidia-ml|libcuda)\.so\.1)(?=\0)"
    return [match.decode("utf-8", "replace") for match in re.findall(pattern, cache)]


def version_of_file(name: str) -> DriverVersion | None:
    """580.159.04 from `libnvidia-ml.so.580.159.04`; None from `libnvidia-ml.so.1`."""
    _, _, version = name.partition(".so.")
    found = driver_version(version)
    return found if found is not None and found.branch >= 100 else None  # .so.1.1 is WSL's name, not a version


def has_signs(root: Path) -> bool:
    """True where the kernel shows any NVIDIA driver: a normal one, WSL2's, or Tegra's."""
    return any(_there(root / sign) for sign in _SIGNS)


def probe_environment(environ: Mapping[str, str], folders: tuple[str, ...]) -> dict[str, str]:
    """`environ` for a probe: without CUDA's filters, GPUs in the order of the PCI bus as NVML counts them, and `folders` on the
    loader's path. WSL's folder stands first: a Linux driver installed beside it cannot work there."""
    kept = {name: value for name, value in environ.items() if name not in _FILTERS}
    kept["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    told = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    first = [folder for folder in folders if folder.endswith(WSL_FOLDER)]
    paths = [*first, *told, *(folder for folder in folders if folder not in first)]
    if paths:
        kept["LD_LIBRARY_PATH"] = ":".join(paths)
    return kept
