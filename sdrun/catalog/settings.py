"""images/settings.yaml -> settings: what makes the engine faster on which GPUs."""

from __future__ import annotations

from functools import cache
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import cast, get_args

from sdrun.catalog.families import families
from sdrun.catalog.rows import each, fields, one_of, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import ComputeCapability
from sdrun.core.decode import Fields, Malformed
from sdrun.core.setting import Evidence, How, Setting
from sdrun.resources import images_dir

_KEYS = ("name", "title", "options", "implied_by", "families", "evidence")
_EVIDENCE = ("capability", "how", "faster", "apart", "source", "result")


@cache
def settings(path: Path | None = None) -> tuple[Setting, ...]:
    """Every setting, in the file's order. Raises BadConfiguration with all faults at once."""
    file = YamlFile(path or images_dir() / "settings.yaml")
    rows: dict[str, Setting] = {}
    with file.collecting():
        top = fields(file, file.data, "", ("settings",))
        for setting in each(file, top, "settings", _KEYS, lambda row: _setting(file, row, rows)):
            rows[setting.name] = setting
    file.finish()
    return tuple(rows.values())


def _setting(file: YamlFile, row: Fields, known: dict[str, Setting]) -> Setting:
    name = row.text("name")
    if name in known:
        raise Malformed(row.key("name"), f"{name} stands here a second time")
    options = texts(row, "options")
    if not options:
        raise Malformed(row.key("options"), "is empty")
    implied_by = texts(row, "implied_by", optional=True)
    for key, words in (("options", options), ("implied_by", implied_by)):
        if bare := [word for word in words if not word.startswith("-")]:
            raise Malformed(row.key(key), f"{bare[0]} is no option")
    held = texts(row, "families")
    if unknown := [family for family in held if families().find(family) is None]:
        raise Malformed(row.key("families"), f"{unknown[0]} is not in families.yaml")
    evidence: dict[ComputeCapability, Evidence] = {}
    for capability, found in each(file, row, "evidence", _EVIDENCE, lambda part: _evidence(file, part, evidence)):
        evidence[capability] = found
    return Setting(name, row.text("title"), options, implied_by, held, MappingProxyType(evidence))


def _evidence(file: YamlFile, row: Fields, known: dict[ComputeCapability, Evidence]) -> tuple[ComputeCapability, Evidence]:
    capability = row.parse("capability", ComputeCapability.parse)
    if capability in known:
        raise Malformed(row.key("capability"), f"{capability} stands here a second time")
    how = one_of(row, "how", get_args(How))
    faster, apart = _faster(file, row), row.find("apart", float)
    if apart is not None and not 0 <= apart <= 255:
        raise Malformed(row.key("apart"), "must be between 0 and 255")
    if how == "measured" and (faster is None or apart is None):
        raise Malformed(row.key("faster" if faster is None else "apart"), "is missing: it was measured")
    if how == "documented" and (faster is not None or apart is not None):
        raise Malformed(row.key("faster" if apart is None else "apart"), "must be left out: it was not measured")
    return capability, Evidence(cast("How", how), row.text("source"), faster, apart, row.find("result", str))


def _faster(file: YamlFile, row: Fields) -> tuple[float, float] | None:
    value = row.find("faster", dict)
    if value is None:
        return None
    part = fields(file, value, row.key("faster"), ("least", "most"))
    least, most = part.get("least", float), part.get("most", float)
    if not 1 < least <= most < inf:
        raise Malformed(part.key("least"), "must be more than 1 and not above `most`: what is not faster is no setting")
    return least, most
