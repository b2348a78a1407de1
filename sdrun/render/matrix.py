"""The targets as other programs take them: a plain list, a GitHub workflow's matrix, a bake file for `docker buildx bake`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdrun.catalog.ci import Ci
from sdrun.core.target import Base, Target, to_json

SCHEMA = "sdrun.matrix/v1"
FORMATS = ("json", "github", "bake")
MAX_JOBS = 256  # of one GitHub matrix (docs.github.com, "Running variations of jobs in a workflow")


def as_list(rows: Sequence[Target]) -> dict[str, object]:
    """Schema sdrun.matrix/v1: what `sdrun targets --json` says of each row, and its `name`, `engine` and `toolchain`."""
    return {
        "schema": SCHEMA,
        "targets": [
            {**to_json(row), "name": row.name, "engine": row.engine, "toolchain": row.toolchain.kind if row.toolchain else None}
            for row in rows
        ],
    }


def as_github(rows: Sequence[Target], ci: Ci) -> dict[str, object]:
    """The value of `strategy.matrix`: one job a target, on a runner of its platform. Every value is text but `free_disk`, which
    is a truth value: in an `if:` the text "false" would be true."""
    return {
        "include": [
            {
                "name": row.name,
                "target": str(row.id),
                "platform": row.platform,
                "runner": ci.runner(row).label,
                "free_disk": ci.frees_disk(row),
                "toolkit": str(row.toolkit or ""),
                "toolchain": row.toolchain.kind if row.toolchain else "",
                "engine": row.engine,
                "tag": row.tag,
            }
            for row in rows
        ]
    }


def rows_of(document: object) -> list[dict[str, object]]:
    """The rows of what `as_github` gave, after a way through JSON. Raises ValueError for anything else."""
    rows = document.get("include") if isinstance(document, dict) else None
    wanted = ("name", "target", "platform", "toolkit", "toolchain", "tag")
    if not isinstance(rows, list):
        raise ValueError("is no matrix: it has no list `include`")
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in wanted):
            raise ValueError(f"is no matrix: a row lacks one of {', '.join(wanted)}")
    return rows


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
