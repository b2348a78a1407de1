"""The check that draws: the short form of the self-test, on the image and the device that a run without options would take."""

from __future__ import annotations

from sdrun.core.labels import ENGINE
from sdrun.core.plan import Plan
from sdrun.errors import SdrunError, UsageProblem
from sdrun.launch.choosing import Fetching, Wishes
from sdrun.launch.doctor.check import Outcome, fail, failed_by, ok, skip
from sdrun.launch.doctor.surroundings import Surroundings
from sdrun.launch.watch import Listener


def selftest(around: Surroundings) -> Outcome:
    """One recorded picture drawn again. Without a usable GPU the CPU image is tested, where there is one."""
    if around.from_file:
        return skip("the facts describe another host")
    if around.runtime.or_none() is None:
        return skip("no container runtime")
    wishes = _wishes(around)
    if isinstance(wishes, Outcome):
        return wishes
    from sdrun.catalog.selftest import pictures_dir
    from sdrun.catalog.selftest import selftest as suite_of
    from sdrun.launch.selftest import run

    suite = suite_of()
    image = around.local_image(wishes.image or "")
    if image is not None and (why := suite.stranger(image.labels.get(ENGINE, ""))):
        return skip(why)
    quick = tuple(probe for probe in suite.probes if probe.quick)
    try:
        result = run(
            suite,
            quick,
            wishes,
            Fetching(pull=False),
            Listener(),
            around.open_runtime,
            pictures_dir(),
            environ=around.environ,
        )
    except UsageProblem as error:  # the store or the cache, which have checks of their own
        return skip(f"cannot be drawn: {error.message}")
    except SdrunError as error:
        return failed_by(error)
    if result.error() is not None:
        found = quick[0].title if len(quick) == 1 else "what was drawn"
        return fail(f"{wishes.image}: {found} is not as recorded", f"sdrun selftest --image {wishes.image} (says why)", 9)
    (reading, *_) = result.readings
    where = f"{result.chosen.plan.target} on {result.device or result.backend}"
    return ok(f"{where} drew {suite.model} as recorded, in {reading.seconds:.1f} s")


def _wishes(around: Surroundings) -> Wishes | Outcome:
    """What to run, or why nothing is run."""
    if around.host().gpus:
        answer = around.answer.or_none()
        if not isinstance(answer, Plan):
            return skip("no image for this GPU (see above)")
        if around.local_image(answer.image) is None:
            return skip(f"{answer.target} is not here yet")
        return Wishes(image=answer.image, allow_cpu=answer.code_path == "cpu")
    rows = around.index().images
    local = [row for row in rows if row.is_cpu and around.local_image(row.image) is not None]
    if not local:
        return skip("no GPU, and no image for the CPU here")
    return Wishes(gpu="none", allow_cpu=True, image=local[0].image)
