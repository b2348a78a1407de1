"""images/capabilities.yaml, toolkits.yaml and drivers.yaml -> CudaFacts. Refuses what is inconsistent, all faults of a file at
once, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar

from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.decode import Fields, Malformed
from sdrun.core.facts import Branch, Capability, CudaFacts, Floor, JetPack, Toolkit
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease
from sdrun.resources import images_dir as packaged_images

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

PLATFORMS = ("amd64", "sbsa", "tegra")
COMPRESS_MODES = ("none", "speed", "balance", "size")
TOOLCHAINS = ("nvidia", "debian", "pypi")


def load_cuda_facts(images_dir: Path | None = None) -> CudaFacts:
    """The facts in `images_dir` (default: sdrun's own), read once per process and folder. Raises BadConfiguration listing every
    fault of the first file that has any as `file:line: key: reason`."""
    return _load(images_dir or packaged_images())


@cache
def _load(folder: Path) -> CudaFacts:
    drivers = YamlFile(folder / "drivers.yaml")
    top = _top(drivers, "sdrun.drivers/v1")
    branches = _rows(drivers, top, "branches", _branch, lambda row: row.branch)
    floors = _rows(drivers, top, "floors", _major_floor, lambda pair: pair[0])
    jetpacks = _rows(drivers, top, "jetpacks", _jetpack, lambda row: row.l4t)
    zstd, seconds = Floor(None, CudaVersion(0, 0)), 0
    with drivers.collecting():
        zstd = _floor(Fields(top.get("zstd", dict), "zstd"))
    with drivers.collecting():
        seconds = top.parse("jit_first_run_seconds", _number)
    _check_order(drivers, "branches", [((row.branch,), row.cuda) for row in branches])
    _check_order(drivers, "jetpacks", [(row.l4t.numbers, row.cuda) for row in jetpacks])
    drivers.finish()

    toolkit_file = YamlFile(folder / "toolkits.yaml")
    top = _top(toolkit_file, "sdrun.toolkits/v1")
    toolkits = _rows(toolkit_file, top, "toolkits", _toolkit, lambda row: row.version)
    suggest: tuple[CudaVersion, ...] = ()
    with toolkit_file.collecting():
        suggest = top.parse("suggest", _each(CudaVersion.parse))
        for version in suggest:
            if version not in {row.version for row in toolkits}:
                raise Malformed("suggest", f"{version} is none of the toolkits")
    _check_toolkits(toolkit_file, toolkits, branches)
    toolkit_file.finish()

    capability_file = YamlFile(folder / "capabilities.yaml")
    top = _top(capability_file, "sdrun.capabilities/v1")
    capabilities = _rows(capability_file, top, "capabilities", _capability, lambda row: row.capability)
    _check_windows(capability_file, capabilities, toolkits)
    _check_references(capability_file, capabilities, branches)
    capability_file.finish()

    return CudaFacts(
        capabilities={row.capability: row for row in sorted(capabilities, key=lambda row: row.capability)},
        toolkits={row.version: row for row in sorted(toolkits, key=lambda row: row.version)},
        branches=tuple(branches),
        major_floors=dict(floors),
        zstd_floor=zstd,
        jetpacks=tuple(jetpacks),
        suggest=suggest,
        jit_first_run_seconds=seconds,
    )


def _top(file: YamlFile, schema: str) -> Fields:
    """The file's top level; a wrong schema or shape ends reading at once, since nothing below would make sense."""
    top = Fields({})
    with file.collecting():
        top = Fields(file.data)
        if (found := top.get("schema", str)) != schema:
            raise Malformed("schema", f"must be {schema!r}, not {found[:40]!r}")
    file.finish()
    return top


def _rows(file: YamlFile, top: Fields, name: str, read: Callable[[Fields], T], key: Callable[[T], K]) -> list[T]:
    """Every row of list `name` that can be read; the others, and second rows of one key, are noted as faults."""
    rows: list[T] = []
    seen: set[K] = set()
    with file.collecting():
        for path, value in top.items(name):
            with file.collecting():
                row = read(Fields(value, path))
                if key(row) in seen:
                    raise Malformed(path, f"is a second row for {key(row)}")
                seen.add(key(row))
                rows.append(row)
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


def _among(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def word(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be among {', '.join(allowed)}, not {text[:40]!r}")
        return text

    return word


def _branch(row: Fields) -> Branch:
    return Branch(row.parse("branch", _number), row.parse("cuda", CudaVersion.parse), row.find("end", str))


def _floor(row: Fields) -> Floor:
    return Floor(row.parse("driver", DriverVersion.parse), row.parse("cuda", CudaVersion.parse))


def _major_floor(row: Fields) -> tuple[int, Floor]:
    return row.parse("toolkit_major", _number), _floor(row)


def _jetpack(row: Fields) -> JetPack:
    return JetPack(
        l4t=row.parse("l4t", L4tRelease.parse),
        name=row.get("jetpack", str),
        cuda=row.parse("cuda", CudaVersion.parse),
        capabilities=row.parse("capabilities", _each(ComputeCapability.parse)),
        desktop_code=row.get("desktop_code", bool),
    )


def _toolkit(row: Fields) -> Toolkit:
    return Toolkit(
        version=row.parse("version", CudaVersion.parse),
        sass=tuple(sorted(row.parse("sass", _each(Arch.parse)))),
        ptx_isa=row.get("ptx_isa", str),
        max_gcc=row.parse("max_gcc", _number),
        max_clang=row.parse("max_clang", _number),
        glibc_below=row.find("glibc_below", str),
        compress_modes=row.parse("compress_modes", _each(_among(COMPRESS_MODES))),
        compress_default=row.parse("compress_default", _among(("lz4", "zstd"))),
        driver=row.find_parsed("driver", DriverVersion.parse),
        branch=row.find_parsed("branch", _number),
        nvidia_image=row.find("nvidia_image", str),
        nvidia_image_os=row.parse("nvidia_image_os", _each(str)),
        toolchains=row.parse("toolchains", _each(_among(TOOLCHAINS))),
    )


def _capability(row: Fields) -> Capability:
    becomes = row.find_parsed("becomes", ComputeCapability.parse)
    since = row.find_parsed("becomes_from", CudaVersion.parse)
    if (becomes is None) != (since is None):
        raise Malformed(row.path, "becomes and becomes_from go together")
    family = row.find_parsed("family", _each(ComputeCapability.parse)) or ()
    return Capability(
        capability=row.parse("capability", ComputeCapability.parse),
        architecture=row.get("architecture", str),
        platforms=row.parse("platforms", _each(_among(PLATFORMS))),
        first_toolkit=row.parse("first_toolkit", CudaVersion.parse),
        last_toolkit=row.find_parsed("last_toolkit", CudaVersion.parse),
        a_from=row.find_parsed("a_from", CudaVersion.parse),
        f_from=row.find_parsed("f_from", CudaVersion.parse),
        family=family,
        tegra=row.find("tegra", bool) or False,
        last_driver_branch=row.find_parsed("last_driver_branch", _number),
        becomes=(becomes, since) if becomes is not None and since is not None else None,
        gpus=tuple(name.strip() for name in row.get("gpus", str).split(",") if name.strip()),
    )


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
