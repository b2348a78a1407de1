"""images/targets.yaml -> Target values. Refuses rows that contradict themselves or ask for what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.rows import each, fields, parsed, text_map, texts
from sdrun.catalog.toolchains import Toolchains, toolchains
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.code import match
from sdrun.core.decode import Fields, Malformed
from sdrun.core.engine import Engine
from sdrun.core.facts import CudaFacts
from sdrun.core.index import COMPRESSIONS, Compression, IndexImage
from sdrun.core.target import Base, Target, TargetId, Toolchain
from sdrun.core.version import CudaVersion
from sdrun.resources import images_dir

PLATFORMS = ("linux/amd64", "linux/arm64")
_SHARED_KEYS = ("toolchains", "fatbin_compression")
_CUDA_KEYS = ("toolkit", "sass", "ptx", "pruned", *_SHARED_KEYS)
_TARGET_KEYS = ("target", "engine", "platform", "base", "cpu_level", *_CUDA_KEYS)
_TOP_KEYS = ("engine", "platform", "cpu_levels", "lines", "targets")


@dataclass(frozen=True, slots=True)
class Targets:
    """What images/targets.yaml says: rows in file order; and of images/toolchains.yaml the bases by name and the toolchains by
    kind and toolkit."""

    rows: tuple[Target, ...]
    bases: Mapping[str, Base]
    toolchains: Mapping[tuple[str, CudaVersion], Toolchain]


@dataclass(frozen=True, slots=True)
class _Line:
    """What the targets of one toolkit share."""

    toolkit: CudaVersion
    toolchains: tuple[str, ...]
    compression: Compression


@dataclass(frozen=True, slots=True)
class _Context:
    """What a row is read against."""

    engine: str
    platform: str
    cpu_levels: Mapping[str, str]
    lines: Mapping[CudaVersion, _Line]
    engines: Mapping[str, Engine]
    sources: Toolchains
    facts: CudaFacts


@cache
def targets(path: Path | None = None, engines_path: Path | None = None, toolchains_path: Path | None = None) -> Targets:
    """Every target, from images/ unless other files are named. Raises BadConfiguration with all faults at once."""
    known_engines, sources, facts = engines(engines_path), toolchains(toolchains_path), load_cuda_facts()
    file = YamlFile(path or images_dir() / "targets.yaml")
    rows: list[Target] = []
    with file.collecting():
        top = fields(file, file.data, "", _TOP_KEYS)
        lines: dict[CudaVersion, _Line] = {}
        for line in each(file, top, "lines", ("toolkit", *_SHARED_KEYS), lambda row: _line(row, lines, sources)):
            lines[line.toolkit] = line
        levels = text_map(top, "cpu_levels")
        context = _Context(
            top.get("engine", str), _one_of(top, "platform", PLATFORMS), levels, lines, known_engines, sources, facts
        )
        seen: set[tuple[str, str, str]] = set()

        def read(row: Fields) -> Target:
            target = _target(row, context)
            key = (target.engine, str(target.id), target.platform)
            if key in seen:
                raise Malformed(row.key("target"), f"{target.id} for {target.platform} stands here a second time")
            seen.add(key)
            return target

        rows += each(file, top, "targets", _TARGET_KEYS, read)
    file.finish()
    return Targets(tuple(rows), sources.bases, sources.rows)


def _line(row: Fields, seen: Mapping[CudaVersion, _Line], sources: Toolchains) -> _Line:
    toolkit = row.parse("toolkit", CudaVersion.parse)
    if toolkit in seen:
        raise Malformed(row.key("toolkit"), f"CUDA {toolkit} stands here a second time")
    return _Line(toolkit, _sources(row, toolkit, sources), _compression(row))


def _target(row: Fields, context: _Context) -> Target:
    engine = row.find("engine", str) or context.engine
    if engine not in context.engines:
        raise Malformed(row.key("engine"), f"no engine {engine[:40]!r} in engines.yaml; known are {', '.join(context.engines)}")
    platform = _one_of(row, "platform", PLATFORMS) if row.find("platform", object) else context.platform
    levels = tuple(context.engines[engine].cpu_levels)
    level = _one_of(row, "cpu_level", levels) if row.find("cpu_level", object) else context.cpu_levels.get(platform, "")
    if level not in levels:
        raise Malformed(row.key("cpu_level"), f"{level!r}, the default of {platform}, is none of {', '.join(levels)}")
    id = row.parse("target", TargetId.parse)
    if id.toolkit is None:
        return _cpu(row, Target(id, engine, platform, _one_of(row, "base", tuple(context.sources.bases)), level))
    if row.find("base", object) is not None:
        raise Malformed(row.key("base"), "is that of the toolchain; a CUDA target names none")
    return _cuda(row, Target(id, engine, platform, "", level), id.toolkit, context)


def _cpu(row: Fields, target: Target) -> Target:
    for name in _CUDA_KEYS:
        if row.find(name, object) is not None:
            raise Malformed(row.key(name), "has no meaning for a target without CUDA code")
    return target


def _cuda(row: Fields, target: Target, toolkit: CudaVersion, context: _Context) -> Target:
    """The target with all that follows from its toolkit: line, toolchain, driver floor."""
    if toolkit not in context.facts.toolkits:
        raise Malformed(row.key("target"), f"toolkits.yaml does not know CUDA {toolkit}")
    if (said := row.find_parsed("toolkit", CudaVersion.parse)) not in (None, toolkit):
        raise Malformed(row.key("toolkit"), f"must be {str(toolkit)!r} as the id {target.id} says, not {str(said)!r}")
    line = context.lines.get(toolkit)
    own = {name: row.find(name, object) is not None for name in _SHARED_KEYS}
    if line is None and not all(own.values()):
        raise Malformed(
            row.key("target"), f"there is no line for CUDA {toolkit}, so this row must say {', '.join(_SHARED_KEYS)}"
        )
    names = _sources(row, toolkit, context.sources) if line is None or own["toolchains"] else line.toolchains
    compression = _compression(row) if line is None or own["fatbin_compression"] else line.compression
    found = replace(
        target,
        sass=tuple(sorted(parsed(row, "sass", Arch.parse))),
        ptx=tuple(sorted(parsed(row, "ptx", Arch.parse))),
        toolchains=names,
        fatbin_compression=compression,
        min_driver=None,
        pruned=bool(row.find("pruned", bool)),
    )
    if compression == "zstd" and not context.facts.toolkits[toolkit].compress_modes:
        raise Malformed(row.key("fatbin_compression"), f"CUDA {toolkit} cannot compress with zstd")
    _check_archs(row, found, toolkit, context)
    floor = context.facts.min_driver(toolkit, ptx_only=not found.sass, zstd=compression == "zstd")
    return replace(found, min_driver=floor).built_with(context.sources.rows[names[0], toolkit])


def _check_archs(row: Fields, target: Target, toolkit: CudaVersion, context: _Context) -> None:
    if len(set(target.sass)) != len(target.sass) or len(set(target.ptx)) != len(target.ptx):
        raise Malformed(row.key("sass"), "names an arch twice")
    if not target.sass:
        raise Malformed(row.key("sass"), "is missing or empty: a CUDA target says what machine code it holds")
    if target.id.arch is not None and [arch.number for arch in target.sass] != [target.id.arch.number]:
        raise Malformed(row.key("sass"), f"must hold one arch, {target.id.arch.number}, as the id {target.id} says")
    if target.id.arch is None and len(target.sass) < 2:
        raise Malformed(row.key("sass"), "must name several archs, or the id be that of one arch")
    emitted = context.facts.toolkits[toolkit].sass
    for name, archs in (("sass", target.sass), ("ptx", target.ptx)):
        for arch in archs:
            turned = context.engines[target.engine].compiled_as.get(arch, arch)
            if turned != arch:
                raise Malformed(row.key(name), f"the engine compiles {arch} as {turned}; say what the binary will hold")
            if arch not in emitted:
                what = "machine code" if name == "sass" else "PTX"
                raise Malformed(row.key(name), f"CUDA {toolkit} emits no {what} for {arch}")
    _check_ptx(row, target, toolkit, context.facts)
    _check_platform(row, target, context.facts)


def _check_ptx(row: Fields, target: Target, toolkit: CudaVersion, facts: CudaFacts) -> None:
    """Every PTX must be what the driver takes on some GPU, known or to come, and what the engine expects there."""
    image = IndexImage(str(target.id), "", target.platform, toolkit, target.sass, target.ptx)
    to_come = ComputeCapability(max(known.major for known in facts.capabilities) + 1, 0)
    found = [match(image, device, mixes=False, facts=facts) for device in (*facts.capabilities, to_come)]
    compiled = {one.arch for one in found if one.path == "ptx-jit"}
    for arch in target.ptx:
        if arch not in compiled:
            why = "machine code serves those it fits, or the engine expects another arch there"
            raise Malformed(row.key("ptx"), f"no GPU would run PTX {arch}: {why}")


def _check_platform(row: Fields, target: Target, facts: CudaFacts) -> None:
    wanted = "amd64" if target.platform == "linux/amd64" else "sbsa"
    for arch in target.sass:
        known = facts.capabilities.get(arch.capability)
        if known is not None and wanted not in known.platforms:
            where = ", ".join(known.platforms)
            raise Malformed(row.key("platform"), f"{target.platform} has no GPU of {arch.capability}; they are on {where}")


def _sources(row: Fields, toolkit: CudaVersion, sources: Toolchains) -> tuple[str, ...]:
    names = texts(row, "toolchains")
    if not names:
        raise Malformed(row.key("toolchains"), "is empty")
    for name in names:
        if (name, toolkit) not in sources.rows:
            raise Malformed(row.key("toolchains"), f"toolchains.yaml has no {name[:40]!r} that provides CUDA {toolkit}")
    return names


def _one_of(row: Fields, name: str, known: tuple[str, ...]) -> str:
    text = row.get(name, str)
    if text not in known:
        raise Malformed(row.key(name), f"must be one of {', '.join(known)}, not {text[:40]!r}")
    return text


def _compression(row: Fields) -> Compression:
    return cast("Compression", _one_of(row, "fatbin_compression", COMPRESSIONS))
