"""The engine's arguments for machines that are not this one: what `generate` and `serve` would say, with the model's files on a
volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sdrun.core.model import ROLES, Model, ModelFile, ModelFiles
from sdrun.core.workload import VolumeFile, Workload, WorkloadKind
from sdrun.errors import UsageProblem, VerificationFailed
from sdrun.launch.engine_args import OUTPUT_FOLDER, Inside, container, inside, read_by_engine, settings
from sdrun.launch.request import Request, check, completed
from sdrun.launch.serve import ENGINE_PORT

if TYPE_CHECKING:
    from sdrun.core.lock import LockedClass

PICTURE = "output.png"
_RAM_MIB = float("inf")  # of the nodes is not known: pods ask for what the model needs


def model_elsewhere(text: str) -> Model:
    """The model that `text` names: one of the catalogue, or `role=FILE,role=FILE` with the names of files on the volume. Raises
    UsageProblem (`unknown-model`, `bad-option`, `video-model`)."""
    from sdrun.catalog.models import models
    from sdrun.models.naming import unknown

    if "=" in text:
        return _own(text)
    model = models().get(text)
    if model is None:
        raise unknown(text, models())
    if model.output == "video":
        raise UsageProblem(f"{model.name} makes videos, which sdrun does not do yet", "Choose another.", id="video-model")
    return model


def _own(text: str) -> Model:
    from sdrun.core.model import Licence

    files: dict[str, ModelFile] = {}
    for part in text.split(","):
        role, _, name = part.partition("=")
        if role not in ROLES or role in files or not name or "/" in name:
            raise UsageProblem(
                f"{part[:60]!r} names no file of a model on a volume",
                f"Say role=NAME, each role once and NAME without folders; roles are {', '.join(ROLES)}.",
            )
        files[role] = ModelFile(name, None, None)
    return Model("own", "", "", Licence("unknown", "conditional"), None, 0, MappingProxyType(files), None)


def workload(
    kind: WorkloadKind, request: Request, model: Model, program: str, prompts: Sequence[str] = (), chosen: Sequence[str] = ()
) -> Workload:
    """The workload of `kind` for `model`. `program`: the engine's server, or its command, by its path in the image; `chosen`:
    options that were found to be needed. Raises UsageProblem for what the request cannot be, and for engine arguments that name
    a file: there is none to mount."""
    check(replace(request, prompt=prompts[0]) if prompts else request)
    for prompt in prompts:
        check(Request(request.model, prompt))
    here = ModelFiles(
        model.name,
        MappingProxyType({role: Path("/models") / role / file.name for role, file in model.files.items()}),
        model.defaults,
        model.engine_args,
    )
    full = completed(replace(request, serves=kind == "server"), model.defaults)
    what = container("", _inside(kind, full, here, chosen), "", "", {}, None, ())
    return Workload(
        kind=kind,
        program=program,
        arguments=what.command,
        environment=what.environment,
        model=model.name,
        folder=model.name.replace(":", "-"),
        files=tuple(VolumeFile(f"{role}/{file.name}", file.sha256, file.bytes) for role, file in model.files.items()),
        prompts=tuple(prompts),
    )


@dataclass(frozen=True, slots=True)
class Fitting:
    """All arguments for one size of memory, and why they are what they are."""

    arguments: tuple[str, ...]
    reasons: tuple[str, ...]


def arguments_for(
    load: Workload, request: Request, model: Model, row: LockedClass, memory_mib: int, say: Callable[[str], None]
) -> Fitting | None:
    """The arguments of `load` on the GPUs of a class, each with `memory_mib`, with what `generate` would add there. None where
    the model's files are not in the store: their headers say what it needs. Raises NotEnoughMemory where nothing helps."""
    from sdrun.catalog.models import models
    from sdrun.core.fit import Room
    from sdrun.launch.fitting import TAKEN_BY_DRIVER, checked, fit_model
    from sdrun.launch.tuning import tuned
    from sdrun.models.naming import resolve_model
    from sdrun.models.pull import Wishes
    from sdrun.resources import cache_root

    if model.name not in models():
        return None
    try:
        here = resolve_model(model.name, models(), cache_root(), say, None, Wishes(offline=True))
    except VerificationFailed as missing:
        if missing.id != "model-not-fetched":
            raise
        return None
    full = completed(request, model.defaults)
    room = Room(memory_mib * (1 - TAKEN_BY_DRIVER), _RAM_MIB)
    files = checked(full, here)
    faster = tuned(full, here, files, row.capabilities, row.code_path)
    answer = fit_model(full, here, files, room, None, faster.options)
    told = (*faster.options, *answer.options)
    arguments = workload(load.kind, request, model, load.program, load.prompts, told).arguments
    return Fitting(arguments, (*faster.notes, *answer.notes))


def _inside(kind: WorkloadKind, request: Request, model: ModelFiles, chosen: Sequence[str]) -> Inside:
    read = read_by_engine(request, model, chosen)
    foreign = [mount for mount in read.mounts if not mount.target.startswith("/models/")]
    if foreign:
        raise UsageProblem(
            f"{foreign[0].source} is a file of this machine, which the nodes do not have",
            "Leave the option out.",
            id="bad-option",
        )
    if kind == "server":
        listen = ("--listen-ip", "0.0.0.0", "--listen-port", str(ENGINE_PORT))
        return replace(read, arguments=(*listen, *settings(request), *read.arguments))
    if kind == "job":
        return inside(request, model, Path(OUTPUT_FOLDER), PICTURE, chosen)
    return replace(read, arguments=(*settings(request), *read.arguments))
