"""images/engine_options.yaml -> EngineOptions: which options of the engine mean a file, and which are sdrun's to set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from sdrun.catalog.rows import fields, text_map, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed
from sdrun.core.model import ROLES
from sdrun.resources import images_dir

_KEYS = ("roles", "aliases", "reads", "reserved")
_PROGRAMS = ("cli", "server")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`roles`: role of a model's file -> its option; `files`: every option that names such a file -> its role; `reads`: every
    option whose value is a path to read; `reserved[program]`: option -> sdrun's own that does the same, empty for none."""

    roles: Mapping[str, str]
    files: Mapping[str, str]
    reads: frozenset[str]
    reserved: Mapping[str, Mapping[str, str]]


@cache
def engine_options(path: Path | None = None) -> EngineOptions:
    """The options, from images/engine_options.yaml unless another file is named. Raises BadConfiguration with all faults."""
    file = YamlFile(path or images_dir() / "engine_options.yaml")
    found: list[EngineOptions] = []
    with file.collecting():
        found.append(_options(file, fields(file, file.data, "", _KEYS)))
    file.finish()
    return found[0]


def _options(file: YamlFile, top: Fields) -> EngineOptions:
    roles, aliases = text_map(top, "roles"), text_map(top, "aliases")
    for role in ROLES:
        if role not in roles:
            raise Malformed(top.key("roles"), f"has no option for {role}")
    for option, role in aliases.items():
        if role not in roles:
            raise Malformed(f"aliases.{option}", f"{role} is not a role")
    files = {option: role for role, option in roles.items()} | aliases
    programs = fields(file, top.get("reserved", dict), "reserved", _PROGRAMS)
    reserved = {program: MappingProxyType(text_map(programs, program)) for program in _PROGRAMS}
    reads = texts(top, "reads")
    for option in (*files, *reads, *(option for table in reserved.values() for option in table)):
        if not option.startswith("-"):
            raise Malformed("", f"{option} is no option")
    return EngineOptions(
        MappingProxyType(roles), MappingProxyType(files), frozenset((*files, *reads)), MappingProxyType(reserved)
    )
