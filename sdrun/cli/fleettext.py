"""What `sdrun fleet` prints for people."""

from __future__ import annotations

from collections.abc import Sequence

from sdrun.core.finding import Checked
from sdrun.core.fleet import FleetPlan, NodeClass, Refused
from sdrun.core.node import Node

COLUMNS = ("CLASS", "POOL", "NODES", "GPU", "DRIVER", "TARGET", "DIGEST", "RUNS BY")
_SHOWN = 3  # names that are told one by one


def plan_table(plan: FleetPlan) -> str:
    """A line for each class and pool; below it the refusals, each told once with its nodes."""
    lines = [COLUMNS, *(cells for row in plan.classes for cells in _rows(row))]
    text = aligned(lines) if plan.classes else "No node gets an image."
    return "\n\n".join([text, *(["\n".join(_refusals(plan.refused))] if plan.refused else [])])


def _rows(row: NodeClass) -> list[tuple[str, ...]]:
    pools: dict[str, list[Node]] = {}
    for node in row.nodes:
        pools.setdefault(node.pool or "-", []).append(node)
    return [
        (
            row.name,
            pool,
            str(len(nodes)),
            _gpus(nodes),
            _span([str(driver) for driver in sorted({node.kind.driver for node in nodes if node.kind.driver is not None})]),
            row.image.target,
            digest(row.image.image),
            row.code_path,
        )
        for pool, nodes in sorted(pools.items())
    ]


def _gpus(nodes: Sequence[Node]) -> str:
    """`NVIDIA-L4 (8.9)`, with what a slice is called and how many more kinds there are."""
    kinds = dict.fromkeys((gpu.product, str(gpu.capability), node.kind.mig) for node in nodes for gpu in node.kind.gpus)
    product, capability, mig = next(iter(kinds))
    more = f" +{len(kinds) - 1}" if len(kinds) > 1 else ""
    return f"{product}{f' {mig}' if mig else ''} ({capability}){more}"


def _span(values: Sequence[str]) -> str:
    return "-" if not values else values[0] if len(values) == 1 else f"{values[0]} .. {values[-1]}"


def digest(reference: str) -> str:
    """The beginning of a reference's digest, or the reference where it has none."""
    _, found, hexadecimal = reference.rpartition("sha256:")
    return f"sha256:{hexadecimal[:12]}" if found else reference


def _refusals(refused: Sequence[Refused]) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in refused:
        groups.setdefault((row.error.id, row.error.message, row.error.remedy), []).append(row.node.name)
    lines = []
    for (id, message, remedy), names in groups.items():
        lines += [f"refused ({id}): {named(names)}", f"  {message}", f"  remedy: {remedy}"]
    return lines


def findings_text(found: Checked) -> str:
    """Each finding with its nodes; what asks for something before what is good to know."""
    lines = []
    for finding in found.findings:
        grade = f"exit {finding.exit_code}" if finding.exit_code else "note"
        lines.append(f"{finding.id} ({grade}): {finding.message}")
        lines += [f"  nodes: {named(finding.nodes)}"] if finding.nodes else []
        lines += [f"  remedy: {finding.remedy}"]
    return "\n".join([*lines, "The pins fit." if found.exit_code == 0 else "The pins no longer fit."])


def named(names: Sequence[str]) -> str:
    """`a, b, c and 7 more`."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns under their headings."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
