"""images/targets.yaml -> Target values. Refuses rows that contradict themselves or ask for what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.engines import engines
from sdrun.catalog.rows import each, fields, one_of, text_map, texts
from sdrun.catalog.targetarchs import check_archs
from sdrun.catalog.toolchains import Toolchains, toolchains
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch
from sdrun.core.decode import Fields, Malformed, check, parse_at
from sdrun.core.engine import Engine
from sdrun.core.facts import CudaFacts
from sdrun.core.index import COMPRESSIONS, Compression
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
    """What a row is read against, and where its faults are noted: a row can have several."""

    file: YamlFile
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
        engine, platform = top.get("engine", str), one_of(top, "platform", PLATFORMS)
        context = _Context(file, engine, platform, levels, lines, known_engines, sources, facts)
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
    """A row as a value. What cannot be without it (engine, id) is raised, every other fault noted."""
    noting = context.file.collecting
    engine = row.find("engine", str) or context.engine
    if engine not in context.engines:
        raise Malformed(row.key("engine"), f"no engine {engine[:40]!r} in engines.yaml; known are {', '.join(context.engines)}")
    id = row.parse("target", TargetId.parse)
    target = Target(id, engine, context.platform, "", "")
    with noting():
        if row.find("platform", object) is not None:
            target = replace(target, platform=one_of(row, "platform", PLATFORMS))
    with noting():
        target = replace(target, cpu_level=_cpu_level(row, target, context))
    if id.toolkit is None:
        return _cpu(row, target, context)
    with noting():
        if row.find("base", object) is not None:
            raise Malformed(row.key("base"), "is that of the toolchain; a CUDA target names none")
    return _cuda(row, target, id.toolkit, context)


def _cpu_level(row: Fields, target: Target, context: _Context) -> str:
    levels = tuple(context.engines[target.engine].cpu_levels)
    if row.find("cpu_level", object) is not None:
        return one_of(row, "cpu_level", levels)
    level = context.cpu_levels.get(target.platform, "")
    if level not in levels:
        raise Malformed(row.key("cpu_level"), f"{level!r}, the default of {target.platform}, is none of {', '.join(levels)}")
    return level


def _cpu(row: Fields, target: Target, context: _Context) -> Target:
    for name in _CUDA_KEYS:
        if row.find(name, object) is not None:
            context.file.fault(row.key(name), "has no meaning for a target without CUDA code")
    return replace(target, base=one_of(row, "base", tuple(context.sources.bases)))


def _cuda(row: Fields, target: Target, toolkit: CudaVersion, context: _Context) -> Target:
    """The target with all that follows from its toolkit: line, toolchain, driver floor."""
    if toolkit not in context.facts.toolkits:
        raise Malformed(row.key("target"), f"toolkits.yaml does not know CUDA {toolkit}")
    line = context.lines.get(toolkit)
    own = {name: row.find(name, object) is not None for name in _SHARED_KEYS}
    if line is None and not all(own.values()):
        raise Malformed(
            row.key("target"), f"there is no line for CUDA {toolkit}, so this row must say {', '.join(_SHARED_KEYS)}"
        )
    noting = context.file.collecting
    with noting():
        if (said := row.find_parsed("toolkit", CudaVersion.parse)) not in (None, toolkit):
            raise Malformed(row.key("toolkit"), f"must be {str(toolkit)!r} as the id {target.id} says, not {str(said)!r}")
    names, compression = (line.toolchains, line.compression) if line else ((), None)
    with noting():
        names = _sources(row, toolkit, context.sources) if own["toolchains"] else names
    with noting():
        compression = _compression(row) if own["fatbin_compression"] else compression
        if compression == "zstd" and not context.facts.toolkits[toolkit].compress_modes:
            raise Malformed(row.key("fatbin_compression"), f"CUDA {toolkit} cannot compress with zstd")
    with noting():
        target = replace(target, pruned=bool(row.find("pruned", bool)))
        _check_pruned(row, target, toolkit, names, context.sources)
    sass, ptx = _archs(row, "sass", context), _archs(row, "ptx", context)
    found = replace(target, sass=sass or (), ptx=ptx or (), toolchains=names, fatbin_compression=compression)
    if sass is not None and ptx is not None:
        check_archs(row, found, toolkit, context.engines[target.engine], context.facts, context.file)
    floor = context.facts.min_driver(toolkit, ptx_only=not found.sass, zstd=compression == "zstd")
    return replace(found, min_driver=floor).built_with(context.sources.rows[names[0], toolkit]) if names else found


def _archs(row: Fields, name: str, context: _Context) -> tuple[Arch, ...] | None:
    """The archs of a list, sorted; None where it is none or some are none, which is noted of each."""
    items: list[tuple[str, object]] | None = None
    found: list[Arch] = []
    with context.file.collecting():
        items = row.items(name, optional=True)
    for path, value in items or ():
        with context.file.collecting():
            arch = parse_at(Arch.parse, check(value, str, path), path)
            if arch in found:
                raise Malformed(path, f"names {arch} a second time")
            found.append(arch)
    return tuple(sorted(found)) if items is not None and len(found) == len(items) else None


def _check_pruned(row: Fields, target: Target, toolkit: CudaVersion, names: tuple[str, ...], sources: Toolchains) -> None:
    if not target.pruned:
        return
    lacking = [name for name in names if not sources.rows[name, toolkit].static_libraries]
    if lacking:
        able = [name for name, version in sources.rows if version == toolkit and sources.rows[name, version].static_libraries]
        remedy = f"let the row say toolchains: [{', '.join(able)}], or leave pruned out"
        raise Malformed(row.key("pruned"), f"{', '.join(lacking)} has no static libraries to prune; {remedy}")
    if row.find("ptx", object):
        raise Malformed(row.key("pruned"), "PTX is for GPUs to come, whose code a pruned library lacks; leave one of them out")


def _sources(row: Fields, toolkit: CudaVersion, sources: Toolchains) -> tuple[str, ...]:
    names = texts(row, "toolchains")
    if not names:
        raise Malformed(row.key("toolchains"), "is empty")
    for name in names:
        if (name, toolkit) not in sources.rows:
            raise Malformed(row.key("toolchains"), f"toolchains.yaml has no {name[:40]!r} that provides CUDA {toolkit}")
    return names


def _compression(row: Fields) -> Compression:
    return cast("Compression", one_of(row, "fatbin_compression", COMPRESSIONS))
