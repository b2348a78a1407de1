"""Engines and targets that differ from the rows of images/: from a folder on this machine, with nothing left out, with pruned
libraries. Each has a name of its own, so that its images never take the tags of a row's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdrun.core.engine import Engine, PathSource
from sdrun.core.target import PRUNED_ENGINE, Target
from sdrun.errors import UsageProblem

LOCAL = "local"
FULL = "full"


def with_local_source(target: Target, engine: Engine, folder: Path) -> tuple[Target, Engine]:
    """The target built from `folder`. Its engine is named `local`, so that its image never takes the tag of a pinned one. Its
    libraries are whole: which functions of cuBLAS the folder's engine calls is not known."""
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
    return replace(target, engine=LOCAL, pruned=False), local


def in_full(target: Target, engine: Engine) -> tuple[Target, Engine]:
    """The target with all of its engine's GPU code, as the engine's own defaults have it. The engine is named `<name>-full`."""
    full = replace(engine, name=f"{engine.name}-{FULL}", left_out=())
    return replace(target, engine=full.name), full


def pruned(target: Target, engine: Engine) -> tuple[Target, Engine]:
    """The target with pruned libraries, its engine named `<name>-pruned`; a row that is pruned anyhow as it is. Raises
    UsageProblem (`cannot-prune`) where there is nothing to prune or nothing to do it with."""
    if target.pruned:
        return target, engine
    toolchain = target.toolchain
    if toolchain is None:
        raise _cannot_prune(f"{target.id} holds no libraries of a toolkit", "Select targets with GPU code.")
    if target.ptx:
        raise _cannot_prune(
            f"{target.id} holds PTX for GPUs to come, whose code a pruned library would lack", "Select targets without PTX."
        )
    if not toolchain.static_libraries:
        raise _cannot_prune(
            f"{toolchain.kind} has no static libraries of CUDA {toolchain.toolkit} to prune",
            "Name another with --toolchain or --toolkit, or build without --pruned.",
        )
    named = replace(engine, name=f"{engine.name}{PRUNED_ENGINE}")
    return replace(target, engine=named.name, pruned=True), named


def _cannot_prune(message: str, remedy: str) -> UsageProblem:
    return UsageProblem(message, remedy, id="cannot-prune")
