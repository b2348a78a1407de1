"""A refusal that helps: which single change would make the same call succeed, found by trying it.

Every change is applied and resolved again before it is proposed, so a remedy never promises what the rules would then refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sdrun.core.change import applied
from sdrun.core.choose import Request, Stuck, Team, attempt, offers, teams_of
from sdrun.core.device import all_devices
from sdrun.core.driver import combined, driver_of, reachable
from sdrun.core.facts import Floor
from sdrun.core.plan import Plan, Reason, Refusal
from sdrun.core.policy import Build, Change
from sdrun.core.sentences import Verdict, message, remedy
from sdrun.core.suggest import builds

# A driver that no update of this GPU's reaches; "driver-too-old" would promise one.
_HARD_DRIVER_REASONS: tuple[Reason, ...] = ("ptx-newer-than-driver", "fatbin-compression-newer-than-driver")


def refusal(request: Request, stuck: Stuck) -> Refusal:
    """The refusal for a choice that got stuck: the id of the closest way out, and that way as sentence and as `Change`."""
    ways_out = (_working(change, request) for change in _candidates(request, stuck))
    change, plan = next(way for way in ways_out if way is not None)
    verdict = Verdict(request, stuck, _id(request, stuck, change), change, plan)
    return Refusal(verdict.id, message(verdict), remedy(verdict), stuck.rejected, change)


def _working(change: Change, request: Request) -> tuple[Change, Plan] | None:
    """`change`, completed by access to the GPU where that alone is still missing, and its plan; None if it does not help."""
    if change.build is not None:  # what runs from an index of this one image runs from any index that holds it
        request = replace(request, index=replace(request.index, images=()))
    answer = attempt(applied(change, request))
    if isinstance(answer, Stuck) and answer.reason == "gpu-access-unavailable":
        change = replace(change, gpu_access=True)
        answer = attempt(applied(change, request))
    return (change, answer) if isinstance(answer, Plan) else None


def _candidates(request: Request, stuck: Stuck) -> Iterator[Change]:
    """Changes worth trying, closest first. The last of them always works."""
    policy = request.policy
    if stuck.reason == "gpu-access-unavailable":
        yield Change(gpu_access=True)
    elif stuck.reason == "gpu-not-found":
        yield from _freed(request)
    elif stuck.reason == "no-gpu":
        yield from _without_gpu(request, stuck)
    elif policy.gpu != "none":
        if _only_cpu_asked(request, stuck):
            yield Change(allow_cpu=True)
        yield from _for_images(request)
    yield from _cpu(request)


def _only_cpu_asked(request: Request, stuck: Stuck) -> bool:
    """Whether --gpu or --image leaves the cpu image alone."""
    policy = request.policy
    only = bool(stuck.rejected) and all(row.reason == "cpu-not-allowed" for row in stuck.rejected)
    return policy.gpu == "none" or (policy.image is not None and only)


def _without_gpu(request: Request, stuck: Stuck) -> Iterator[Change]:
    if request.host.gpus and not stuck.teams:  # hidden
        yield from _freed(request)
    elif stuck.teams:  # no driver runs
        yield from _for_images(request)


def _freed(request: Request) -> Iterator[Change]:
    """The devices set free: any GPU, all visible, and whatever they then still need."""
    wider = [Change(unset_visible=True)] if request.policy.visible is not None else []
    if request.policy.gpu not in ("auto", "all"):
        wider += [Change(gpu="auto"), *(replace(change, gpu="auto") for change in wider)]
    yield from wider
    yield from _further(request, wider[-1])


def _further(request: Request, first: Change) -> Iterator[Change]:
    """`first` together with what would then still be missing."""
    return (_both(first, change) for change in _for_images(applied(first, request)))


def _for_images(request: Request) -> Iterator[Change]:
    """A newer driver alone; then a flag alone; then a target to build alone; then two of them."""
    teams = teams_of(request)
    drivers = [Change(driver=floor) for floor in driver_floors(request, teams)]
    jit = [] if request.policy.allow_jit else [Change(allow_jit=True)]
    yield from drivers
    yield from jit
    single = _single(request)
    yield from single
    start = Change(any_image=True) if request.policy.image is not None else Change()
    if start.any_image:
        yield start
    made = [_both(start, Change(build=build, driver=floor)) for build, floor in _builds(request, teams)]
    yield from made
    yield from (_both(first, second) for first in drivers for second in jit)
    yield from (_both(first, second) for first in made for second in jit)
    for one in single:
        yield from _further(request, one)


def _single(request: Request) -> list[Change]:
    """With `--gpu all`: one GPU of those, each in turn, first the one that `auto` would take."""
    if request.policy.gpu != "all":
        return []
    best = attempt(applied(Change(gpu="auto"), request))
    taken = best.handover.gpus if isinstance(best, Plan) else ()
    return [Change(gpu=device.number) for device in dict.fromkeys((*taken, *all_devices(request.host)))]


def driver_floors(request: Request, teams: Iterable[Team]) -> list[Floor]:
    """Drivers that would let some image run on a team, the oldest first, none beyond what serves its GPUs."""
    floors: set[Floor] = set()
    for team in teams:
        for row in offers(request, team):
            if row.floors:
                floor = combined(floor for _, floor in row.floors)
                if all(reachable(floor, device.capability, request.host, request.facts) for device in team):
                    floors.add(floor)
    return sorted(floors, key=lambda floor: (floor.driver is None, floor.driver.numbers if floor.driver else (), floor.cuda))


def _builds(request: Request, teams: Iterable[Team]) -> Iterator[tuple[Build, Floor | None]]:
    driver = driver_of(request.host, request.facts)
    seen = set()
    for team in teams:
        kinds = tuple(sorted({device.capability for device in team}))
        if kinds not in seen:
            seen.add(kinds)
            yield from builds(kinds, request.host, driver, request.facts)


def _cpu(request: Request) -> Iterator[Change]:
    """The way that is always open: the CPU, with its image published if there is none."""
    start = Change(allow_cpu=True)
    yield start
    if request.policy.gpu not in ("auto", "all", "none"):  # where a GPU was named, the CPU does not stand in for it by itself
        start = replace(start, gpu="none")
        yield start
    if request.policy.image is not None:
        start = replace(start, any_image=True)
        yield start
    yield replace(start, build=Build("cpu", request.host.platform, None))


def _both(first: Change, second: Change) -> Change:
    """Both changes at once; where both set a part, the second's stands."""
    return Change(
        driver=second.driver or first.driver,
        build=second.build or first.build,
        gpu=second.gpu or first.gpu,
        allow_cpu=first.allow_cpu or second.allow_cpu,
        allow_jit=first.allow_jit or second.allow_jit,
        any_image=first.any_image or second.any_image,
        unset_visible=first.unset_visible or second.unset_visible,
        gpu_access=first.gpu_access or second.gpu_access,
    )


