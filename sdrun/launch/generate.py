"""`generate`: from a request to a picture in its place, or an error that says what to change."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdrun.errors import Interrupted, SdrunError
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.engine_args import container, inside, outside
from sdrun.launch.jitcache import Kept, in_use
from sdrun.launch.output import Destination, destination, disk_errors, full_disk, private_folder, publish
from sdrun.launch.preparing import RUN_TARGET_LABEL, Decided, decide, expected_gpu, run_name, surrounded, to_make
from sdrun.launch.request import Request, check
from sdrun.launch.runlog import RunLog, point_to, state_folder
from sdrun.launch.stopping import stoppable
from sdrun.launch.watch import Listener, Watch
from sdrun.runtime.protocol import ContainerRuntime, ContainerSpec, Exit

SCHEMA = "sdrun.generate/v1"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided, nothing started."""

    decided: Decided
    destination: Destination

    def spec(self, folder: Path, name: str, run: str, kept: Kept | None = None) -> ContainerSpec:
        """The container that writes the picture `name` into `folder`, and what the driver compiles into `kept`."""
        decided, chosen = self.decided, self.decided.chosen
        what = inside(decided.request, decided.model, folder.absolute(), name, decided.fitted.options)
        closed = container(
            chosen.image,
            what,
            f"{os.geteuid()}:{os.getegid()}",
            run,
            {RUN_TARGET_LABEL: chosen.plan.target},
            chosen.gpu,
            chosen.plan.handover.narrow_to,
        )
        return surrounded(closed, chosen, kept)

    @property
    def size(self) -> tuple[int, int] | None:
        """The size the picture must have; None where the engine decides (a first picture's own, or engine arguments)."""
        request = self.decided.request
        width, height = request.width, request.height
        return None if width is None or height is None or request.engine_args else (width, height)

    @property
    def expected_gpu(self) -> bool | str:
        """The name the engine must say of its device, where a GPU was chosen."""
        return expected_gpu(self.decided.chosen)


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
        decided = self.prepared.decided
        plan = decided.chosen.plan
        return {
            "schema": SCHEMA,
            "files": [str(path) for path in self.files],
            "seed": decided.request.seed,
            "model": decided.model.name,
            "target": plan.target,
            "image": decided.chosen.image,
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
    output, then what `decide` does. Starts nothing but what `fetching` allows."""
    _check(request)
    place = destination(request.output, request.batch, Path.cwd())
    decided, runtime = decide(request, wishes, fetching, listener, connect, environ)
    return Prepared(decided, place), runtime


def _check(request: Request) -> None:
    if request.sampler is None and request.scheduler is None:
        check(request)
        return
    from sdrun.catalog.engines import engines

    rows = engines().values()
    samplers = dict.fromkeys(name for engine in rows for name in engine.samplers)
    check(request, tuple(samplers), tuple(dict.fromkeys(name for engine in rows for name in engine.schedulers)))


def command_line(prepared: Prepared, runtime: ContainerRuntime) -> tuple[list[str], tuple[Path, ...]]:
    """The container command, as words, that writes the picture straight to its place, and the folders to make before."""
    place, compiled = prepared.destination, prepared.decided.chosen.compiled
    spec = prepared.spec(place.folder, place.direct_name, run_name(), Kept(compiled) if compiled is not None else None)
    return runtime.command_line(spec), to_make(spec)


def generate(prepared: Prepared, runtime: ContainerRuntime, listener: Listener, started: float) -> Outcome:
    """Runs the engine and puts the picture in its place. `started` is when the user began to wait (time.monotonic). Raises
    Interrupted after Ctrl-C and the like, the verdict's error where the engine failed; nothing is left behind then."""
    run = run_name()
    log = RunLog(state_folder() / "logs", run)
    try:
        with (
            stoppable(),
            private_folder(prepared.destination) as folder,
            in_use(prepared.decided.chosen.compiled, listener.note) as kept,
        ):
            spec = replace(prepared.spec(folder, prepared.destination.engine_name, run, kept), scratch=folder)
            listener.detail(shlex.join(runtime.command_line(spec)))
            watch = Watch(log, listener)
            exit = runtime.run(spec, watch.take)
            _judge(exit, prepared, watch, folder, spec)
            if kept is not None:
                kept.record(listener.note)
            if prepared.decided.request.metadata:
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
        point_to(error, log.path)
        raise
    finally:
        log.close()
    return Outcome(prepared, files, watch.device, exit.seconds, time.monotonic() - started, log.path)


def _judge(exit: Exit, prepared: Prepared, watch: Watch, folder: Path, spec: ContainerSpec) -> None:
    """Raises the verdict's error where the run failed, also where it succeeded on another device than the chosen one."""
    from sdrun.launch.diagnosis import diagnose

    verdict = diagnose(watch.reader, exit, prepared.expected_gpu)
    if verdict is None:
        return
    if verdict.id == "output-not-written" and (full := full_disk(folder)) is not None:
        raise full
    error = verdict.to_error()
    error.message = outside(error.message, spec)
    raise error
