"""images/ci.yaml: the runner of each platform, and whether a job has to make room on it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sdrun.catalog.rows import each, fields
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed
from sdrun.core.target import Target
from sdrun.resources import images_dir

_SCHEMA = "sdrun.ci/v1"
NO_TOOLCHAIN = "none"  # the name of a target's toolchain where it has none


@dataclass(frozen=True, slots=True)
class Runner:
    """A hosted runner: its label (`runs-on`), and the gigabytes of disk a job may count on."""

    label: str
    disk_gb: int


@dataclass(frozen=True, slots=True)
class Ci:
    """What images/ci.yaml says: runners by platform, the gigabytes a build takes by kind of toolchain, and what a job takes
    besides its build."""

    runners: Mapping[str, Runner]
    disk_gb: Mapping[str, int]
    besides_gb: int

    def runner(self, target: Target) -> Runner:
        """The runner that builds `target`. Raises KeyError for a platform without one."""
        return self.runners[target.platform]

    def frees_disk(self, target: Target) -> bool:
        """Whether its job needs more disk than its runner promises. Raises KeyError for an unknown platform or toolchain."""
        kind = target.toolchain.kind if target.toolchain else NO_TOOLCHAIN
        return self.disk_gb[kind] + self.besides_gb > self.runner(target).disk_gb


@cache
def ci(path: Path | None = None) -> Ci:
    """The facts of images/ci.yaml, unless another file is named. Raises BadConfiguration with all faults at once."""
    file = YamlFile(path or images_dir() / "ci.yaml")
    runners: dict[str, Runner] = {}
    disk: dict[str, int] = {}
    besides = 0

    def runner(row: Fields) -> None:
        runners[_new(row, "platform", runners)] = Runner(row.get("runner", str), row.parse("disk_gb", _gigabytes))

    def build(row: Fields) -> None:
        disk[_new(row, "toolchain", disk)] = row.parse("disk_gb", _gigabytes)

    with file.collecting():
        top = fields(file, file.data, "", ("schema", "runners", "builds", "besides"))
        if (schema := top.get("schema", str)) != _SCHEMA:
            raise Malformed("schema", f"must be {_SCHEMA!r}, not {schema[:40]!r}")
        list(each(file, top, "runners", ("platform", "runner", "disk_gb"), runner))
        list(each(file, top, "builds", ("toolchain", "disk_gb"), build))
        besides = top.parse("besides", _gigabytes)
    file.finish()
    return Ci(runners, disk, besides)


def _new(row: Fields, name: str, seen: Mapping[str, object]) -> str:
    text = row.get(name, str)
    if text in seen:
        raise Malformed(row.key(name), f"{text} stands here a second time")
    return text


def _gigabytes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise ValueError(f"must be a whole number of gigabytes in quotes, not {text[:40]!r}")
    return int(text)
