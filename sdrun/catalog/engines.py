"""images/engines.yaml -> Engine values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sdrun.catalog.rows import each, fields, matching, text_map, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import Arch
from sdrun.core.decode import Fields, Malformed, parse_at
from sdrun.core.engine import Engine, GitSource, LeftOut, PathSource, PypiSource, Source
from sdrun.resources import images_dir

_NAME = re.compile(r"[a-z0-9][a-z0-9._]*(-[a-z0-9._]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CMAKE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KEYS = (
    *("name", "title", "licence", "url", "version", "revision", "date", "source", "binaries", "licence_files"),
    *("notice_files", "cmake", "cpu_levels", "cuda", "compiled_as", "left_out", "samplers", "schedulers"),
    *("toolkit_libraries", "cublas_libraries", "cublas_entry_points"),
)
_LEFT_OUT_KEYS = ("part", "files", "reason", "instead", "everywhere")
_LIBRARY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PART = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FILE = re.compile(r"[A-Za-z0-9_.*?/{}\[\]-]+")
_SOURCE_KEYS: Mapping[str, tuple[str, ...]] = {
    "pypi": ("kind", "name", "version", "sha256", "subdir"),
    "git": ("kind", "url", "commit", "submodules", "subdir"),
    "path": ("kind", "path"),
}


@cache
def engines(path: Path | None = None) -> Mapping[str, Engine]:
    """Every engine by name, from images/engines.yaml unless another file is named. Raises BadConfiguration with all faults."""
    file = YamlFile(path or images_dir() / "engines.yaml")
    found: dict[str, Engine] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("engines",))
        for engine in each(file, top, "engines", _KEYS, lambda row: _engine(file, row)):
            if engine.name in found:
                file.fault(f"engines[{len(found)}].name", f"{engine.name} stands here a second time")
            found[engine.name] = engine
    file.finish()
    return found


def _engine(file: YamlFile, row: Fields) -> Engine:
    binaries = text_map(row, "binaries")
    if "cli" not in binaries:
        raise Malformed(row.key("binaries"), "must name the role cli")
    levels = row.get("cpu_levels", dict)
    level_row = Fields(levels, row.key("cpu_levels"))
    return Engine(
        name=matching(row, "name", _NAME, "a name of lower-case letters, digits, dots and single dashes"),
        title=row.get("title", str),
        licence=row.get("licence", str),
        url=row.get("url", str),
        version=row.get("version", str),
        revision=matching(row, "revision", _COMMIT, "a full commit"),
        epoch=row.parse("date", _epoch),
        source=_source(file, row),
        binaries=binaries,
        licence_files=texts(row, "licence_files"),
        notice_files=texts(row, "notice_files", optional=True),
        cmake=_cmake(row, "cmake"),
        cpu_levels={str(level): _cmake(level_row, str(level)) for level in levels},
        cuda=_cmake(row, "cuda"),
        compiled_as=_compiled_as(row),
        samplers=texts(row, "samplers"),
        schedulers=texts(row, "schedulers"),
        left_out=_left_out(file, row),
        toolkit_libraries=_names(row, "toolkit_libraries"),
        cublas_libraries=_names(row, "cublas_libraries"),
        cublas_entry_points=_names(row, "cublas_entry_points"),
    )


def _source(file: YamlFile, row: Fields) -> Source:
    bare = Fields(row.get("source", dict), row.key("source"))
    kind = bare.get("kind", str)
    if kind not in _SOURCE_KEYS:
        raise Malformed(bare.key("kind"), f"must be one of {', '.join(_SOURCE_KEYS)}, not {kind[:40]!r}")
    source = fields(file, row.get("source", dict), row.key("source"), _SOURCE_KEYS[kind])
    subdir = source.find("subdir", str) or "."
    if Path(subdir).is_absolute() or ".." in Path(subdir).parts:
        raise Malformed(source.key("subdir"), "must be a folder inside the source")
    if kind == "path":
        return PathSource(source.get("path", str))
    if kind == "pypi":
        sha256 = matching(source, "sha256", _SHA256, "64 lower-case hex digits")
        return PypiSource(source.get("name", str), source.get("version", str), sha256, subdir)
    submodules = text_map(source, "submodules") if source.find("submodules", dict) else {}
    for name, commit in submodules.items():
        if not _COMMIT.fullmatch(commit):
            raise Malformed(source.key(f"submodules.{name}"), f"must be a full commit, not {commit[:70]!r}")
    return GitSource(source.get("url", str), matching(source, "commit", _COMMIT, "a full commit"), submodules, subdir)


def _cmake(row: Fields, name: str) -> dict[str, str]:
    options = text_map(row, name)
    for option in options:
        if not _CMAKE_NAME.fullmatch(option):
            raise Malformed(f"{row.key(name)}.{option}", "is not the name of a CMake option")
    return options


def _names(row: Fields, name: str) -> tuple[str, ...]:
    """Names of libraries or of their symbols; they stand in a shell script."""
    found = texts(row, name)
    for text in found:
        if not _LIBRARY.fullmatch(text):
            raise Malformed(row.key(name), f"{text[:40]!r} is not the name of a library or a symbol")
    if not found or len(set(found)) != len(found):
        raise Malformed(row.key(name), "is empty or names something twice")
    return found


def _compiled_as(row: Fields) -> dict[Arch, Arch]:
    mapping = text_map(row, "compiled_as") if row.find("compiled_as", dict) else {}
    where = row.key("compiled_as")
    return {parse_at(Arch.parse, old, where): parse_at(Arch.parse, new, where) for old, new in mapping.items()}


def _left_out(file: YamlFile, row: Fields) -> tuple[LeftOut, ...]:
    """What is taken out of the engine. A part's patch lies beside the catalogue: patches/<engine>/<part>.patch."""
    if row.find("left_out", list) is None:
        return ()
    name = row.get("name", str)
    found = tuple(each(file, row, "left_out", _LEFT_OUT_KEYS, lambda part: _part(part, file.path.parent / "patches" / name)))
    parts = [part.part for part in found]
    if len(set(parts)) != len(parts):
        raise Malformed(row.key("left_out"), "names a part twice")
    return found


def _part(row: Fields, folder: Path) -> LeftOut:
    name = matching(row, "part", _PART, "a name of lower-case letters, digits and single dashes")
    try:
        patch = (folder / f"{name}.patch").read_text(encoding="utf-8")
    except OSError as fault:
        raise Malformed(row.key("part"), f"has no patch: {fault.filename}: {fault.strerror}") from None
    files = texts(row, "files", optional=True)
    for pattern in files:
        if not _FILE.fullmatch(pattern) or pattern.startswith("/") or ".." in Path(pattern).parts:
            raise Malformed(row.key("files"), f"must be a path inside the source, not {pattern[:60]!r}")
    everywhere = bool(row.find("everywhere", bool))
    return LeftOut(name, files, patch, row.get("reason", str), row.get("instead", str), everywhere)


def _epoch(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ValueError(f'must be a date such as "2026-05-06", not {text[:40]!r}') from None
