"""How Kubernetes decides whether a pod may land on a node: node affinity, taints, resources. Written from its documentation and
pkg/scheduler, on plain documents, without a line of sdrun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]


def may_land(pod: Document, node: Document) -> bool:
    """Whether the scheduler would bind a pod of that spec to that node, were it empty."""
    return _affinity(pod, node) and _tolerates(pod, node) and _fits(pod, node)


def _affinity(pod: Document, node: Document) -> bool:
    required = pod.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    labels, fields = node["metadata"].get("labels", {}), {"metadata.name": node["metadata"]["name"]}
    return any(_term(term, labels, fields) for term in required["nodeSelectorTerms"])


def _term(term: Document, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    """All of its requirements; a term without any matches nothing."""
    wanted = [(one, labels) for one in term.get("matchExpressions") or ()]
    wanted += [(one, fields) for one in term.get("matchFields") or ()]
    return bool(wanted) and all(_requirement(one, values) for one, values in wanted)


def _requirement(one: Document, values: Mapping[str, str]) -> bool:
    held, operator, asked = values.get(one["key"]), one["operator"], one.get("values") or []
    assert all(isinstance(value, str) for value in asked), f"values of labels are strings: {asked}"
    if operator == "In":
        return held in asked
    if operator == "NotIn":
        return held not in asked
    if operator == "Exists":
        return held is not None
    if operator == "DoesNotExist":
        return held is None
    assert operator in ("Gt", "Lt")
    assert len(asked) == 1
    try:
        left, right = int(held if held is not None else ""), int(asked[0])
    except ValueError:
        return False
    return left > right if operator == "Gt" else left < right


def _tolerates(pod: Document, node: Document) -> bool:
    taints = [taint for taint in node.get("spec", {}).get("taints", ()) if taint["effect"] in ("NoSchedule", "NoExecute")]
    if node.get("spec", {}).get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    ready = [one["status"] for one in node["status"].get("conditions", ()) if one["type"] == "Ready"]
    if ready and ready[0] != "True":
        taints.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})
    return all(any(_covers(one, taint) for one in pod.get("tolerations") or ()) for taint in taints)


def _covers(toleration: Document, taint: Document) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("value", "") == taint.get("value", ""))


def _fits(pod: Document, node: Document) -> bool:
    """Extended resources alone: those asked for must be there; limits are requests."""
    capacity = node["status"].get("allocatable") or node["status"].get("capacity", {})
    asked: dict[str, int] = {}
    for container in pod["containers"]:
        for name, amount in _extended(container):
            asked[name] = asked.get(name, 0) + amount
    return all(int(capacity.get(name, "0")) >= amount for name, amount in asked.items())


def _extended(container: Document) -> Sequence[tuple[str, int]]:
    resources = container.get("resources", {})
    both = {**resources.get("requests", {}), **resources.get("limits", {})}
    return [(name, int(amount)) for name, amount in both.items() if "/" in name]
