"""What a picture and a server have in common before anything is started: the model, the host, the image, the memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdrun.core import jit
from sdrun.core.fileset import FileSet
from sdrun.core.model import ModelFiles
from sdrun.errors import VerificationFailed
from sdrun.launch.choosing import Chosen, Fetching, Wishes, choose
from sdrun.launch.engine_args import check_readable, passed_through, read_by_engine
from sdrun.launch.fitting import Fitted, affordable, checked, fit_model, room_of
from sdrun.launch.jitcache import Kept, mounted
from sdrun.launch.processor import check_processor
from sdrun.launch.request import Request, completed
from sdrun.launch.tuning import tuned
from sdrun.launch.watch import Listener
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec

if TYPE_CHECKING:
    from sdrun.core.fit import Room
    from sdrun.core.model import Catalogue

RUN_TARGET_LABEL = "io.sdrun.run-target"


@dataclass(frozen=True, slots=True)
class Decided:
    """The request with its defaults, the model's files, where it runs, and what the engine is told beside the request: what
    makes it faster there, and what it needs so that the model fits."""

    request: Request
    model: ModelFiles
    chosen: Chosen
    fitted: Fitted


def expected_gpu(chosen: Chosen) -> bool | str:
    """The name the engine must say of its device; True where it may be any of several GPUs, False on the CPU."""
    gpus = chosen.plan.handover.gpus
    return gpus[0].name if len(gpus) == 1 else chosen.plan.code_path != "cpu"


def surrounded(spec: ContainerSpec, chosen: Chosen, kept: Kept | None) -> ContainerSpec:
    """The container with what the driver needs to compile PTX and to keep it, or is forbidden: with --no-jit the driver is told
    as well, so that a library in the image that has only PTX for this GPU is an error, not a silent wait at every run."""
    if chosen.plan.code_path != "cpu" and not chosen.allow_jit:
        return replace(spec, environment={**spec.environment, **jit.FORBIDDEN})
    return mounted(spec, kept)


def to_make(spec: ContainerSpec) -> tuple[Path, ...]:
    """The folders that must be made before a printed command can run: a bind mount makes none."""
    return tuple(mount.source for mount in spec.mounts if not mount.read_only and not mount.source.exists())


def run_name() -> str:
    """A new name for a container."""
    return f"sdrun-{os.urandom(6).hex()}"


def decide(
    request: Request,
    wishes: Wishes,
    fetching: Fetching,
    listener: Listener,
    connect: Callable[[], ContainerRuntime],
    environ: Mapping[str, str] = os.environ,
) -> tuple[Decided, ContainerRuntime]:
    """Checks and decides everything, from what costs least to what costs most: the engine arguments, the model, then the
    runtime, the host and the image, and whether there is memory for it. Starts nothing but what `fetching` allows."""
    from sdrun.catalog.models import models

    passed_through(request.engine_args, serves=request.serves)
    here = _model_that_is_here(request.model, listener)
    ready = None if here is None else _ready(request, here, listener)
    chosen = choose(connect, wishes, fetching, environ)
    check_processor(chosen.processor_level)
    for note in chosen.notes:
        listener.note(note)
    room = room_of(chosen) if request.fit else None
    if ready is None:  # fetched only now that it is known where it can run, and in which quantisation
        name = affordable(request.model, models(), room, listener.note)
        ready = _ready(request, _model(name, listener, fetch=fetching.pull), listener)
    answer = _told(ready, chosen, room, models(), listener)
    if answer.instead:
        listener.note(answer.notes[0])
        ready = _ready(request, _model(answer.instead, listener, fetch=fetching.pull), listener)
        answer = _told(ready, chosen, room, None, listener)
    for note in answer.notes:
        listener.note(note)
    return Decided(ready.request, ready.model, chosen, answer), connect()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A model whose files are here and belong together, and the request with its defaults."""

    request: Request
    model: ModelFiles
    files: FileSet


def _told(ready: _Ready, chosen: Chosen, room: Room | None, catalogue: Catalogue | None, listener: Listener) -> Fitted:
    """What makes the engine faster on the chosen GPU, then what it needs so that the model fits."""
    capabilities = {gpu.capability for gpu in chosen.plan.handover.gpus}
    faster = tuned(ready.request, ready.model, ready.files, capabilities, chosen.plan.code_path)
    answer = fit_model(ready.request, ready.model, ready.files, room, catalogue, faster.options)
    if not answer.instead:
        for note in faster.notes:
            listener.detail(note)
    return replace(answer, options=(*faster.options, *answer.options))


def _model_that_is_here(name: str, listener: Listener) -> ModelFiles | None:
    """The model's files, None where they would have to be fetched first."""
    try:
        return _model(name, listener, fetch=False)
    except VerificationFailed as missing:
        if missing.id != "model-not-fetched":
            raise
        return None


def _model(name: str, listener: Listener, *, fetch: bool) -> ModelFiles:
    from sdrun.catalog.models import models
    from sdrun.models.naming import resolve_model
    from sdrun.models.pull import Wishes as Allowed
    from sdrun.resources import cache_root

    return resolve_model(name, models(), cache_root(), listener.note, listener.download, Allowed(offline=not fetch))


def _ready(request: Request, model: ModelFiles, listener: Listener) -> _Ready:
    """The whole request, with the model's defaults, and the model's files, checked against each other."""
    full = completed(request, model.defaults)
    if request.seed is not None and request.seed < 0:
        listener.note(f"seed {full.seed}")
    check_readable(read_by_engine(full, model).mounts)
    files = checked(full, model)
    for note in files.notes:
        listener.note(note)
    return _Ready(full, model, files)
