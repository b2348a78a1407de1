"""From a request to what the engine is told: its arguments, the files it may read, the one folder it may write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdrun.catalog.engine_options import engine_options
from sdrun.core.model import ModelFiles
from sdrun.errors import UsageProblem
from sdrun.launch.request import Request
from sdrun.runtime.protocol import ContainerSpec, GpuRequest, Mount

OUTPUT_FOLDER = "/out"
_ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/tmp",
    "GGML_NO_BACKTRACE": "1",  # on abort ggml would fork a debugger; there is none in the image
    "CUDA_CACHE_DISABLE": "1",  # a cache of compiled kernels would go with the container; jitcache.py mounts one
}


@dataclass(frozen=True, slots=True)
class Inside:
    """Paths as the engine sees them: `arguments` to it, and the `mounts` that make them true."""

    arguments: tuple[str, ...]
    mounts: tuple[Mount, ...]


def inside(request: Request, model: ModelFiles, out: Path, name: str, chosen: Sequence[str] = ()) -> Inside:
    """`name` is the picture's file in the folder `out`, a %d pattern for a batch; `chosen` are options that sdrun found to be
    needed. What stands later wins in the engine: the model's own arguments, then these, then the user's."""
    read = read_by_engine(request, model, chosen)
    written = (*options(request), "--output", f"{OUTPUT_FOLDER}/{name}")
    return Inside((*written, *read.arguments), (*read.mounts, Mount(out, OUTPUT_FOLDER, read_only=False)))


def read_by_engine(request: Request, model: ModelFiles, chosen: Sequence[str] = ()) -> Inside:
    """The part of the arguments that names what the engine reads, with `chosen` and the user's own, and the mounts for it."""
    mounts: list[Mount] = []
    arguments: list[str] = []
    for role, path in model.files.items():
        target = f"/models/{role}/{path.name}"
        mounts.append(Mount(path.resolve(), target))
        arguments += [engine_options().roles[role], target]
    if request.init is not None:
        target = f"/inputs/init/{request.init.name}"
        mounts.append(Mount(request.init.resolve(), target))
        arguments += ["--init-img", target]
    passed, more = passed_through(request.engine_args, serves=request.serves)
    return Inside((*arguments, *model.engine_args, *chosen, *passed), (*mounts, *more))


def options(request: Request) -> list[str]:
    """The engine's options for everything but files; what is None is left to the engine."""
    words = ["--prompt", request.prompt]
    if request.negative:
        words += ["--negative-prompt", request.negative]
    words += settings(request)
    if request.batch > 1:
        words += ["--batch-count", str(request.batch), "--output-begin-idx", "1"]
    if not request.metadata:
        words.append("--disable-image-metadata")
    return words


def settings(request: Request) -> list[str]:
    """The options of how to draw; for a server the defaults of requests that say nothing."""
    words: list[str] = []
    numbers: Iterable[tuple[str, object]] = (
        ("--width", request.width),
        ("--height", request.height),
        ("--steps", request.steps),
        ("--cfg-scale", request.cfg_scale),
        ("--guidance", request.guidance),
        ("--seed", request.seed),
        ("--sampling-method", request.sampler),
        ("--scheduler", request.scheduler),
        ("--strength", request.strength),
    )
    for option, value in numbers:
        if value is not None:
            words += [option, str(value)]
    return words


def passed_through(arguments: Sequence[str], *, serves: bool = False) -> tuple[list[str], list[Mount]]:
    """The engine arguments with host paths turned into mounted ones. Raises UsageProblem for an option that sdrun itself sets
    and for a path that is not there. `serves`: they are for the engine's server."""
    known = engine_options()
    reserved = known.reserved["server" if serves else "cli"]
    words: list[str] = []
    mounts: list[Mount] = []
    rest = iter(arguments)
    for word in rest:
        if word in reserved:
            own = reserved[word]
            remedy = f"Use sdrun's own {own}, before the --." if own else "Leave it out."
            raise UsageProblem(f"the engine argument {word} cannot be passed on", remedy)
        words.append(word)
        if word in known.reads and (value := next(rest, None)) is not None:
            path = Path(value)
            with suppress(RuntimeError):  # a tilde that is nobody's is a name like any other
                path = path.expanduser()
            if not path.exists():
                raise UsageProblem(f"{value!r}, named by {word}, does not exist", "Check the path.", id="file-missing")
            target = f"/inputs/{len(mounts)}/{path.resolve().name}"
            mounts.append(Mount(path.resolve(), target))
            words.append(target)
    return words, mounts


def container(
    image: str, what: Inside, user: str, name: str, labels: Mapping[str, str], gpu: GpuRequest | None, narrow_to: Sequence[str]
) -> ContainerSpec:
    """The whole container. `narrow_to`: UUIDs the engine may use where more GPUs than those are handed over."""
    environment = dict(_ENVIRONMENT)
    if narrow_to:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(narrow_to)
    return ContainerSpec(
        image=image,
        command=what.arguments,
        user=user,
        mounts=what.mounts,
        environment=environment,
        gpu=gpu,
        name=name,
        labels=labels,
        tmpfs=("/tmp",),
    )


def check_readable(mounts: Iterable[Mount]) -> None:
    """Raises UsageProblem for a file that the caller may read and the engine may not. The engine has the caller's user and
    group, but neither further groups nor privileges: as root it is bound by a file's permissions like anybody else."""
    for mount in mounts:
        if not mount.read_only:
            continue
        info = mount.source.stat()
        owned, shared = info.st_uid == os.geteuid(), info.st_gid == os.getegid()
        if not info.st_mode & (0o400 if owned else 0o040 if shared else 0o004):
            raise UsageProblem(
                f"{mount.source} is not readable by the engine, which has your user and group and no privileges",
                f"chmod a+r {mount.source}, or run sdrun as its owner.",
                id="model-file-unreadable",
            )


def outside(text: str, spec: ContainerSpec) -> str:
    """Container paths in a message as the user knows them."""
    for mount in sorted(spec.mounts, key=lambda mount: -len(mount.target)):
        text = text.replace(mount.target, str(mount.source))
    return text
