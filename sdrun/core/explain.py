"""Every candidate with its verdict, for `--explain`: frozen rows that a table prints as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdrun.core.change import applied
from sdrun.core.choose import Request, attempt, judge, offers
from sdrun.core.closest import driver_floors, refusal
from sdrun.core.code import Match
from sdrun.core.driver import driver_of
from sdrun.core.facts import CudaFacts
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.plan import CodePath, Plan, Refusal
from sdrun.core.policy import Change, Policy
from sdrun.core.sentences import update


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image. `code_path` is what it would run by, None where it cannot; `why` is one line of some 40 characters."""

    target: str
    verdict: Literal["taken", "runner-up", "rejected"]
    code_path: CodePath | None
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer of `resolve`, every candidate, the winner first, then runners-up best first, then rejected ones by target;
    and what a driver update would gain, None where it would gain nothing."""

    answer: Plan | Refusal
    candidates: tuple[Candidate, ...]
    gain: str | None


def explain(host: HostFacts, index: Index, policy: Policy, facts: CudaFacts) -> Explanation:
    """As `resolve`, with its reasons."""
    request = Request(host, index, policy, facts)
    answer = attempt(request)
    rejected = tuple(Candidate(row.target, "rejected", None, row.detail) for row in answer.rejected)
    if isinstance(answer, Plan):
        return Explanation(answer, _running(request, answer) + rejected, _gain(request, answer))
    refused = refusal(request, answer)
    mended = attempt(applied(refused.change, request))
    barred: tuple[Candidate, ...] = ()
    if refused.id == "gpu-access-unavailable" and isinstance(mended, Plan):
        rows = _running(request, mended)
        barred = tuple(Candidate(row.target, "rejected", row.code_path, "runtime cannot reach the GPU") for row in rows)
    gain = _rescue(request, refused, mended) if isinstance(mended, Plan) else None
    return Explanation(refused, barred + rejected, gain)


def _rescue(request: Request, refused: Refusal, mended: Plan) -> str | None:
    """What the driver that a refusal asks for would let run."""
    floor = refused.change.driver
    if refused.id != "driver-too-old" or floor is None:
        return None
    return f"{update(floor, request, mended.handover.gpus)} or newer would run {mended.target} by {mended.code_path}."


def _running(request: Request, plan: Plan) -> tuple[Candidate, ...]:
    """The image taken and those that would have run as well, best first."""
    if not plan.handover.gpus:
        return (Candidate(plan.target, "taken", "cpu", "no GPU image runs here"),)
    driver = driver_of(request.host, request.facts)
    rows = [row for row in offers(request, plan.handover.gpus) if judge(row, driver, request.policy) is None]
    first = rows[0]
    taken = Candidate(first.image.target, "taken", first.path, _taken(first))
    return (taken, *(Candidate(row.image.target, "runner-up", row.path, _second(first, row)) for row in rows[1:]))


def _taken(row: Match) -> str:
    if row.path == "sass-exact":
        return f"machine code for this GPU, CUDA {row.image.toolkit}"
    if row.path == "sass-compatible":
        return f"machine code sm_{row.arch}, CUDA {row.image.toolkit}"
    return f"PTX {row.arch}, compiled on first run"


def _second(first: Match, row: Match) -> str:
    """Why `row` came after `first`: the first step of the order of preference that tells them apart."""
    if row.path != first.path:
        return "only without a GPU image" if row.path == "cpu" else f"{row.path} comes after {first.path}"
    if row.rank[1] != first.rank[1]:
        return f"arch {row.arch} is below {first.arch}"
    if row.image.toolkit != first.image.toolkit:
        return f"CUDA {row.image.toolkit} is older than {first.image.toolkit}"
    return "holds more archs" if row.rank != first.rank else "equal, target id comes later"


def _gain(request: Request, plan: Plan) -> str | None:
    """What the oldest driver that leads to the best image would gain over `plan`."""
    team = plan.handover.gpus
    if not team:
        return None
    best, needed = plan, None
    for floor in driver_floors(request, (team,)):
        after = attempt(applied(Change(driver=floor), request))
        if isinstance(after, Plan) and after.image != best.image and after.devices:
            best, needed = after, floor
    if needed is None:
        return None
    what = "by the same code path" if best.code_path == plan.code_path else f"by {best.code_path}, not {plan.code_path}"
    return f"{update(needed, request, team)} or newer would run {best.target} {what}."
