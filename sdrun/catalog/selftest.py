"""images/selftest.yaml -> the Suite of probes that sdrun selftest draws, and where their recorded pictures are."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType

from sdrun.catalog.rows import at_least, each, fields, text_map, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed, check
from sdrun.core.selftest import BACKENDS, Backend, Difference, Family, Probe, Suite
from sdrun.resources import images_dir

_TOP_KEYS = ("model", "prompt", "seed", "size", "steps", "recorded", "families", "probes")
_PROBE_KEYS = ("name", "title", "exercises", "exercises_on", "arguments", "init", "strength", "picture", "bounds", "quick")


def pictures_dir() -> Path:
    """The folder of the recorded pictures."""
    return images_dir() / "selftest"


@cache
def selftest(path: Path | None = None) -> Suite:
    """The suite, from images/selftest.yaml unless another file is named. Raises BadConfiguration with all faults at once."""
    file = YamlFile(path or images_dir() / "selftest.yaml")
    read: list[Suite] = []
    with file.collecting():
        top = fields(file, file.data, "", _TOP_KEYS)
        families = {family.name: family for family in each(file, top, "families", ("name", "title", "avoid"), _family)}
        probes = tuple(each(file, top, "probes", _PROBE_KEYS, lambda row: _probe(row, families)))
        for name in families:
            if not any(name in group for probe in probes for group in probe.exercises.values()):
                file.fault("families", f"no probe exercises {name}")
        if len({probe.name for probe in probes}) < len(probes):
            file.fault("probes", "two have one name")
        if not any(probe.quick for probe in probes):
            file.fault("probes", "none is quick")
        read.append(_suite(top, families, probes))
    file.finish()
    return read[0]


def _suite(top: Fields, families: dict[str, Family], probes: tuple[Probe, ...]) -> Suite:
    return Suite(
        model=top.text("model"),
        prompt=top.text("prompt"),
        seed=at_least(top, "seed", 0),
        size=at_least(top, "size", 64),
        steps=at_least(top, "steps", 1),
        families=MappingProxyType(families),
        probes=probes,
        recorded=MappingProxyType(text_map(top, "recorded")),
    )


def _family(row: Fields) -> Family:
    return Family(row.text("name"), row.text("title"), row.find("avoid", str) or "")


def _probe(row: Fields, families: dict[str, Family]) -> Probe:
    strength = row.find("strength", float)
    if strength is not None and not 0 <= strength <= 1:
        raise Malformed(row.key("strength"), "must be from 0 to 1")
    return Probe(
        name=row.text("name"),
        title=row.text("title"),
        exercises=_exercises(row, families),
        picture=_file(row, "picture"),
        bounds=_bounds(row),
        arguments=texts(row, "arguments", optional=True),
        init=None if row.find("init", str) is None else _file(row, "init"),
        strength=strength,
        quick=row.find("quick", bool) or False,
    )


def _exercises(row: Fields, families: dict[str, Family]) -> MappingProxyType[Backend, frozenset[str]]:
    """The families that a probe exercises everywhere, and those that it exercises on one backend only."""
    everywhere = frozenset(texts(row, "exercises"))
    only = fields_of(row, "exercises_on") if row.find("exercises_on", dict) is not None else None
    groups = {name: everywhere | frozenset(texts(only, name, optional=True) if only else ()) for name in BACKENDS}
    for name in sorted(frozenset().union(*groups.values()) - families.keys()):
        raise Malformed(row.key("exercises"), f"{name[:40]!r} does not stand under families")
    return MappingProxyType(groups)


def fields_of(row: Fields, name: str) -> Fields:
    """A mapping of a row by backend; a key that is no backend is a fault."""
    inner = Fields(row.get(name, dict), row.key(name))
    for key in row.get(name, dict):
        if key not in BACKENDS:
            raise Malformed(inner.key(str(key)), f"is no backend; there are {' and '.join(BACKENDS)}")
    return inner


def _bounds(row: Fields) -> MappingProxyType[Backend, Difference]:
    inner = fields_of(row, "bounds")
    return MappingProxyType({name: _difference(Fields(inner.get(name, dict), inner.key(name))) for name in BACKENDS})


def _difference(row: Fields) -> Difference:
    return Difference(_levels(row, "mean"), _levels(row, "worst"))


def _levels(row: Fields, name: str) -> float:
    value = row.get(name, object)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 255:
        raise Malformed(row.key(name), "must be a number from 0 to 255")
    return float(value)


def _file(row: Fields, name: str) -> str:
    text = check(row.get(name, str), str, row.key(name))
    if "/" in text or not text.endswith(".png"):
        raise Malformed(row.key(name), "must be the plain name of a PNG file")
    return text
