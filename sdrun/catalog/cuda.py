"""images/capabilities.yaml, toolkits.yaml and drivers.yaml -> CudaFacts. Refuses what is inconsistent, all faults of a file at
once, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.decode import Fields, Malformed
from sdrun.core.facts import Branch, Capability, CudaFacts, Floor, JetPack, Toolkit
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease
from sdrun.resources import images_dir as packaged_images

T = TypeVar("T")
Reader = Callable[[Fields, str], object]  # reads the named field of a row; raises Malformed


def load_cuda_facts(images_dir: Path | None = None) -> CudaFacts:
    """The facts in `images_dir` (default: sdrun's own), read once per process and folder. Raises BadConfiguration listing every
    fault of the first file that has any as `file:line: key: reason`."""
    return _load(images_dir or packaged_images())


@cache
def _load(folder: Path) -> CudaFacts:
    drivers, top = _open(folder / "drivers.yaml", "sdrun.drivers/v1")
    branches = _rows(drivers, top, "branches", _BRANCH, Branch)
    floors = _rows(drivers, top, "floors", _FLOOR, lambda **row: (row.pop("toolkit_major"), Floor(**row)))
    jetpacks = _rows(drivers, top, "jetpacks", _JETPACK, JetPack)
    values = _fields(drivers, top, {"jit_first_run_seconds": _parsed(_number), "zstd": _zstd})
    _check_order(drivers, "branches", [((row.branch,), row.cuda) for row in branches])
    _check_order(drivers, "jetpacks", [(row.l4t.numbers, row.cuda) for row in jetpacks])
    drivers.finish()

    file, top = _open(folder / "toolkits.yaml", "sdrun.toolkits/v1")
    toolkits = _rows(file, top, "toolkits", _TOOLKIT, Toolkit)
    values |= _fields(file, top, {"suggest": _parsed(_each(CudaVersion.parse))})
    _check_toolkits(file, toolkits, branches)
    for version in values.get("suggest", ()):
        if version not in {row.version for row in toolkits}:
            file.fault("suggest", f"{version} is none of the toolkits")
    file.finish()

    file, top = _open(folder / "capabilities.yaml", "sdrun.capabilities/v1")
    capabilities = _rows(file, top, "capabilities", _CAPABILITY, Capability)
    _check_windows(file, capabilities, toolkits)
    _check_references(file, capabilities, branches)
    file.finish()

    return CudaFacts(
        capabilities={row.capability: row for row in sorted(capabilities, key=lambda row: row.capability)},
        toolkits={row.version: row for row in sorted(toolkits, key=lambda row: row.version)},
        branches=tuple(branches),
        major_floors=dict(floors),
        zstd_floor=values["zstd"],
        jetpacks=tuple(jetpacks),
        suggest=values["suggest"],
        jit_first_run_seconds=values["jit_first_run_seconds"],
    )


def _open(path: Path, schema: str) -> tuple[YamlFile, Fields]:
    """The file and its top level; a wrong schema or shape ends reading at once, since nothing below would make sense."""
    file, top = YamlFile(path), Fields({})
    with file.collecting():
        top = Fields(file.data)
        if (found := top.get("schema", str)) != schema:
            raise Malformed("schema", f"must be {schema!r}, not {found[:40]!r}")
    file.finish()
    return file, top


def _fields(file: YamlFile, row: Fields, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """The values of those fields of `row` that can be read; what is wrong with the others is noted."""
    values: dict[str, Any] = {}
    for name, read in readers.items():
        with file.collecting():
            values[name] = read(row, name)
    return values


def _rows(file: YamlFile, top: Fields, name: str, readers: Mapping[str, Reader], make: Callable[..., T]) -> list[T]:
    """Every row of list `name` that is whole; its first field is its key, of which a second row is a fault."""
    rows: list[T] = []
    seen: set[object] = set()
    key = next(iter(readers))
    with file.collecting():
        for path, value in top.items(name):
            with file.collecting():
                values = _fields(file, Fields(value, path), readers)
                if values.get(key) in seen:
                    raise Malformed(path, f"is a second row for {values[key]}")
                if len(values) == len(readers):
                    seen.add(values[key])
                    rows.append(make(**values))
    return rows


def _number(text: str) -> int:
    """A whole number written as a quoted string, as all numbers of names and versions are."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError(f"must be a whole number in quotes, not {text[:40]!r}")
    return int(text)


def _each(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A parser of blank-separated words."""

    def words(text: str) -> tuple[T, ...]:
        values = tuple(parse(word) for word in text.split())
        if len(set(values)) != len(values):
            raise ValueError("names something twice")
        return values

    return words


def _among(*allowed: str) -> Callable[[str], str]:
    def word(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be among {', '.join(allowed)}, not {text[:40]!r}")
        return text

    return word


def _parsed(parser: Callable[[str], object]) -> Reader:
    return lambda row, name: row.parse(name, parser)


def _maybe(parser: Callable[[str], object]) -> Reader:
    return lambda row, name: row.find_parsed(name, parser)


def _flag(row: Fields, name: str) -> bool:
    return row.find(name, bool) or False


def _zstd(row: Fields, name: str) -> Floor:
    inner = Fields(row.get(name, dict), name)
    return Floor(inner.parse("driver", DriverVersion.parse), inner.parse("cuda", CudaVersion.parse))


def _becomes(row: Fields, name: str) -> tuple[ComputeCapability, CudaVersion] | None:
    other, since = row.find_parsed(name, ComputeCapability.parse), row.find_parsed(f"{name}_from", CudaVersion.parse)
    if (other is None) != (since is None):
        raise Malformed(row.path, f"{name} and {name}_from go together")
    return None if other is None or since is None else (other, since)


def _gpus(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


_BRANCH: Mapping[str, Reader] = {"branch": _parsed(_number), "cuda": _parsed(CudaVersion.parse), "end": _maybe(str)}
_FLOOR: Mapping[str, Reader] = {
    "toolkit_major": _parsed(_number),
    "driver": _parsed(DriverVersion.parse),
    "cuda": _parsed(CudaVersion.parse),
}
_JETPACK: Mapping[str, Reader] = {
    "l4t": _parsed(L4tRelease.parse),
    "name": _parsed(str),
    "cuda": _parsed(CudaVersion.parse),
    "capabilities": _parsed(_each(ComputeCapability.parse)),
    "desktop_code": _flag,
}
_TOOLKIT: Mapping[str, Reader] = {
    "version": _parsed(CudaVersion.parse),
    "sass": _parsed(lambda text: tuple(sorted(_each(Arch.parse)(text)))),
    "ptx_isa": _parsed(str),
    "max_gcc": _parsed(_number),
    "max_clang": _parsed(_number),
    "glibc_below": _maybe(str),
    "compress_modes": _parsed(_each(_among("none", "speed", "balance", "size"))),
    "compress_default": _parsed(_among("lz4", "zstd")),
    "driver": _maybe(DriverVersion.parse),
    "branch": _maybe(_number),
    "nvidia_image": _maybe(str),
    "nvidia_image_os": _parsed(_each(str)),
    "toolchains": _parsed(_each(_among("nvidia", "debian", "pypi"))),
}
_CAPABILITY: Mapping[str, Reader] = {
    "capability": _parsed(ComputeCapability.parse),
    "architecture": _parsed(str),
    "platforms": _parsed(_each(_among("amd64", "sbsa", "tegra"))),
    "first_toolkit": _parsed(CudaVersion.parse),
    "last_toolkit": _maybe(CudaVersion.parse),
    "a_from": _maybe(CudaVersion.parse),
    "f_from": _maybe(CudaVersion.parse),
    "family": lambda row, name: row.find_parsed(name, _each(ComputeCapability.parse)) or (),
    "tegra": _flag,
    "last_driver_branch": _maybe(_number),
    "becomes": _becomes,
    "gpus": _parsed(_gpus),
}


def _check_order(file: YamlFile, name: str, rows: Sequence[tuple[tuple[int, ...], CudaVersion]]) -> None:
    """Rows stand oldest first and never speak an older CUDA than the row before."""
    for place, (before, after) in enumerate(pairwise(rows), start=1):
        if not (before[0] < after[0] and before[1] <= after[1]):
            file.fault(f"{name}[{place}]", "does not come after the row before it, or speaks an older CUDA")


def _check_toolkits(file: YamlFile, toolkits: list[Toolkit], branches: list[Branch]) -> None:
    spoken = {row.branch: row.cuda for row in branches}
    for place, row in enumerate(toolkits):
        where = f"toolkits[{place}]"
        if row.branch is not None and spoken.get(row.branch) != row.version:
            file.fault(
                f"{where}.branch", f"{row.branch} speaks CUDA {spoken.get(row.branch)} in drivers.yaml, not {row.version}"
            )
        if row.driver is not None and row.branch is not None and row.driver.branch != row.branch:
            file.fault(f"{where}.driver", f"{row.driver} is not of branch {row.branch}")
        if row.nvidia_image is not None and not row.nvidia_image.startswith(f"{row.version}."):
            file.fault(f"{where}.nvidia_image", f"{row.nvidia_image} is not a release of {row.version}")


def _check_windows(file: YamlFile, capabilities: list[Capability], toolkits: list[Toolkit]) -> None:
    """A capability's window and the toolkits' lists must tell the same story, for plain, `a` and `f` targets."""
    suffixes: tuple[Literal["", "a", "f"], ...] = ("", "a", "f")
    emitted = {toolkit.version: frozenset(toolkit.sass) for toolkit in toolkits}
    for place, row in enumerate(capabilities):
        for toolkit in toolkits:
            for suffix in suffixes:
                listed = Arch(row.capability.number, suffix) in emitted[toolkit.version]
                if row.emits(suffix, toolkit.version) != listed:
                    says = "lists" if listed else "does not list"
                    file.fault(
                        f"capabilities[{place}]",
                        f"toolkit {toolkit.version} {says} {row.capability.number}{suffix}, against the window of this row",
                    )


def _check_references(file: YamlFile, capabilities: list[Capability], branches: list[Branch]) -> None:
    known, numbers = {row.capability for row in capabilities}, {row.branch for row in branches}
    for place, row in enumerate(capabilities):
        where = f"capabilities[{place}]"
        for other in (*row.family, *((row.becomes[0],) if row.becomes else ())):
            if other not in known:
                file.fault(where, f"names {other}, which has no row")
        if row.f_from is not None and row.capability not in row.family:
            file.fault(f"{where}.family", f"must hold {row.capability} itself")
        if row.last_driver_branch is not None and row.last_driver_branch not in numbers:
            file.fault(f"{where}.last_driver_branch", f"{row.last_driver_branch} is no branch of drivers.yaml")
