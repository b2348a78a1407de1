"""Engines that differ from the rows of images/engines.yaml: from a folder on this machine, or with nothing left out. Each has a
name of its own, so that its images never take the tags of a row's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdrun.core.engine import Engine, PathSource
from sdrun.core.target import Target
from sdrun.errors import UsageProblem

LOCAL = "local"
FULL = "full"


def with_local_source(target: Target, engine: Engine, folder: Path) -> tuple[Target, Engine]:
    """The target built from `folder`. Its engine is named `local`, so that its image never takes the tag of a pinned one."""
    if not folder.is_dir():
        raise UsageProblem(f"{folder} is not a folder", "Name the folder of stable-diffusion.cpp.", id="bad-engine-source")
    pinned = (engine.version, engine.revision[:7])
    local = replace(
        engine,
        name=LOCAL,
        version=LOCAL,
        revision="",
        source=PathSource(str(folder.resolve())),
        licence_files=tuple(name for name in engine.licence_files if (folder / name).is_file()),
        notice_files=tuple(name for name in engine.notice_files if (folder / name).is_file()),
        cmake={name: LOCAL if value in pinned else value for name, value in engine.cmake.items()},
        left_out=(),  # the patches are for the pinned sources
    )
    return replace(target, engine=LOCAL), local


def in_full(target: Target, engine: Engine) -> tuple[Target, Engine]:
    """The target with all of its engine's GPU code, as the engine's own defaults have it. The engine is named `<name>-full`."""
    full = replace(engine, name=f"{engine.name}-{FULL}", left_out=())
    return replace(target, engine=full.name), full
