"""images/models.yaml -> Model values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from sdrun.catalog.rows import each, fields
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed
from sdrun.core.model import GENERATORS, ROLES, Defaults, MadeBy, Model, ModelFile
from sdrun.resources import images_dir

_KEYS = ("name", "family", "quantisation", "licence", "made_by", "memory_mib", "files", "defaults")
_DEFAULT_KEYS = ("width", "height", "steps", "cfg_scale", "sampler", "seed")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # a plain file name: it is joined to a folder of the store
_SHA256 = re.compile(r"[0-9a-f]{64}")


@cache
def models(path: Path | None = None) -> Mapping[str, Model]:
    """Every model by name, in file order, from images/models.yaml unless another file is named. Raises BadConfiguration with
    all faults at once."""
    file = YamlFile(path or images_dir() / "models.yaml")
    known: dict[str, Model] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("models",))
        for model in each(file, top, "models", _KEYS, lambda row: _model(file, row, known)):
            known[model.name] = model
    file.finish()
    return MappingProxyType(known)


def _model(file: YamlFile, row: Fields, known: Mapping[str, Model]) -> Model:
    name = _matching(row, "name", _NAME, "lower-case letters, digits, dots and hyphens")
    if name in known:
        raise Malformed(row.key("name"), f"{name} stands here a second time")
    made_by = fields(file, row.get("made_by", dict), row.key("made_by"), ("generator", "seed"))
    defaults = fields(file, row.get("defaults", dict), row.key("defaults"), _DEFAULT_KEYS)
    return Model(
        name=name,
        family=row.get("family", str),
        quantisation=row.get("quantisation", str),
        licence=row.get("licence", str),
        made_by=MadeBy(_one_of(made_by, "generator", GENERATORS), _at_least(made_by, "seed", 0)),
        memory_mib=_at_least(row, "memory_mib", 1),
        files=_files(file, row),
        defaults=_defaults(defaults),
    )


def _files(file: YamlFile, row: Fields) -> Mapping[str, ModelFile]:
    files: dict[str, ModelFile] = {}
    listed = fields(file, row.get("files", dict), row.key("files"), ROLES)
    for role in row.get("files", dict):
        if role not in ROLES:
            continue  # noted as a fault by fields()
        part = fields(file, listed.get(role, dict), listed.key(role), ("file", "bytes", "sha256"))
        files[role] = ModelFile(
            name=_matching(part, "file", _FILE, "letters, digits, dots, hyphens and underscores"),
            bytes=_at_least(part, "bytes", 1),
            sha256=_matching(part, "sha256", _SHA256, "64 hexadecimal digits in lower case"),
        )
    if not {"model", "diffusion"} & files.keys():
        raise Malformed(row.key("files"), 'needs a "model" or a "diffusion" file')
    if len({part.name for part in files.values()}) != len(files):
        raise Malformed(row.key("files"), "two roles have the same file name")
    return MappingProxyType(files)


def _defaults(row: Fields) -> Defaults:
    for name in ("width", "height"):
        if _at_least(row, name, 64) % 64:
            raise Malformed(row.key(name), "must be a multiple of 64")
    return Defaults(
        width=row.get("width", int),
        height=row.get("height", int),
        steps=_at_least(row, "steps", 1),
        cfg_scale=_number(row, "cfg_scale"),
        sampler=row.get("sampler", str),
        seed=_at_least(row, "seed", 0),
    )


def _matching(row: Fields, name: str, pattern: re.Pattern[str], words: str) -> str:
    text = row.get(name, str)
    if not pattern.fullmatch(text):
        raise Malformed(row.key(name), f"must consist of {words}, not {text[:40]!r}")
    return text


def _one_of(row: Fields, name: str, known: tuple[str, ...]) -> str:
    text = row.get(name, str)
    if text not in known:
        raise Malformed(row.key(name), f"must be one of {', '.join(known)}, not {text[:40]!r}")
    return text


def _at_least(row: Fields, name: str, least: int) -> int:
    value = row.get(name, int)
    if value < least:
        raise Malformed(row.key(name), f"must be at least {least}, is {value}")
    return value


def _number(row: Fields, name: str) -> float:
    value = row.get(name, object)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
        raise Malformed(row.key(name), "must be a number from 0 to 1000")
    return float(value)
