"""`generate`: from a request to a picture in its place, or an error that says what to change."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdrun.core.fileset import FileSet
from sdrun.core.model import ModelFiles
from sdrun.errors import Interrupted, SdrunError, VerificationFailed
from sdrun.launch.choosing import Chosen, Fetching, Wishes, choose
from sdrun.launch.engine_args import check_readable, container, inside, passed_through
from sdrun.launch.fitting import NOTHING_NEEDED, Fitted, affordable, checked, fit_model, room_of
from sdrun.launch.output import Destination, destination, disk_errors, full_disk, private_folder, publish
from sdrun.launch.processor import check_processor
from sdrun.launch.request import Request, check, completed
from sdrun.launch.runlog import RunLog, state_folder
from sdrun.launch.stopping import stoppable
from sdrun.launch.watch import Listener, Watch
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit

SCHEMA = "sdrun.generate/v1"
RUN_TARGET_LABEL = "io.sdrun.run-target"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided, nothing started."""

    request: Request
    model: ModelFiles
    chosen: Chosen
    destination: Destination
    fitted: Fitted = NOTHING_NEEDED

    def spec(self, folder: Path, name: str, run: str) -> ContainerSpec:
        """The container that writes the picture `name` into `folder`."""
        what = inside(self.request, self.model, folder.absolute(), name, self.fitted.options)
        return container(
            self.chosen.image,
            what,
            f"{os.geteuid()}:{os.getegid()}",
            run,
            {RUN_TARGET_LABEL: self.chosen.plan.target},
            self.chosen.gpu,
            self.chosen.plan.handover.narrow_to,
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """The size the picture must have; None where the engine decides (a first picture's own, or engine arguments)."""
        width, height = self.request.width, self.request.height
        return None if width is None or height is None or self.request.engine_args else (width, height)

    @property
    def expected_gpu(self) -> bool | str:
        """The name the engine must say of its device, where a GPU was chosen."""
        gpus = self.chosen.plan.handover.gpus
        return gpus[0].name if len(gpus) == 1 else self.chosen.plan.code_path != "cpu"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A picture, or several, and how it came about. `engine_seconds` by the runtime's clock, `seconds` of the whole call."""

    prepared: Prepared
    files: tuple[Path, ...]
    device: str
    engine_seconds: float
    seconds: float
    log: Path | None

    def to_json(self) -> dict[str, object]:
        """The document of `--json`, schema sdrun.generate/v1."""
        plan = self.prepared.chosen.plan
        return {
            "schema": SCHEMA,
            "files": [str(path) for path in self.files],
            "seed": self.prepared.request.seed,
            "model": self.prepared.model.name,
            "target": plan.target,
            "image": self.prepared.chosen.image,
            "code_path": plan.code_path,
            "device": self.device,
            "seconds": {"engine": round(self.engine_seconds, 3), "total": round(self.seconds, 3)},
            "log": str(self.log) if self.log else None,
        }


def prepare(
    request: Request,
    wishes: Wishes,
    fetching: Fetching,
    listener: Listener,
    connect: Callable[[], ContainerRuntime],
    environ: Mapping[str, str] = os.environ,
) -> tuple[Prepared, ContainerRuntime]:
    """Checks and decides everything, from what costs least to what costs most: the words of the request, the place of the
    output, the model, then the runtime, the host and the image, and whether there is memory for it. Starts nothing but what
    `fetching` allows."""
    from sdrun.catalog.models import models

    _check(request)
    place = destination(request.output, request.batch, Path.cwd())
    passed_through(request.engine_args)
    here = _model_that_is_here(request.model, listener)
    ready = None if here is None else _ready(request, here, place, listener)
    runtime = connect()
    chosen = choose(runtime, wishes, fetching, environ)
    check_processor(chosen.processor_level)
    for note in chosen.notes:
        listener.note(note)
    room = room_of(chosen) if request.fit else None
    if ready is None:  # fetched only now that it is known where it can run, and in which quantisation
        name = affordable(request.model, models(), room, listener.note)
        ready = _ready(request, _model(name, listener, fetch=fetching.pull), place, listener)
    answer = fit_model(ready.request, ready.model, ready.files, room, models())
    if answer.instead:
        listener.note(answer.notes[0])
        ready = _ready(request, _model(answer.instead, listener, fetch=fetching.pull), place, listener)
        answer = fit_model(ready.request, ready.model, ready.files, room, None)
    for note in answer.notes:
        listener.note(note)
    return Prepared(ready.request, ready.model, chosen, place, answer), runtime


@dataclass(frozen=True, slots=True)
class _Ready:
    """A model whose files are here and belong together, and the request with its defaults."""

    request: Request
    model: ModelFiles
    files: FileSet


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


def _ready(request: Request, model: ModelFiles, place: Destination, listener: Listener) -> _Ready:
    """The whole request, with the model's defaults, and the model's files, checked against each other."""
    full = completed(request, model.defaults)
    if request.seed is not None and request.seed < 0:
        listener.note(f"seed {full.seed}")
    check_readable(inside(full, model, place.folder, "check").mounts)
    files = checked(full, model)
    for note in files.notes:
        listener.note(note)
    return _Ready(full, model, files)


def _check(request: Request) -> None:
    if request.sampler is None and request.scheduler is None:
        check(request)
        return
    from sdrun.catalog.engines import engines

    rows = engines().values()
    samplers = dict.fromkeys(name for engine in rows for name in engine.samplers)
    check(request, tuple(samplers), tuple(dict.fromkeys(name for engine in rows for name in engine.schedulers)))


def command_line(prepared: Prepared, runtime: ContainerRuntime) -> list[str]:
    """The container command, as words, that writes the picture straight to its place."""
    place = prepared.destination
    return runtime.command_line(prepared.spec(place.folder, place.direct_name, _run_name()))


def generate(prepared: Prepared, runtime: ContainerRuntime, listener: Listener, started: float) -> Outcome:
    """Runs the engine and puts the picture in its place. `started` is when the user began to wait (time.monotonic). Raises
    Interrupted after Ctrl-C and the like, the verdict's error where the engine failed; nothing is left behind then."""
    run = _run_name()
    log = RunLog(state_folder() / "logs", run)
    try:
        with stoppable(), private_folder(prepared.destination) as folder:
            spec = replace(prepared.spec(folder, prepared.destination.engine_name, run), scratch=folder)
            listener.detail(shlex.join(runtime.command_line(spec)))
            watch = Watch(log, listener)
            exit = runtime.run(spec, watch.take)
            _judge(exit, prepared, watch, folder, spec)
            if prepared.request.metadata:
                from sdrun.launch.metadata import embed

                with disk_errors(prepared.destination.folder):
                    embed(prepared, [folder / name for name in prepared.destination.written], watch.device)
            size = watch.aligned if watch.aligned and prepared.size else prepared.size
            files = publish(prepared.destination, folder, size)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; no container and no unfinished picture was left behind", "Run the same command again."
        ) from None
    except SdrunError as error:
        _point_to(error, log.path)
        raise
    finally:
        log.close()
    return Outcome(prepared, files, watch.device, exit.seconds, time.monotonic() - started, log.path)


def _run_name() -> str:
    return f"sdrun-{os.urandom(6).hex()}"


def _judge(exit: Exit, prepared: Prepared, watch: Watch, folder: Path, spec: ContainerSpec) -> None:
    """Raises the verdict's error where the run failed, also where it succeeded on another device than the chosen one."""
    from sdrun.launch.diagnosis import diagnose

    verdict = diagnose(watch.reader, exit, prepared.expected_gpu)
    if verdict is None:
        return
    if verdict.id == "output-not-written" and (full := full_disk(folder)) is not None:
        raise full
    error = verdict.to_error()
    error.message = _outside(error.message, spec)
    raise error


def _outside(text: str, spec: ContainerSpec) -> str:
    """Container paths in a message as the user knows them."""
    for mount in sorted(spec.mounts, key=lambda mount: -len(mount.target)):
        text = text.replace(mount.target, str(mount.source))
    return text


def _point_to(error: SdrunError, log: Path | None) -> None:
    if log is not None and not isinstance(error, Interrupted) and log.exists() and log.stat().st_size:
        error.detail = "\n".join([*([error.detail.rstrip("\n")] if error.detail else []), f"whole log: {log}"])
