"""Drawing the probes: each one a run like any other, through the launcher, in a closed container, on the chosen device."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sdrun.core.labels import ENGINE
from sdrun.core.selftest import Backend, Difference, Probe, Reading, Suite, difference
from sdrun.errors import EngineFailed, VerificationFailed
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.generate import Prepared, generate, prepare
from sdrun.launch.output import destination
from sdrun.launch.png import BadPicture, pixels_of
from sdrun.launch.request import Request, completed
from sdrun.launch.selftest.report import Result
from sdrun.launch.watch import Listener
from sdrun.models.store import store_errors
from sdrun.resources import cache_root
from sdrun.runtime.protocol import ContainerRuntime

# Verdicts about where the engine ran, not about what it computed: no probe is worth anything then.
_ELSEWHERE = frozenset({"ran-on-cpu", "wrong-gpu"})


def run(
    suite: Suite,
    probes: Sequence[Probe],
    wishes: Wishes,
    fetching: Fetching,
    listener: Listener,
    connect: Callable[[], ContainerRuntime],
    pictures: Path,
    *,
    tell: Callable[[Reading], None] = lambda reading: None,
    keep: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Result:
    """Draws `probes` of `suite` one after the other and compares each with its recorded picture in the folder `pictures`;
    `tell` hears of each. What is drawn is left in the folder `keep` where one is named.

    A probe in which the engine fails is a reading like any other. Raises what keeps every probe from running: the resolver's
    refusals, RuntimeUnavailable, NotEnoughMemory, Interrupted, and EngineFailed (`ran-on-cpu`, `wrong-gpu`) where the engine
    was good but did not use the chosen device."""
    started = time.monotonic()
    root = cache_root()
    with store_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="selftest-", dir=root)
    with scratch as folder:
        place = keep or Path(folder)
        first = request_of(suite, probes[0], place, pictures)
        prepared, runtime = prepare(first, wishes, fetching, listener, connect, environ)
        chosen = prepared.decided.chosen
        labels = chosen.local.labels if chosen.local is not None else {}
        if why := suite.stranger(labels.get(ENGINE, "")):
            listener.note(f"{why}: it may rightly draw others")
        backend: Backend = "cpu" if chosen.plan.code_path == "cpu" else "cuda"
        device = ""
        readings = []
        for probe in probes:
            mine = _for(prepared, request_of(suite, probe, place, pictures))
            reading, named = _draw(mine, probe, backend, runtime, listener, pictures)
            device = named or device
            readings.append(reading)
            tell(reading)
    return Result(suite, chosen, backend, device, tuple(readings), time.monotonic() - started)


def request_of(suite: Suite, probe: Probe, folder: Path, pictures: Path) -> Request:
    """What is asked of the engine for a probe; the picture goes into `folder`."""
    return Request(
        model=suite.model,
        prompt=suite.prompt,
        output=folder / f"{probe.name}.png",
        width=suite.size,
        height=suite.size,
        steps=suite.steps,
        seed=suite.seed,
        init=pictures / probe.init if probe.init else None,
        strength=probe.strength,
        engine_args=probe.arguments,
        metadata=False,
        fit=False,  # both would change what is exercised
        tuned=False,
    )


def _for(prepared: Prepared, request: Request) -> Prepared:
    """The same model, image and device for another probe."""
    decided = replace(prepared.decided, request=completed(request, prepared.decided.model.defaults))
    return Prepared(decided, destination(request.output, request.batch, Path.cwd()))


def _draw(
    prepared: Prepared, probe: Probe, backend: Backend, runtime: ContainerRuntime, listener: Listener, pictures: Path
) -> tuple[Reading, str]:
    """What the probe gave, and the device that the engine named."""
    began = time.monotonic()
    try:
        outcome = generate(prepared, runtime, listener, began)
    except EngineFailed as error:
        if error.id in _ELSEWHERE:
            raise
        return Reading(probe, backend, None, error.message, time.monotonic() - began), ""
    apart = compared(outcome.files[0], pictures / probe.picture)
    if apart is None:
        return Reading(probe, backend, None, "The picture has another size.", outcome.seconds), outcome.device
    return Reading(probe, backend, apart, "", outcome.seconds), outcome.device


def compared(drawn: Path, recorded: Path) -> Difference | None:
    """How far two PNG files are apart; None where their sizes differ. Raises VerificationFailed (`model-file-damaged`) where
    the recorded one cannot be read."""
    try:
        right = pixels_of(recorded.read_bytes())
    except (OSError, BadPicture) as fault:
        raise VerificationFailed(
            f"the recorded picture {recorded} cannot be read: {getattr(fault, 'strerror', None) or fault}",
            "Reinstall sdrun; in a git checkout: git checkout -- images/selftest",
            id="recorded-picture-damaged",
        ) from None
    mine = pixels_of(drawn.read_bytes())
    if (mine.width, mine.height) != (right.width, right.height):
        return None
    return difference(mine.rows, right.rows)
