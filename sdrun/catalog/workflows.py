"""images/workflows.yaml: what the rendered CI workflows take from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sdrun.catalog.rows import each, fields, matching, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.decode import Fields, Malformed
from sdrun.core.platform import parse_platform
from sdrun.resources import images_dir

_SCHEMA = "sdrun.workflows/v1"
_ACTION = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_VERSION = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Action:
    """A step that others wrote, at one commit; `version` is the release tag that named it."""

    name: str
    version: str
    commit: str


@dataclass(frozen=True, slots=True)
class Workflows:
    """`actions` by name; the image of a job and what a hosted runner has in excess (`os`, `unneeded`: GitHub); the image, its
    packages, the service that builds and the runner's tag by platform (GitLab)."""

    actions: Mapping[str, Action]
    os: str
    unneeded: tuple[str, ...]
    image: str
    packages: tuple[str, ...]
    docker: str
    runners: Mapping[str, str]


@cache
def workflows(path: Path | None = None) -> Workflows:
    """The facts of images/workflows.yaml, unless another file is named. Raises BadConfiguration with all faults at once."""
    file = YamlFile(path or images_dir() / "workflows.yaml")
    actions: dict[str, Action] = {}
    runners: dict[str, str] = {}
    plain: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}

    def action(row: Fields) -> None:
        name = matching(row, "action", _ACTION, "OWNER/NAME")
        if name in actions:
            raise Malformed(row.key("action"), f"{name} stands here a second time")
        version = matching(row, "version", _VERSION, "a release such as v1.2.3")
        actions[name] = Action(name, version, matching(row, "commit", _COMMIT, "a full commit"))

    def runner(row: Fields) -> None:
        runners[row.parse("platform", parse_platform)] = row.get("tag", str)

    with file.collecting():
        top = fields(file, file.data, "", ("schema", "actions", "github", "gitlab"))
        if (schema := top.get("schema", str)) != _SCHEMA:
            raise Malformed("schema", f"must be {_SCHEMA!r}, not {schema[:40]!r}")
        list(each(file, top, "actions", ("action", "version", "commit"), action))
        github = fields(file, top.get("github", dict), "github", ("os", "unneeded"))
        gitlab = fields(file, top.get("gitlab", dict), "gitlab", ("image", "packages", "docker", "runners"))
        plain = {"os": github.get("os", str), "image": gitlab.get("image", str), "docker": gitlab.get("docker", str)}
        lists = {"unneeded": texts(github, "unneeded"), "packages": texts(gitlab, "packages")}
        list(each(file, gitlab, "runners", ("platform", "tag"), runner))
    file.finish()
    return Workflows(actions, plain["os"], lists["unneeded"], plain["image"], lists["packages"], plain["docker"], runners)
