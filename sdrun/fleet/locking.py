"""The lock file, written: names and comments of the one that is there are kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdrun.catalog.lockfile import parse_lock
from sdrun.catalog.yamlcomments import keep_comments
from sdrun.core.facts import CudaFacts
from sdrun.core.fleet import FleetPlan
from sdrun.core.index import Index
from sdrun.core.lock import Lock, lock_of
from sdrun.core.node import Node
from sdrun.core.reference import Reference
from sdrun.errors import BadConfiguration, UsageProblem
from sdrun.fleet.planning import plan_fleet
from sdrun.render.fleet import render_lock


@dataclass(frozen=True, slots=True)
class Locked:
    """A lock, the plan it came from, and its text."""

    lock: Lock
    plan: FleetPlan
    text: str


def make_lock(
    nodes: Iterable[Node],
    index: Index,
    facts: CudaFacts,
    old: tuple[Path, str] | None,
    *,
    allow_jit: bool,
    tolerate: Iterable[str],
) -> Locked:
    """The lock for `nodes`. `old`: the lock file that is there, and its text: its classes keep their names, and its comments
    stay. One that holds nothing but comments is a new one. Raises BadConfiguration (`bad-lock`, and `bad-index` where an image
    to be pinned has no digest)."""
    held = _held(*old) if old is not None else None
    tolerated = {*tolerate, *(held.tolerate if held else ())}
    plan = plan_fleet(nodes, index, facts, allow_jit=allow_jit, tolerate=tolerated, names=held.names if held else None)
    for row in plan.classes:
        _check_pinned(row.image.image)
    lock = lock_of(plan, allow_jit=allow_jit, tolerate=tolerated)
    text = render_lock(lock)
    return Locked(lock, plan, keep_comments(old[1], text) if old is not None else text)


def _held(path: Path, text: str) -> Lock | None:
    if all(line.strip() in ("", "---") or line.lstrip().startswith("#") for line in text.splitlines()):
        return None
    try:
        return parse_lock(path, text)
    except BadConfiguration as fault:
        remedy = "Correct it, or name another file with --output; without it, names of classes and comments begin anew."
        raise BadConfiguration(fault.message, remedy, id=fault.id) from None


def _check_pinned(image: str) -> None:
    try:
        digest = Reference.parse(image).digest
    except ValueError as fault:
        raise BadConfiguration(
            f"the index names an image that is no reference: {fault}", "Publish it.", id="bad-index"
        ) from None
    if digest is None:
        raise BadConfiguration(
            f"the index names {image} without a digest, and a tag can move",
            "Take the index that sdrun publish wrote.",
            id="bad-index",
        )


def write_whole(path: Path, text: str) -> None:
    """Puts `text` at `path`, whole or not at all. Raises UsageProblem (`output-not-writable`)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as fault:
        raise UsageProblem(
            f"{path} cannot be written: {fault.strerror}", "Name another place.", id="output-not-writable"
        ) from None


def _umask() -> int:
    held = os.umask(0)
    os.umask(held)
    return held
