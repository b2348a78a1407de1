"""images/families.yaml -> Families."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import cast, get_args

from sdrun.catalog.rows import each, fields, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed
from sdrun.core.family import Compute, Context, Families, Family, Kind, Marks, Part, TextRule
from sdrun.resources import images_dir

_MARKS = ("has", "lacks", "tensor", "axis", "size")
_KIND = ("name", "title", "part", *_MARKS, "mib", "per_pixel")
_FAMILY = ("name", "title", *_MARKS, "text", "text_rule", "context", "vae", "compute")


@cache
def families(path: Path | None = None) -> Families:
    """Every part, kind and family from images/families.yaml unless another file is named. Raises BadConfiguration with all
    faults at once."""
    file = YamlFile(path or images_dir() / "families.yaml")
    parts: dict[str, Part] = {}
    kinds: dict[str, Kind] = {}
    rows: dict[str, Family] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("parts", "kinds", "families"))
        for name, value in top.get("parts", dict).items():
            row = fields(file, value, f"parts.{name}", ("prefix", "also"))
            parts[str(name)] = Part(str(name), row.get("prefix", str), texts(row, "also"))
        for kind in each(file, top, "kinds", _KIND, lambda row: _kind(row, parts, kinds)):
            kinds[kind.name] = kind
        for family in each(file, top, "families", _FAMILY, lambda row: _family(file, row, parts, kinds, rows)):
            rows[family.name] = family
    file.finish()
    return Families(MappingProxyType(parts), tuple(kinds.values()), tuple(rows.values()), MappingProxyType(kinds))


def _new(row: Fields, known: dict[str, Kind] | dict[str, Family]) -> str:
    name = row.get("name", str)
    if name in known:
        raise Malformed(row.key("name"), f"{name} stands here a second time")
    return name


def _marks(row: Fields) -> Marks:
    tensor = row.find("tensor", str)
    has = tuple(tuple(text.split("|")) for text in texts(row, "has", optional=True))
    if not has and tensor is None:
        raise Malformed(row.key("has"), "needs texts, or a tensor")
    return Marks(
        has,
        texts(row, "lacks", optional=True),
        tuple(tensor.split("|")) if tensor else (),
        row.get("axis", int) if tensor else 0,
        row.get("size", int) if tensor else 0,
    )


def _kind(row: Fields, parts: dict[str, Part], known: dict[str, Kind]) -> Kind:
    sizes = (float(row.find("mib", int) or 0), float(row.find("per_pixel", int) or 0))
    return Kind(_new(row, known), row.get("title", str), _among(row, "part", parts), _marks(row), *sizes)


def _among(row: Fields, name: str, known: dict[str, Part] | dict[str, Kind]) -> tuple[str, ...]:
    values = texts(row, name)
    for value in values:
        if value not in known:
            raise Malformed(row.key(name), f"{value} is not listed above")
    return values


def _family(file: YamlFile, row: Fields, parts: dict[str, Part], kinds: dict[str, Kind], known: dict[str, Family]) -> Family:
    rule = row.get("text_rule", str)
    if rule not in get_args(TextRule):
        raise Malformed(row.key("text_rule"), f"must be one of {', '.join(get_args(TextRule))}")
    text = fields(file, row.get("text", dict), row.key("text"), tuple(parts))
    return Family(
        _new(row, known),
        row.get("title", str),
        _marks(row),
        MappingProxyType({str(part): _among(text, str(part), kinds) for part in row.get("text", dict)}),
        cast(TextRule, rule),
        _among(row, "vae", kinds),
        _context(file, row),
        _compute(file, row),
    )


def _context(file: YamlFile, row: Fields) -> Context | None:
    value = row.find("context", dict)
    if value is None:
        return None
    part = fields(file, value, row.key("context"), ("tensor", "axis", "joined"))
    return Context(part.get("tensor", str), part.get("axis", int), part.get("joined", int))


def _compute(file: YamlFile, row: Fields) -> Compute | None:
    value = row.find("compute", dict)
    if value is None:
        return None
    part = fields(file, value, row.key("compute"), tuple(field.name for field in dataclasses.fields(Compute)))
    for name in ("pixels", "head"):
        if part.get(name, int) < 1:
            raise Malformed(part.key(name), "must be at least 1")
    return Compute(
        pixels=part.get("pixels", int),
        text=part.get("text", int),
        width=part.get("width", str),
        axis=part.get("axis", int),
        head=part.get("head", int),
        linear=part.get("linear", float),
        flash=part.get("flash", float),
        measured=part.find("measured", bool) is not False,
        own_vae=part.find("own_vae", float) or 1.0,
    )
