"""images/targets.yaml -> Target and Base values. Refuses rows that contradict themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.rows import each, fields, parsed, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch
from sdrun.core.decode import Fields, Malformed
from sdrun.core.engine import Engine
from sdrun.core.index import COMPRESSIONS, Compression
from sdrun.core.target import Base, Target, TargetId
from sdrun.core.version import CudaVersion
from sdrun.resources import images_dir

PLATFORMS = ("linux/amd64", "linux/arm64")
_BASE_KEYS = ("base", "suite", "image", "packages", "licence")
_CUDA_KEYS = ("toolkit", "sass", "ptx", "toolchains", "fatbin_compression")
_TARGET_KEYS = ("target", "engine", "platform", "base", "cpu_level", *_CUDA_KEYS)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?")


@dataclass(frozen=True, slots=True)
class Targets:
    """What images/targets.yaml says: rows in file order, and bases by name."""

    rows: tuple[Target, ...]
    bases: Mapping[str, Base]


@cache
def targets(path: Path | None = None, engines_path: Path | None = None) -> Targets:
    """Every target, from images/targets.yaml unless another file is named. Raises BadConfiguration with all faults at once."""
    known_engines = engines(engines_path)
    file = YamlFile(path or images_dir() / "targets.yaml")
    rows: list[Target] = []
    bases: dict[str, Base] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("engine", "bases", "targets"))
        default = top.get("engine", str)
        for base in each(file, top, "bases", _BASE_KEYS, _base):
            bases[base.name] = base
        seen: set[tuple[str, str, str]] = set()

        def read(row: Fields) -> Target:
            target = _target(row, default, known_engines, bases)
            key = (target.engine, str(target.id), target.platform)
            if key in seen:
                raise Malformed(row.key("target"), f"{target.id} for {target.platform} stands here a second time")
            seen.add(key)
            return target

        rows += each(file, top, "targets", _TARGET_KEYS, read)
    file.finish()
    return Targets(tuple(rows), bases)


def _base(row: Fields) -> Base:
    packages = texts(row, "packages")
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise Malformed(row.key("packages"), f"{package[:40]!r} is not the name of a Debian package")
    return Base(row.get("base", str), row.get("suite", str), row.get("image", str), packages, row.get("licence", str))


def _target(row: Fields, default: str, known: Mapping[str, Engine], bases: Mapping[str, Base]) -> Target:
    engine = row.find("engine", str) or default
    if engine not in known:
        raise Malformed(row.key("engine"), f"no engine {engine[:40]!r} in engines.yaml; known are {', '.join(known)}")
    target = Target(
        id=row.parse("target", TargetId.parse),
        engine=engine,
        platform=_one_of(row, "platform", PLATFORMS),
        base=_one_of(row, "base", tuple(bases)),
        cpu_level=_one_of(row, "cpu_level", tuple(known[engine].cpu_levels)),
        sass=tuple(sorted(parsed(row, "sass", Arch.parse))),
        ptx=tuple(sorted(parsed(row, "ptx", Arch.parse))),
        toolchains=texts(row, "toolchains", optional=True),
        fatbin_compression=_compression(row),
    )
    _agree(row, target)
    return target if target.toolkit is None else _checked_by_facts(row, target, target.toolkit)


def _agree(row: Fields, target: Target) -> None:
    """The id, which people read, and the fields, which decide the build, must say the same."""
    toolkit = row.find_parsed("toolkit", CudaVersion.parse)
    if toolkit != target.toolkit:
        raise Malformed(row.key("toolkit"), f"must be {str(target.toolkit or 'absent')!r} as the id {target.id} says")
    if toolkit is None:
        for name in _CUDA_KEYS:
            if row.find(name, object) is not None:
                raise Malformed(row.key(name), "has no meaning for a target without CUDA code")
        return
    for name in ("toolchains", "fatbin_compression"):
        if not row.find(name, object):
            raise Malformed(row.key(name), "is missing or empty; a CUDA target needs it")
    if len(set(target.sass)) != len(target.sass) or len(set(target.ptx)) != len(target.ptx):
        raise Malformed(row.key("sass"), "names an arch twice")
    if target.id.arch is not None and target.sass != (target.id.arch,):
        raise Malformed(row.key("sass"), f"must be exactly [{str(target.id.arch)!r}] as the id {target.id} says")
    if target.id.arch is None and len(target.sass) < 2:
        raise Malformed(row.key("sass"), "must name several archs, or the id be that of one arch")


def _checked_by_facts(row: Fields, target: Target, toolkit: CudaVersion) -> Target:
    """The target with its driver floor; refuses what its toolkit cannot emit and sources that do not have it."""
    facts = load_cuda_facts()
    known = facts.toolkits.get(toolkit)
    if known is None:
        raise Malformed(row.key("toolkit"), f"toolkits.yaml does not know CUDA {toolkit}")
    for arch in target.sass:
        if arch not in known.sass:
            raise Malformed(row.key("sass"), f"CUDA {toolkit} emits no machine code for {arch}")
    for toolchain in target.toolchains:
        if toolchain not in known.toolchains:
            raise Malformed(row.key("toolchains"), f"{toolchain[:40]!r} does not provide CUDA {toolkit}")
    floor = facts.min_driver(toolkit, ptx_only=not target.sass, zstd=target.fatbin_compression == "zstd")
    return replace(target, min_driver=floor)


def _one_of(row: Fields, name: str, known: tuple[str, ...]) -> str:
    text = row.get(name, str)
    if text not in known:
        raise Malformed(row.key(name), f"must be one of {', '.join(known)}, not {text[:40]!r}")
    return text


def _compression(row: Fields) -> Compression | None:
    if row.find("fatbin_compression", str) is None:
        return None
    return cast("Compression", _one_of(row, "fatbin_compression", COMPRESSIONS))
