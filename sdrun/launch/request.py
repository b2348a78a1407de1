"""What `sdrun generate` is asked for, checked before anything heavy starts."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdrun.core.model import Defaults
from sdrun.errors import UsageProblem

SIZE_STEP = 8  # every family's autoencoder shrinks by at least 8; a family that needs more is rounded up by the engine
SIZE_MIN, SIZE_MAX = 64, 8192
STEPS_MAX = 1000  # the noise schedules have 1000 time steps
BATCH_MAX = 100
SEED_MAX = 2**63 - 1  # the engine reads a signed 64-bit number
RANDOM_SEED_MAX = 2**31 - 1  # a drawn seed stays short enough to be typed again
ARGUMENT_MAX = 128 * 1024 - 1  # bytes of one argument (MAX_ARG_STRLEN in Linux's include/uapi/linux/binfmts.h)
ENGINE_SEED = 42  # what the engine takes where neither the user nor the model says


@dataclass(frozen=True, slots=True)
class Request:
    """One picture, or `batch` of them. None: not said; then the model's default holds, and where it has none, the engine's.
    Sizes in pixels; a negative `seed` draws one; `engine_args` are handed to the engine after everything else; `metadata`: the
    picture carries how it was made; `fit`: memory is looked at first, and the engine told what it needs; `tuned`: it is told
    what makes it faster on the GPU. `serves`: these are a server's defaults; it keeps every part of the model loaded and may be
    sent first pictures."""

    model: str
    prompt: str
    negative: str = ""
    output: Path | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    seed: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    init: Path | None = None
    strength: float | None = None
    batch: int = 1
    engine_args: tuple[str, ...] = ()
    metadata: bool = True
    fit: bool = True
    tuned: bool = True
    serves: bool = False

    @property
    def encodes(self) -> bool:
        """Whether first pictures are turned into latents, for which the autoencoder's other half is loaded."""
        return self.init is not None or self.serves


def check(request: Request, samplers: Sequence[str] = (), schedulers: Sequence[str] = ()) -> None:
    """Raises UsageProblem for the first option that cannot be. Names are only looked at where one was given, so a caller may
    leave `samplers` and `schedulers` out otherwise."""
    _check_text("prompt", request.prompt)
    _check_text("negative", request.negative)
    for argument in request.engine_args:
        _check_text("engine argument", argument)
    for name, size in (("width", request.width), ("height", request.height)):
        if size is not None:
            _check_size(name, size)
    _check_range("steps", request.steps, 1, STEPS_MAX)
    _check_range("batch", request.batch, 1, BATCH_MAX)
    if request.seed is not None and request.seed > SEED_MAX - request.batch:
        raise _bad("seed", f"{request.seed} is too large", f"Choose one from 0 to {SEED_MAX - request.batch}; -1 draws one.")
    for name, number in (("cfg-scale", request.cfg_scale), ("guidance", request.guidance)):
        if number is not None and (not math.isfinite(number) or not 0 <= number <= 100):
            raise _bad(name, f"{number:g} is out of range", "Choose a number from 0 to 100.")
    if request.strength is not None and not 0 <= request.strength <= 1:  # a NaN is not within either
        raise _bad("strength", f"{request.strength:g} is out of range", "Choose a number from 0 to 1.")
    _check_name("sampler", request.sampler, samplers)
    _check_name("scheduler", request.scheduler, schedulers)
    if request.init is not None:
        _check_picture(request.init)
    elif request.strength is not None:
        raise _bad("strength", "says how much of a first picture changes, and there is none", "Name one with --init.")


def _bad(option: str, what: str, remedy: str) -> UsageProblem:
    return UsageProblem(f"--{option} {what}", remedy)


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise UsageProblem(f"the {what} holds a zero byte", "Take it out; no program can be given one.")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise UsageProblem(f"the {what} is not UTF-8", "Write it in UTF-8.") from None
    if size > ARGUMENT_MAX:
        raise UsageProblem(f"the {what} has {size} bytes; a program can be given {ARGUMENT_MAX}", "Shorten it.")


def _check_size(name: str, size: int) -> None:
    if not SIZE_MIN <= size <= SIZE_MAX:
        raise _bad(name, f"{size} is out of range", f"Choose a multiple of 64 from {SIZE_MIN} to {SIZE_MAX}.")
    if size % SIZE_STEP:
        lower = size // SIZE_STEP * SIZE_STEP
        raise _bad(name, f"{size} is no multiple of {SIZE_STEP}", f"Choose {lower} or {lower + SIZE_STEP}.")


def _check_range(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise _bad(name, f"{value} is out of range", f"Choose a number from {least} to {most}.")


def _check_name(option: str, name: str | None, known: Sequence[str]) -> None:
    if name is None or name in known:
        return
    import difflib

    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise _bad(option, f"{name[:40]!r} is unknown", f"{hint}There are {', '.join(known)}.")


def _check_picture(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except (OSError, ValueError) as fault:
        why = getattr(fault, "strerror", None) or fault
        raise UsageProblem(
            f"the picture {str(path)!r} cannot be read: {why}", "Check the path given to --init.", id="input-image-unreadable"
        ) from None
    if not start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")):
        raise UsageProblem(f"{path} is no PNG, JPEG or BMP picture", "Convert it to PNG.", id="input-image-unreadable")


def completed(request: Request, defaults: Defaults | None) -> Request:
    """The request with the model's defaults where the user said nothing, and a seed in any case. Of a first picture the size
    is kept, so that of the model does not hold then."""
    if request.seed is not None and request.seed < 0:
        request = replace(request, seed=int.from_bytes(os.urandom(4), "big") & RANDOM_SEED_MAX)
    if defaults is None:
        return replace(request, seed=ENGINE_SEED) if request.seed is None else request
    sized = request.init is not None
    return replace(
        request,
        width=request.width if request.width is not None or sized else defaults.width,
        height=request.height if request.height is not None or sized else defaults.height,
        steps=defaults.steps if request.steps is None else request.steps,
        cfg_scale=defaults.cfg_scale if request.cfg_scale is None else request.cfg_scale,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        sampler=defaults.sampler if request.sampler is None else request.sampler,
        seed=defaults.seed if request.seed is None else request.seed,
    )
