"""Nodes -> classes that share an image. The resolver is asked once for each kind of node, however many nodes there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sdrun.core.capability import ComputeCapability
from sdrun.core.code import match
from sdrun.core.driver import combined
from sdrun.core.facts import CudaFacts, Floor
from sdrun.core.fleet import FleetPlan, NodeClass, Refused
from sdrun.core.host import HostFacts
from sdrun.core.index import Index, IndexImage
from sdrun.core.node import SELECTORS, Node, NodeKind, Trouble
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.core.resolve import resolve
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease
from sdrun.fleet.naming import natural, new_names

# The taints that the control plane itself sets and takes away again.
_TRANSIENT = "node.kubernetes.io/"
_DRIVER_REASONS = ("driver-too-old", "ptx-newer-than-driver", "fatbin-compression-newer-than-driver")
TOLERATED = ("nvidia.com/gpu",)  # the taint by which GPU nodes usually keep other pods away


def policy_for(kind: NodeKind, *, allow_jit: bool) -> Policy:
    """A pod may be given any GPU of its node, so one image must run on all of them."""
    return Policy(gpu="all" if len(kind.gpus) > 1 else "auto", allow_jit=allow_jit)


def plan_fleet(
    nodes: Iterable[Node],
    index: Index,
    facts: CudaFacts,
    *,
    allow_jit: bool = True,
    tolerate: Iterable[str] = (),
    names: Mapping[tuple[object, ...], str] | None = None,
) -> FleetPlan:
    """Every node in a class or refused, in an order that depends on their names alone.

    `tolerate`: taint keys that pods will tolerate, beside nvidia.com/gpu. `names`: class keys that have a name already.
    """
    ordered = sorted(nodes, key=lambda node: natural(node.name))
    answers: dict[NodeKind, Plan | Trouble] = {}
    resolved: dict[HostFacts, Plan | Trouble] = {}  # kinds that differ in what the resolver does not look at share an answer
    groups: dict[tuple[object, ...], list[Node]] = {}
    plans: dict[tuple[object, ...], tuple[NodeKind, Plan]] = {}  # of each class the one for its oldest driver
    refused = []
    for node in ordered:
        if node.kind not in answers:
            answers[node.kind] = _answer(node.kind, index, facts, resolved, allow_jit=allow_jit)
        answer = answers[node.kind]
        if isinstance(answer, Trouble):
            refused.append(Refused(node, answer))
            continue
        kind = node.kind
        key = (kind.capabilities, kind.resource, kind.mig, kind.platform, kind.tegra, answer.image, answer.target)
        groups.setdefault(key, []).append(node)
        oldest = plans.get(key)
        if oldest is None or _age(kind) < _age(oldest[0]):
            plans[key] = (kind, answer)
    rows = [_node_class(*plans[key], members, index, facts) for key, members in groups.items()]
    named = new_names(rows, names or {})
    classes = tuple(
        sorted((replace(row, name=named[number]) for number, row in enumerate(rows)), key=lambda row: natural(row.name))
    )
    return FleetPlan(index.engine, classes, tuple(refused), _notes(ordered, {*TOLERATED, *tolerate}))


def _answer(
    kind: NodeKind, index: Index, facts: CudaFacts, resolved: dict[HostFacts, Plan | Trouble], *, allow_jit: bool
) -> Plan | Trouble:
    if kind.trouble is not None:
        return kind.trouble
    host = kind.host()
    if host not in resolved:
        answer = resolve(host, index, policy_for(kind, allow_jit=allow_jit), facts)
        resolved[host] = _told(answer) if isinstance(answer, Refusal) else answer
    return resolved[host]


def _told(refusal: Refusal) -> Trouble:
    """The resolver's refusal; of its remedies, one speaks of a command line where there is none."""
    remedy = refusal.remedy
    if refusal.id == "mixed-gpus":
        remedy = "Publish one image that holds code for all of them, or give the node one model of GPU."
    return Trouble(refusal.id, refusal.exit_code, refusal.message, remedy)