def _id(request: Request, stuck: Stuck, change: Change) -> Reason:
    """The refusal's id: what was missing, told by what helps where that decides, else by the nearest rejection."""
    if stuck.reason is not None:
        return stuck.reason
    reasons = {row.reason for row in stuck.rejected}
    if change == Change(driver=change.driver, gpu_access=change.gpu_access):
        return "driver-too-old"
    if change == Change(allow_jit=True, gpu_access=change.gpu_access):
        return "jit-forbidden"
    if _only_cpu_asked(request, stuck):
        alone: tuple[Reason, ...] = ("cpu-not-allowed", "platform-mismatch", "no-code-for-capability")
        return next((reason for reason in alone if reason in reasons), alone[-1])
    if change.gpu is not None and change.build is None:
        return "mixed-gpus"
    order: tuple[Reason, ...] = (*_HARD_DRIVER_REASONS, "jit-forbidden", "arch-mismatch", "no-code-for-capability")
    found = next((reason for reason in order if reason in reasons), None)
    if found is None and _all_elsewhere(request, stuck.teams[0]):
        return "platform-mismatch"
    if found is None and any(row.path == "ptx-jit" for team in stuck.teams for row in offers(request, team)):
        return "ptx-newer-than-driver"  # below its toolkit's floor as well, and no driver for this GPU will ever compile it
    return found or "no-code-for-capability"


def _all_elsewhere(request: Request, team: Team) -> bool:
    """Whether there are images with GPU code, and every one of them is for another platform."""
    coded = [row for row in offers(request, team) if not row.image.is_cpu]
    return bool(coded) and all(row.image.platform != request.host.platform for row in coded)
