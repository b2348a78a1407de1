"""The targets as other programs take them: a plain list, a GitHub workflow's matrix, a bake file for `docker buildx bake`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdrun.core.target import Base, Target, to_json

SCHEMA = "sdrun.matrix/v1"
# GitHub's own runners by platform (docs.github.com, "GitHub-hosted runners").
RUNNERS = {"linux/amd64": "ubuntu-24.04", "linux/arm64": "ubuntu-24.04-arm"}
FORMATS = ("json", "github", "bake")


def as_list(rows: Sequence[Target]) -> dict[str, object]:
    """Schema sdrun.matrix/v1: what `sdrun targets --json` says of each row, and its `name`, `engine` and `toolchain`."""
    return {
        "schema": SCHEMA,
        "targets": [
            {**to_json(row), "name": row.name, "engine": row.engine, "toolchain": row.toolchain.kind if row.toolchain else None}
            for row in rows
        ],
    }


def as_github(rows: Sequence[Target]) -> dict[str, object]:
    """The value of `strategy.matrix`: one job a target, on a runner of its platform. Every value is text."""
    return {
        "include": [
            {
                "name": row.name,
                "target": str(row.id),
                "platform": row.platform,
                "runner": RUNNERS[row.platform],
                "toolchain": row.toolchain.kind if row.toolchain else "",
                "tag": row.tag,
            }
            for row in rows
        ]
    }


def as_bake(rows: Sequence[Target], bases: Mapping[str, Base], folder: str, repository: str) -> dict[str, object]:
    """A bake file (JSON) for contexts that `sdrun render --sources -o FOLDER` wrote. The groups are `default` and one for each
    toolkit line. Targets of one tag and several platforms get a tag each, since a bake target is one image."""
    groups: dict[str, list[str]] = {"default": [row.name for row in rows]}
    for row in rows:
        if row.toolkit is not None:
            groups.setdefault(row.toolkit.short, []).append(row.name)
    return {
        "group": {name: {"targets": targets} for name, targets in groups.items()},
        "target": {row.name: _bake_target(row, bases[row.base], folder, repository) for row in rows},
    }


def _bake_target(row: Target, base: Base, folder: str, repository: str) -> dict[str, object]:
    return {
        "context": f"{folder.rstrip('/')}/{row.engine}-{row.name}",
        "dockerfile": "Dockerfile",
        "platforms": [row.platform],
        "tags": [f"{repository}:{row.engine}-{row.name}"],
        "args": {"BASE": base.image},
    }
