"""images/toolchains.yaml -> Base and Toolchain values. Refuses what cannot compile: a base without a compiler that the toolkit
accepts, headers that clash with the base's C library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.rows import each, fields, parsed, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed
from sdrun.core.facts import Toolkit
from sdrun.core.target import Base, Toolchain
from sdrun.core.version import CudaVersion
from sdrun.resources import images_dir

KINDS = ("debian", "nvidia", "pypi", "local")
_SCHEMA = "sdrun.toolchains/v1"
_BASE_KEYS = ("base", "suite", "image", "packages", "licence", "glibc", "gcc")
_KEYS = ("toolchain", "toolkit", "base", "root", "packages", "sections", "wheels", "stub", "static", "patched_for_glibc")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?")
_SECTION = re.compile(r"[a-z][a-z-]*")
_WHEEL = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9]+(\.[0-9]+)*")
_GLIBC = re.compile(r"[0-9]{1,2}\.[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Toolchains:
    """What images/toolchains.yaml says: bases by name, and toolchains by kind and toolkit. `local` is there for every toolkit
    it can serve."""

    bases: Mapping[str, Base]
    rows: Mapping[tuple[str, CudaVersion], Toolchain]


@cache
def toolchains(path: Path | None = None) -> Toolchains:
    """Every toolchain, from images/toolchains.yaml unless another file is named. Raises BadConfiguration with all faults."""
    toolkits = load_cuda_facts().toolkits
    file = YamlFile(path or images_dir() / "toolchains.yaml")
    bases: dict[str, Base] = {}
    rows: dict[tuple[str, CudaVersion], Toolchain] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("schema", "bases", "toolchains"))
        if (schema := top.get("schema", str)) != _SCHEMA:
            raise Malformed("schema", f"must be {_SCHEMA!r}, not {schema[:40]!r}")
        for base in each(file, top, "bases", _BASE_KEYS, lambda row: _base(row, bases)):
            bases[base.name] = base
        for found in each(file, top, "toolchains", _KEYS, lambda row: _toolchains(row, bases, toolkits, rows)):
            rows.update({(row.kind, row.toolkit): row for row in found})
    file.finish()
    return Toolchains(bases, rows)


def _base(row: Fields, seen: Mapping[str, Base]) -> Base:
    name = row.get("base", str)
    if name in seen:
        raise Malformed(row.key("base"), f"{name} stands here a second time")
    gcc = tuple(sorted(parsed(row, "gcc", _number)))
    if not gcc:
        raise Malformed(row.key("gcc"), "is missing or empty")
    return Base(
        name=name,
        suite=row.find("suite", str),
        image=row.get("image", str),
        packages=_packages(row),
        licence=row.get("licence", str),
        glibc=row.parse("glibc", _glibc),
        gcc=gcc,
    )


def _toolchains(
    row: Fields,
    bases: Mapping[str, Base],
    toolkits: Mapping[CudaVersion, Toolkit],
    seen: Mapping[tuple[str, CudaVersion], Toolchain],
) -> list[Toolchain]:
    kind, base = row.get("toolchain", str), row.get("base", str)
    if kind not in KINDS:
        raise Malformed(row.key("toolchain"), f"must be one of {', '.join(KINDS)}, not {kind[:40]!r}")
    if base not in bases:
        raise Malformed(row.key("base"), f"must be one of {', '.join(bases)}, not {base[:40]!r}")
    if kind == "local":
        if row.find("toolkit", object) is not None:
            raise Malformed(row.key("toolkit"), "has no meaning for local, which takes any toolkit")
        able = [toolkit for toolkit in toolkits.values() if not _misfits(row, toolkit, bases[base])]
    else:
        version = row.parse("toolkit", CudaVersion.parse)
        if version not in toolkits:
            raise Malformed(row.key("toolkit"), f"toolkits.yaml does not know CUDA {version}")
        if kind not in toolkits[version].toolchains:
            raise Malformed(row.key("toolchain"), f"{kind!r} does not provide CUDA {version}")
        if (kind, version) in seen:
            raise Malformed(row.key("toolkit"), f"{kind} for CUDA {version} stands here a second time")
        if misfits := _misfits(row, toolkits[version], bases[base]):
            raise Malformed(row.key("base"), "; ".join(misfits))
        able = [toolkits[version]]
    return [_toolchain(row, kind, bases[base], toolkit) for toolkit in able]


def _misfits(row: Fields, toolkit: Toolkit, base: Base) -> list[str]:
    """Every reason why `toolkit` cannot compile on `base`."""
    found = []
    if base.gcc[0] > toolkit.max_gcc:
        found.append(
            f"{base.name} has no g++ below {base.gcc[0]}, and CUDA {toolkit.version} accepts none above {toolkit.max_gcc}"
        )
    clash = toolkit.glibc_below
    if clash is not None and _newer(base.glibc, clash) and not row.find("patched_for_glibc", bool):
        found.append(f"the headers of CUDA {toolkit.version} clash with glibc {clash} and later; {base.name} has {base.glibc}")
    return found


def _toolchain(row: Fields, kind: str, base: Base, toolkit: Toolkit) -> Toolchain:
    root = row.get("root", str)
    if not re.fullmatch(r"(/[a-z0-9._-]+)+", root):
        raise Malformed(row.key("root"), f"must be an absolute path, not {root[:40]!r}")
    wheels = texts(row, "wheels", optional=True)
    for wheel in wheels:
        if not _WHEEL.fullmatch(wheel):
            raise Malformed(row.key("wheels"), f"{wheel[:60]!r} is not name==version")
    for section in texts(row, "sections", optional=True):
        if not _SECTION.fullmatch(section):
            raise Malformed(row.key("sections"), f"{section[:40]!r} is not a section of a Debian archive")
    return Toolchain(
        kind=kind,
        toolkit=toolkit.version,
        base=base.name,
        root=root,
        gcc=max(gcc for gcc in base.gcc if gcc <= toolkit.max_gcc),
        packages=_packages(row, optional=True),
        sections=texts(row, "sections", optional=True),
        wheels=wheels,
        driver_stub=row.get("stub", bool),
        static_libraries=row.get("static", bool),
    )


def _packages(row: Fields, *, optional: bool = False) -> tuple[str, ...]:
    packages = texts(row, "packages", optional=optional)
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise Malformed(row.key("packages"), f"{package[:40]!r} is not the name of a Debian package")
    return packages


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]?", text):
        raise ValueError(f"must be a major version in quotes, not {text[:40]!r}")
    return int(text)


def _glibc(text: str) -> str:
    if not _GLIBC.fullmatch(text):
        raise ValueError(f'must be a version such as "2.36", not {text[:40]!r}')
    return text


def _newer(glibc: str, first: str) -> bool:
    return tuple(map(int, glibc.split("."))) >= tuple(map(int, first.split(".")))