def demands(
    image: IndexImage, capabilities: Iterable[ComputeCapability], l4t: L4tRelease | None, facts: CudaFacts
) -> tuple[DriverVersion | None, CudaVersion | None]:
    """What `image` demands of the driver on GPUs of `capabilities`: the oldest version, and the CUDA version it must speak,
    each None where that is not what decides. `l4t`: of a Jetson."""
    mixes = facts.mixes(l4t)
    found = [match(image, capability, mixes=mixes, facts=facts) for capability in capabilities]
    floors = {floor for row in found for _, floor in row.floors}
    by_number = [floor for floor in floors if not _by_cuda(floor)]
    by_cuda = [floor.cuda for floor in floors if _by_cuda(floor)]
    return combined(by_number).driver if by_number else None, max(by_cuda, default=None)


def _by_cuda(floor: Floor) -> bool:
    """As Driver.compares_cuda, for a driver whose version is known."""
    return floor.spoken or floor.driver is None


def _age(kind: NodeKind) -> tuple[int, ...]:
    return kind.driver.numbers if kind.driver is not None else ()


def _node_class(kind: NodeKind, plan: Plan, members: list[Node], index: Index, facts: CudaFacts) -> NodeClass:
    image = next(row for row in index.images if (row.image, row.target) == (plan.image, plan.target))
    kinds = list(dict.fromkeys(node.kind for node in members))
    driver, cuda = demands(image, kind.capabilities, kind.host().l4t, facts)
    sizes = [kind.memory_mib for kind in kinds]
    return NodeClass(
        name="",
        image=image,
        code_path=plan.code_path,
        capabilities=kind.capabilities,
        resource=kind.resource,
        mig=kind.mig,
        memory_mib=min((size for size in sizes if size is not None), default=None) if None not in sizes else None,
        min_driver=driver,
        min_cuda=cuda,
        drivers=tuple(sorted({kind.driver for kind in kinds if kind.driver is not None})),
        products=tuple(sorted({gpu.product for kind in kinds for gpu in kind.gpus})),
        selectors=tuple(way for way in SELECTORS if any(_selector(kind, cuda) == way for kind in kinds)),
        nodes=tuple(members),
        reason=_reason(plan, kind, driver, cuda),
    )


def _reason(plan: Plan, kind: NodeKind, driver: DriverVersion | None, cuda: CudaVersion | None) -> str:
    """Why this image, in one line: what it holds for these GPUs, what it demands, and what a newer driver would open."""
    device = " and ".join(str(capability) for capability in kind.capabilities)
    holds = {
        "sass-exact": f"machine code for exactly {device}",
        "sass-compatible": f"machine code that {device} runs",
        "ptx-jit": f"PTX, which the driver compiles for {device} at the first start",
    }[plan.code_path]
    floors = [f"driver {driver} or newer"] if driver else []
    floors += [f"a driver that speaks CUDA {cuda} or newer"] if cuda else []
    barred = next((row for row in plan.rejected if row.reason in _DRIVER_REASONS), None)
    instead = f"; {barred.target} {barred.detail}" if barred else ""
    return f"{holds}; needs {' and '.join(floors) or 'no particular driver'}{instead}"


def _selector(kind: NodeKind, cuda: CudaVersion | None) -> str:
    """How pods find such nodes. Labels that say nothing of CUDA cannot stand in where the CUDA version decides."""
    return "class-label" if cuda is not None and kind.cuda is None else kind.selector


def _notes(nodes: Iterable[Node], tolerated: set[str]) -> dict[str, tuple[str, ...]]:
    """What should be known: note -> the nodes it is true of."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for note in _notes_of(node, tolerated):
            found.setdefault(note, []).append(node.name)
    return {note: tuple(names) for note, names in sorted(found.items())}


def _notes_of(node: Node, tolerated: set[str]) -> Iterable[str]:
    if node.cordoned:
        yield "cordoned: no new pods until it is uncordoned"
    if node.ready is False:
        yield "not ready"
    for taint in node.taints:
        if taint.effect != "PreferNoSchedule" and taint.key not in tolerated and not taint.key.startswith(_TRANSIENT):
            yield f"tainted {taint}, which pods do not tolerate unless told to (--tolerate {taint.key})"
    if node.kind.trouble is None:
        yield from node.kind.notes
