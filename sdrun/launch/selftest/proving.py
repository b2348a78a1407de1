"""The self-test as part of the proof of an image: on the CPU for a CPU image, else on this machine's GPU if it is for that."""

from __future__ import annotations

from collections.abc import Callable

from sdrun.core.labels import ENGINE, TARGET, TOOLKIT
from sdrun.core.selftest import NOT_RUN
from sdrun.errors import DriverTooOld, NoGpu, NoImage, RuntimeUnavailable
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.selftest.report import line
from sdrun.launch.selftest.run import run
from sdrun.launch.watch import Listener
from sdrun.runtime.protocol import ContainerRuntime, LocalImage


def prove(image: LocalImage, runtime: ContainerRuntime, note: Callable[[str], None], detail: Callable[[str], None]) -> str:
    """Draws every probe with the image; one line on what came of it, which begins with NOT_RUN where this machine has no
    device that the image is for, or the image has another engine than the recorded one. Raises EngineFailed where the image
    computes wrongly, or elsewhere than it was told to."""
    from sdrun.catalog.selftest import pictures_dir, selftest

    suite = selftest()
    if why := suite.stranger(image.labels.get(ENGINE, "")):
        return f"{NOT_RUN}{why}"
    wishes = Wishes(image=image.id) if image.labels.get(TOOLKIT) else Wishes(gpu="none", allow_cpu=True, image=image.id)
    note(f"drawing {len(suite.probes)} recorded pictures with {image.labels.get(TARGET, image.id)}")
    try:
        result = run(
            suite,
            suite.probes,
            wishes,
            Fetching(pull=False),
            Listener(detail, detail),
            lambda: runtime,
            pictures_dir(),
            tell=lambda reading: (detail if reading.passed else note)(line(reading)),
        )
    except (NoGpu, NoImage, DriverTooOld) as refusal:
        return f"{NOT_RUN}{refusal.message}"
    except RuntimeUnavailable as refusal:
        if refusal.id != "gpu-access-unavailable":
            raise
        return f"{NOT_RUN}{refusal.message}"
    if (error := result.error()) is not None:
        raise error
    return result.summary()
