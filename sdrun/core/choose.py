"""The choice itself: the best image for the devices that were asked for, or where it got stuck."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sdrun.core.access import Access, access_to
from sdrun.core.capability import ComputeCapability
from sdrun.core.code import Match, matches
from sdrun.core.device import Device, all_devices, selected, visible_devices
from sdrun.core.driver import Driver, driver_of
from sdrun.core.facts import CudaFacts
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.plan import CodePath, Handover, Plan, Reason, Rejection
from sdrun.core.policy import Policy

_NOBODY = Device("", "", ComputeCapability(0, 0), 0, 0, "")  # stands for "no device": no code is for it
Team = tuple[Device, ...]  # devices that one image must serve together

# The nearer to running, the lower: which reason to tell where an image fails on several devices for different ones.
_NEAREST_FIRST: tuple[Reason, ...] = (
    "cpu-not-allowed",
    "driver-too-old",
    "ptx-newer-than-driver",
    "fatbin-compression-newer-than-driver",
    "jit-forbidden",
    "arch-mismatch",
    "no-code-for-capability",
    "platform-mismatch",
    "no-gpu",
)
CLOSENESS = {reason: place for place, reason in enumerate(_NEAREST_FIRST)}


@dataclass(frozen=True, slots=True)
class Request:
    """The four arguments of `resolve`, together."""

    host: HostFacts
    index: Index
    policy: Policy
    facts: CudaFacts


@dataclass(frozen=True, slots=True)
class Stuck:
    """Nothing runs. `reason` None: the images are why; `teams` are the devices they were tried on."""

    reason: Reason | None
    teams: tuple[Team, ...]
    rejected: tuple[Rejection, ...]


@lru_cache(maxsize=512)
def team_matches(
    index: Index, platform: str, kinds: tuple[ComputeCapability, ...], mixes: bool, facts: CudaFacts
) -> tuple[Match, ...]:
    """What every image offers devices of all `kinds` at once, best first: its worst path, or why one kind gets nothing."""
    if len(kinds) == 1:
        return matches(index, platform, kinds[0], mixes, facts)
    by_image: dict[int, list[Match]] = {}
    for kind in kinds:
        for row in matches(index, platform, kind, mixes, facts):
            by_image.setdefault(row.position, []).append(row)
    return tuple(sorted((_together(rows) for rows in by_image.values()), key=lambda row: row.order))


def _together(rows: Sequence[Match]) -> Match:
    missing = [(CLOSENESS[row.barred.reason], place, row) for place, row in enumerate(rows) if row.barred is not None]
    if missing:
        return max(missing)[2]
    worst = max(rows, key=lambda row: row.rank)
    floors = tuple(dict.fromkeys(floor for row in rows for floor in row.floors))
    return Match(worst.image, worst.position, worst.path, worst.arch, worst.rank, None, floors)


def offers(request: Request, team: Team) -> tuple[Match, ...]:
    """What the candidates offer `team`, best first, driver and policy aside."""
    host, facts, wanted = request.host, request.facts, request.policy.image
    kinds = tuple(sorted({device.capability for device in team}))
    rows = team_matches(request.index, host.platform, kinds, facts.mixes(host.l4t), facts)
    if wanted is None:
        return rows
    return tuple(row for row in rows if wanted in (row.image.image, row.image.tag, row.image.target))


def judge(row: Match, driver: Driver | None, policy: Policy) -> Rejection | None:
    """Why the image of `row` cannot run under that driver and policy, or None. `driver` None: there is no GPU to use."""
    if row.path == "cpu":
        barred = Rejection(row.image.target, "cpu-not-allowed", "runs on the CPU, needs --allow-cpu")
        return None if policy.allow_cpu else barred
    if row.barred is not None and (driver is not None or row.barred.reason == "platform-mismatch"):
        return row.barred
    if driver is None:
        return Rejection(row.image.target, "no-gpu", "needs a GPU")
    if row.path == "ptx-jit" and not policy.allow_jit:
        return Rejection(row.image.target, "jit-forbidden", f"only PTX {row.arch} fits, --no-jit forbids it")
    for reason, floor in row.floors:
        if not driver.meets(floor):
            return Rejection(row.image.target, reason, _driver_detail(row, reason, driver))
    return None


def _driver_detail(row: Match, reason: Reason, driver: Driver) -> str:
    floor = dict(row.floors)[reason]
    if reason == "ptx-newer-than-driver":
        return f"PTX of CUDA {floor.cuda}, driver speaks {driver.cuda}"
    if driver.compares_cuda(floor):
        return f"needs CUDA {floor.cuda}, driver speaks {driver.cuda}"
    if reason == "fatbin-compression-newer-than-driver":
        return f"zstd code needs driver {floor.driver}"
    return f"needs driver {floor.driver}, has {driver.version}"


def attempt(request: Request) -> Plan | Stuck:
    """A plan, or where the choice got stuck."""
    host, policy = request.host, request.policy
    if policy.gpu == "none":
        rejected = _rejected(request, (), None)
        return _on_cpu(request, (), rejected) or Stuck(None, (), rejected)
    visible = visible_devices(host, policy)
    driver = driver_of(host, request.facts)
    teams = teams_of(request)
    if visible and not teams:
        return Stuck("gpu-not-found", (), ())
    if not visible or driver is None:
        rejected = _rejected(request, (), None)
        plan = _on_cpu(request, ("No usable NVIDIA GPU was found.",), rejected) if policy.gpu in ("auto", "all") else None
        return plan or Stuck("no-gpu", teams, rejected)
    served = _served(request, teams, driver)
    for team, row in served:
        access = access_to(team, all_devices(host), host)
        if access is not None:
            return _on_gpu(request, team, row, access, driver)
    rejected = _rejected(request, teams, driver)
    if not served:
        return _on_cpu(request, ("No image runs on the GPU.",), rejected) or Stuck(None, teams, rejected)
    team, row = served[0]
    barred = Rejection(row.image.target, "gpu-access-unavailable", "runtime cannot reach the GPU")
    out_of_reach = ("No container runtime can reach the GPU.",)
    return _on_cpu(request, out_of_reach, (barred, *rejected)) or Stuck("gpu-access-unavailable", (team,), rejected)


def teams_of(request: Request) -> tuple[Team, ...]:
    """The devices that may be chosen: each visible one alone, all together, or the one that was named."""
    selector, visible = request.policy.gpu, visible_devices(request.host, request.policy)
    if selector == "auto":
        return tuple((device,) for device in visible)
    if selector == "all":
        return (visible,) if visible else ()
    device = selected(selector, visible)
    return () if device is None else ((device,),)


def _served(request: Request, teams: Iterable[Team], driver: Driver) -> list[tuple[Team, Match]]:
    """Teams with the best image of each, the best first: best code path, most memory, lowest index."""
    best: dict[tuple[ComputeCapability, ...], Match | None] = {}
    served = []
    for team in teams:
        kinds = tuple(sorted({device.capability for device in team}))
        if kinds not in best:
            running = (row for row in offers(request, team) if row.path != "cpu" and judge(row, driver, request.policy) is None)
            best[kinds] = next(running, None)
        row = best[kinds]
        if row is not None:
            served.append((team, row))
    return sorted(
        served,
        key=lambda pair: (pair[1].rank[0], -pair[0][0].memory_mib, pair[0][0].gpu_index, pair[0][0].slice_index or 0),
    )


def _rejected(request: Request, teams: Iterable[Team], driver: Driver | None) -> tuple[Rejection, ...]:
    """Each candidate that runs on no team, once, with the reason nearest to running; the most promising first."""
    by_kinds = {tuple(sorted({device.capability for device in team})): team for team in teams}
    listings = [offers(request, team) for team in by_kinds.values()] or [offers(request, (_NOBODY,))]
    policy = request.policy
    if len(listings) == 1:
        return tuple(found for row in listings[0] if (found := judge(row, driver, policy)) is not None)
    nearest: dict[int, tuple[int, int, tuple[object, ...], Rejection]] = {}
    runs: set[int] = set()
    for number, rows in enumerate(listings):
        for row in rows:
            found = judge(row, driver, policy)
            if found is None:
                runs.add(row.position)
                continue
            entry = (CLOSENESS[found.reason], number, row.order, found)
            nearest[row.position] = min(entry, nearest.get(row.position, entry), key=lambda known: known[:2])
    left = [entry for position, entry in nearest.items() if position not in runs]
    return tuple(entry[3] for entry in sorted(left, key=lambda known: (known[2], known[1])))


def _on_cpu(request: Request, notes: tuple[str, ...], rejected: tuple[Rejection, ...]) -> Plan | None:
    """The cpu plan, if it is allowed and there is an image; never without its being said."""
    if not request.policy.allow_cpu:
        return None
    for row in offers(request, (_NOBODY,)):
        if row.path == "cpu":
            missing = () if request.host.runtime else ("No container runtime was found that could run it.",)
            said = (*notes, "The engine will run on the CPU, many times slower than on a GPU.", *missing)
            return Plan(row.image.target, row.image.image, "cpu", (), "none", rejected, Handover(notes=said))
    return None


def _on_gpu(request: Request, team: Team, row: Match, access: Access, driver: Driver) -> Plan:
    path: CodePath = row.path or "cpu"
    notes = []
    seconds = request.facts.jit_first_run_seconds if path == "ptx-jit" else None
    jit_note = None if seconds is None else _jit_note(request, team, row, seconds)
    if jit_note is not None:
        notes.append(jit_note)
    if access.narrow_to:
        notes.append("The container runtime can only hand over all GPUs; CUDA_VISIBLE_DEVICES narrows them inside.")
    if access.doubtful:
        notes.append(
            "The CDI specification does not name each GPU; if the engine cannot see it, renew the specification: "
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        )
    for device in team:
        known = request.facts.capabilities.get(device.capability)
        last = known.last_driver_branch if known else None
        if last is not None and driver.version is not None and driver.version.branch > last:
            notes.append(f"Driver branch {last} is the last that NVIDIA names for {device.label}; {driver.version} is newer.")
    return Plan(
        target=row.image.target,
        image=row.image.image,
        code_path=path,
        devices=tuple(device.uuid for device in team),
        gpu_access=access.kind,
        rejected=_rejected(request, (team,), driver),
        handover=Handover(team, access.requests, access.narrow_to, seconds, tuple(notes), jit_note),
    )


def _jit_note(request: Request, team: Team, row: Match, seconds: int) -> str:
    compiled = {
        device.capability
        for device in team
        for own in offers(request, (device,))
        if own.position == row.position and own.path == "ptx-jit"
    }
    names = ", ".join(str(kind) for kind in sorted(compiled))
    return (
        f"{row.image.target} holds no machine code for compute capability {names}: the driver compiles its PTX {row.arch} "
        f"on the first run, which takes about {seconds} s longer."
    )
