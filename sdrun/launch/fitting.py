"""The model's files put to the test before anything is started: do they belong together, and is there room for them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sdrun.catalog.engine_options import engine_options
from sdrun.core.fileset import FileSet
from sdrun.core.fit import FLASH, OPTIONS, Fit, Misfit, Needs, Peak, Room, fit, largest_size, peak, size
from sdrun.core.model import ModelFiles
from sdrun.core.needs import MIB, needs
from sdrun.errors import NotEnoughMemory
from sdrun.launch.request import Request
from sdrun.resources import at_home

if TYPE_CHECKING:
    from sdrun.core.model import Catalogue, Model
    from sdrun.launch.choosing import Chosen

ENGINE_SIZE = 512  # of the engine, where neither the user nor the model says
TAKEN_BY_DRIVER = 0.03  # of a GPU's memory, where what is free cannot be asked
# Chroma masks padding, which flash attention leaves out; without the mask both agree (src/stable-diffusion.cpp warns of it).
WITH_FLASH: Mapping[str, tuple[str, ...]] = {"chroma": ("--chroma-disable-dit-mask",)}


@dataclass(frozen=True, slots=True)
class Fitted:
    """`options` for the engine and a line for people about each. `instead`: the name of a smaller quantisation to take."""

    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    instead: str | None = None


NOTHING_NEEDED = Fitted()


def checked(request: Request, model: ModelFiles) -> FileSet:
    """The files of the model, and those named by engine arguments, as one set. Raises what check_file_set raises."""
    from sdrun.models.family import check_file_set

    files = {**model.files, **named_files((*model.engine_args, *request.engine_args))}
    return check_file_set(replace(model, files=MappingProxyType(files)), encodes=request.encodes)


def named_files(arguments: tuple[str, ...]) -> Mapping[str, Path]:
    """The files that engine arguments give for parts of a model, by role."""
    roles = engine_options().files
    return {roles[option]: at_home(value) for option, value in pairwise(arguments) if option in roles}


def room_of(chosen: Chosen) -> Room | None:
    """What is free where the engine will run; None where nothing can be said."""
    from sdrun.probe.memory import free_gpu_mib, free_host_mib

    host = free_host_mib()
    if host is None:
        return None
    gpus = chosen.plan.handover.gpus
    if not gpus:
        return Room(None, float(host))
    free = free_gpu_mib(chosen.plan.devices[0])
    return Room(float(free) if free is not None else gpus[0].memory_mib * (1 - TAKEN_BY_DRIVER), float(host))


def fit_model(
    request: Request,
    model: ModelFiles,
    files: FileSet,
    room: Room | None,
    catalogue: Catalogue | None,
    tuned: tuple[str, ...] = (),
) -> Fitted:
    """What the engine must be told so that the model fits; `tuned` it is told anyway. Raises NotEnoughMemory
    (`out-of-gpu-memory`, `out-of-memory`) naming what would fit. Where nothing is known of the family, or of the room, nothing
    is changed."""
    width, height = request.width or ENGINE_SIZE, request.height or ENGINE_SIZE
    wanted = needs(files, width, height, encodes=request.encodes, keeps=request.serves)
    if wanted is None or room is None:
        return NOTHING_NEEDED
    told = (*model.engine_args, *tuned, *request.engine_args)
    given = [option for option in OPTIONS if option in told]
    if FLASH not in given and "--fa" in told:
        given.append(FLASH)
    answer = fit(wanted, room, given)
    if isinstance(answer, Fit):
        family = files.family.name if files.family else ""
        extra = WITH_FLASH.get(family, ()) if FLASH in answer.options else ()
        return Fitted((*answer.options, *extra), answer.reasons)
    smaller = _smaller(model, wanted, room, given, catalogue)
    if smaller and catalogue is not None and _family_only(request.model, catalogue):
        note = f"{model.name} needs {_amount(answer)}, {_free(answer)} are free; taking {smaller}"
        return Fitted(notes=(note,), instead=smaller)
    raise _refusal(request, files, answer, (width, height), given, smaller)


def affordable(name: str, catalogue: Catalogue, room: Room | None, say: Callable[[str], None]) -> str:
    """The name to fetch where the user named only a family: its usual quantisation, or the largest smaller one whose weights
    can be held at all. A first look by the size of files, so that nothing is fetched in vain; the headers decide later."""
    if room is None or not _family_only(name, catalogue):
        return name
    usual = catalogue[name]
    known = {other: _held(model, room) for other, model in catalogue.items() if model.row == usual.row}
    own = known.get(usual.name)
    if own is None or own.within(room):
        return name
    smaller = [(peak.gpu or peak.host, other) for other, peak in known.items() if peak is not None and peak.within(room)]
    smaller = [entry for entry in smaller if entry[0] < (own.gpu or own.host)]
    if not smaller:
        return name
    name, free = max(smaller)[1], room.host if room.gpu is None else room.gpu
    say(f"{usual.name} is too large for {size(free)} of free memory; taking {name}")
    return name


def _held(model: Model, room: Room) -> Peak | None:
    """The least that holding the weights takes: on a GPU the diffusion model alone, all of them in RAM."""
    drawn, total = _diffusion_bytes(model.files), model.bytes
    if drawn is None or total is None:
        return None
    flat = Needs(0.0, drawn / MIB, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Peak(peak(flat, (), on_gpu=True).gpu if room.gpu is not None else 0.0, total / MIB)


def _amount(answer: Misfit) -> str:
    return size(answer.peak.gpu if answer.short == "gpu" else answer.peak.host)


def _free(answer: Misfit) -> str:
    return size((answer.room.gpu or 0.0) if answer.short == "gpu" else answer.room.host)


def _family_only(text: str, catalogue: Catalogue) -> bool:
    """Whether the user named a row of the catalogue and no quantisation of it."""
    return any(text.lower() in (row.name, *row.aliases) for row in catalogue.rows.values())


def _smaller(model: ModelFiles, wanted: Needs, room: Room, given: list[str], catalogue: Catalogue | None) -> str | None:
    """The largest smaller quantisation of the same row that fits, judged by the size of its file."""
    if catalogue is None or model.model is None:
        return None
    own = _diffusion_bytes(model.model.files) or 0
    fitting = [
        (size_bytes, name)
        for name, size_bytes in _others(model, catalogue)
        if size_bytes < own
        and isinstance(
            fit(replace(wanted, diffusion_weights=wanted.diffusion_weights - (own - size_bytes) / MIB), room, given), Fit
        )
    ]
    return max(fitting)[1] if fitting else None


def _others(model: ModelFiles, catalogue: Catalogue) -> Iterator[tuple[str, int]]:
    for name, other in catalogue.items():
        if model.model is not None and other.row == model.model.row and (known := _diffusion_bytes(other.files)):
            yield name, known


def _diffusion_bytes(files: Mapping[str, object]) -> int | None:
    file = files.get("diffusion") or files.get("model")
    return getattr(file, "bytes", None)


def _refusal(
    request: Request, files: FileSet, answer: Misfit, at: tuple[int, int], given: list[str], smaller: str | None
) -> NotEnoughMemory:
    def fits(width: int, height: int) -> bool:
        wanted = needs(files, width, height, encodes=request.encodes, keeps=request.serves)
        return wanted is not None and isinstance(fit(wanted, answer.room, given), Fit)

    title = files.family.title if files.family else "the model"
    what = "GPU memory" if answer.short == "gpu" else "memory"
    message = f"{title} at {at[0]}x{at[1]} needs {_amount(answer)} of {what} at the least, {_free(answer)} are free"
    found = largest_size(*at, fits)
    ways = [f"a smaller size: -W {found[0]} -H {found[1]}"] if found else []
    ways += [f"a smaller quantisation: --model {smaller}"] if smaller else []
    remedy = f"This would fit: {', or '.join(ways)}." if ways else "Use a smaller model or quantisation, or free some memory."
    return NotEnoughMemory(
        message,
        f"{remedy} To try all the same: --no-fit.",
        id="out-of-gpu-memory" if answer.short == "gpu" else "out-of-memory",
    )
