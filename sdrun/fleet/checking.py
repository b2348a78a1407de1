"""Do the pins still fit? The lock against the nodes as they are now, and against the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sdrun.core.facts import CudaFacts
from sdrun.core.finding import Checked, Finding
from sdrun.core.index import Index
from sdrun.core.lock import Lock, LockedClass
from sdrun.core.node import Node, NodeKind
from sdrun.core.plan import Plan
from sdrun.core.resolve import resolve
from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.fleet.naming import natural
from sdrun.fleet.planning import demands, plan_fleet, policy_for

_AGAIN = "Review and commit a new lock: sdrun fleet lock"
_DRIVER = 5
_GPU = 4
Found = tuple[str, int, str, str]  # a Finding without its nodes


def check_fleet(
    lock: Lock,
    nodes: Iterable[Node],
    facts: CudaFacts,
    *,
    index: Index | None = None,
    holds: Callable[[str], bool] | None = None,
) -> Checked:
    """Every difference. `index`: what is published now, None where nobody asked; `holds`: whether the registry still has the
    image of a reference by digest, None likewise."""
    live = sorted(nodes, key=lambda node: natural(node.name))
    found = [*_nodes(lock, live, facts)]
    if holds is not None:
        found += _gone(lock, holds)
    if index is not None:
        known = {name for finding in found for name in finding.nodes if finding.id == "node-served"}
        found += [*_published(lock, index), *_better(lock, live, index, facts, known)]
    return Checked(tuple(sorted(found, key=lambda finding: -finding.exit_code)))


def _nodes(lock: Lock, live: Sequence[Node], facts: CudaFacts) -> list[Finding]:
    told: dict[Found, list[str]] = {}
    judge = _Judge(lock, facts)
    for node in live:
        found = judge.node(node)
        if found is not None:
            told.setdefault(found, []).append(node.name)
    names = {node.name for node in live}
    gone = [name for row in lock.classes for name in row.nodes if name not in names]
    if gone:
        told["node-gone", 0, "Locked nodes that are no longer there.", _AGAIN] = gone
    return [Finding(*found, nodes=tuple(members)) for found, members in told.items()]


class _Judge:
    """One node after another, against its class."""

    def __init__(self, lock: Lock, facts: CudaFacts) -> None:
        self._lock, self._facts = lock, facts
        self._homes = {name: row for row in lock.classes for name in row.nodes}
        self._refused = {row.node: row.id for row in lock.refused}
        self._answers: dict[tuple[NodeKind, str], Found | None] = {}

    def node(self, node: Node) -> Found | None:
        """What has changed about it, None where nothing has."""
        home = self._homes.get(node.name)
        key = (node.kind, home.name if home else self._refused.get(node.name, "-"))
        if key not in self._answers:
            self._answers[key] = self._pinned(node.kind, home) if home else self._unpinned(node.kind, key[1])
        return self._answers[key]

    def _pinned(self, kind: NodeKind, home: LockedClass) -> Found | None:
        if kind.trouble is not None:
            code = _DRIVER if kind.trouble.id == "driver-unknown" else _GPU
            return kind.trouble.id, code, f"In class {home.name}: {kind.trouble.message}", kind.trouble.remedy
        if (kind.capabilities, kind.resource, kind.mig) != (home.capabilities, home.resource, home.mig):
            return "gpu-changed", _GPU, f"Not what class {home.name} was locked for: now {_described(kind)}.", _AGAIN
        refused = self._refusal(kind, [home])
        if refused is not None:
            return refused
        if kind.driver is not None and kind.driver not in home.drivers:
            return "driver-changed", 0, f"Now driver {kind.driver}; what class {home.name} pins runs on it.", _AGAIN
        return None

    def _unpinned(self, kind: NodeKind, before: str) -> Found | None:
        if kind.trouble is not None:
            if kind.trouble.id in (before, "no-gpu"):
                return None
            code = _DRIVER if kind.trouble.id == "driver-unknown" else _GPU
            return kind.trouble.id, code, f"A new node: {kind.trouble.message}", kind.trouble.remedy
        rows = [row for row in self._lock.classes if row.capabilities == kind.capabilities]
        alike = [row for row in rows if (row.resource, row.mig, row.image.platform) == (kind.resource, kind.mig, kind.platform)]
        taking = [row for row in alike if self._refusal(kind, [row]) is None]
        if taking and before != "-":
            return "node-served", 0, f"No image ran there when the lock was made; class {taking[0].name} would.", _AGAIN
        if any(kind.selector in row.selectors and kind.selector != "class-label" for row in taking):
            return "node-new", 0, f"A new node that class {taking[0].name} takes in.", _AGAIN
        if taking:
            message = f"A new node that class {taking[0].name} would fit, and whose labels its pods do not find."
            return "node-unlabelled", _GPU, message, _AGAIN
        refused = self._refusal(kind, alike or rows) if alike or rows else None
        if refused is not None:
            return None if refused[0] == before else refused
        if before != "-":
            return None  # it was refused when the lock was made, and no class has come for it
        return "gpu-new", _GPU, f"A new kind of GPU, for which nothing is pinned: {_described(kind)}.", _AGAIN

    def _refusal(self, kind: NodeKind, rows: Sequence[LockedClass]) -> Found | None:
        """Why no image of `rows` runs on such a node."""
        index = Index(self._lock.engine, tuple(row.image for row in rows))
        answer = resolve(kind.host(), index, policy_for(kind, allow_jit=self._lock.allow_jit), self._facts)
        if isinstance(answer, Plan):
            return None
        code = answer.exit_code if answer.exit_code in (_GPU, _DRIVER) else _GPU
        return answer.id, code, f"{answer.message} Pinned: {', '.join(row.image.target for row in rows)}.", answer.remedy


def _described(kind: NodeKind) -> str:
    gpus = ", ".join(f"{gpu.product} ({gpu.capability})" for gpu in kind.gpus)
    return f"{gpus} as {kind.resource} on {kind.platform}"


def _gone(lock: Lock, holds: Callable[[str], bool]) -> list[Finding]:
    """Images that the registry no longer has; each reference is asked for once."""
    found: dict[str, Finding] = {}
    for image in dict.fromkeys(row.image.image for row in lock.classes):
        try:
            there = holds(image)
        except VerificationFailed as fault:  # told once, however many images could not be asked for
            found[fault.message] = Finding(fault.id, fault.exit_code, fault.message, fault.remedy)
            continue
        if not there:
            message = f"The registry no longer has {image} ({_classes(lock, image)})."
            found[image] = Finding("digest-gone", 7, message, "Publish it again, or take another: sdrun fleet lock")
    return list(found.values())


def _classes(lock: Lock, image: str) -> str:
    names = [row.name for row in lock.classes if row.image.image == image]
    return f"class{'es' if len(names) > 1 else ''} {', '.join(names)}"


def _published(lock: Lock, index: Index) -> list[Finding]:
    """What is published now against what is pinned."""
    found = []
    if index.engine != lock.engine:
        found.append(Finding("engine-newer", 0, f"Published is engine {index.engine}; pinned is {lock.engine}.", _AGAIN))
    by_reference = {row.image: row for row in index.images}
    by_reference |= {row.gzip: replace(row, image=row.gzip) for row in index.images if row.gzip}  # for older runtimes
    by_target = {(row.target, row.platform): row for row in index.images}
    for image in dict.fromkeys(row.image for row in lock.classes):
        same, other = by_reference.get(image.image), by_target.get((image.target, image.platform))
        if same is not None and replace(same, tag=None, size_bytes=None) != image:
            message = f"The index tells other facts of {image.image} than the lock ({_classes(lock, image.image)})."
            found.append(Finding("image-differs", 7, message, "Find out which is right: sdrun inspect the image."))
        if same is None and other is not None and index.engine == lock.engine:
            message = (
                f"{image.target} was published anew, as {other.image.rpartition('@')[2][:19]} ({_classes(lock, image.image)})."
            )
            found.append(Finding("image-newer", 0, message, _AGAIN))
    return found


def _better(lock: Lock, live: Sequence[Node], index: Index, facts: CudaFacts, known: set[str]) -> list[Finding]:
    """Nodes that would get another target today; of those that got none, those that are not `known` yet."""
    plan = plan_fleet(live, index, facts, allow_jit=lock.allow_jit)
    pinned = {name: row for row in lock.classes for name in row.nodes}
    told: dict[tuple[str, str], list[str]] = {}
    served, refused = [], {refusal.node for refusal in lock.refused}
    for row in plan.classes:
        for name in row.names:
            home = pinned.get(name)
            if home is not None and home.image.target != row.image.target:
                told.setdefault((home.image.target, row.image.target), []).append(name)
            elif home is None and name in refused - known:
                served.append(name)
    found = [
        Finding("better-image", 0, f"Pinned is {old}; today {new} would be chosen.", _AGAIN, tuple(names))
        for (old, new), names in told.items()
    ]
    if served:
        found.append(
            Finding("node-served", 0, "No image ran there when the lock was made; one does now.", _AGAIN, tuple(served))
        )
    return found


def confirm(lock: Lock, facts: CudaFacts) -> None:
    """Raises BadConfiguration (`bad-lock`) where what a class demands of the driver does not follow from its image: the lock
    was changed by hand, or the facts have changed since."""
    for row in lock.classes:
        l4t = NodeKind(row.image.platform, tegra=row.tegra).host().l4t
        if demands(row.image, row.capabilities, l4t, facts) != (row.min_driver, row.min_cuda):
            raise BadConfiguration(
                f"class {row.name} of the lock demands another driver than {row.image.target} does", _AGAIN, id="bad-lock"
            )
