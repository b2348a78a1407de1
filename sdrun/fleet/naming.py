"""Names of classes: short, stable, and fit for Kubernetes (RFC 1123 labels)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from sdrun.core.fleet import NodeClass

_DIGITS = re.compile(r"([0-9]+)")
_OTHER = re.compile(r"[^a-z0-9]+")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which gpu-9 stands before gpu-10, and equal only for equal names."""
    parts = [(1, int(part), part) if number % 2 else (0, 0, part) for number, part in enumerate(_DIGITS.split(name))]
    return (*parts, (2, 0, name))


def new_names(rows: Sequence[NodeClass], held: Mapping[tuple[object, ...], str]) -> list[str]:
    """A name for each class: the one its key has already, else `cc89-r550`: capability and oldest driver branch; of several
    that would be called the same, each says more: the whole driver version, then the target."""
    names: list[str] = []
    taken: set[str] = set()
    for row in rows:
        known = held.get(row.key, "")
        names.append("" if known in taken else known)
        taken.add(known)
    taken.update(held.values())  # a name that stood for something else is not given anew
    for detail in range(3):
        proposed = {number: _name(row, detail) for number, row in enumerate(rows) if not names[number]}
        often = Counter(proposed.values())
        for number, name in proposed.items():
            if often[name] == 1 and name not in taken:
                names[number] = name
                taken.add(name)
    for number, row in enumerate(rows):  # the same image twice under one target, or hosts that differ in what no name says
        suffix = 2
        while not names[number]:
            name = f"{_name(row, 2)}-{suffix}"
            names[number], suffix = ("" if name in taken else name), suffix + 1
        taken.add(names[number])
    return names


def _name(row: NodeClass, detail: int) -> str:
    oldest = row.drivers[0] if row.drivers else None
    parts = ["cc" + "-".join(str(capability.number) for capability in row.capabilities)]
    if oldest is not None:
        parts.append(f"r{oldest if detail else oldest.branch}")
    if row.mig:
        parts.append(f"mig-{row.mig}")
    if row.resource.endswith(".shared"):
        parts.append("shared")
    if row.image.platform != "linux/amd64":
        parts.append(row.image.platform.partition("/")[2])
    if detail == 2:
        parts.append(row.image.target)
    return _OTHER.sub("-", "-".join(parts).lower())
