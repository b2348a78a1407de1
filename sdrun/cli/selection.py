"""Targets named on the command line: what a selector finds, or a usage error with the nearest ids."""

from __future__ import annotations

from difflib import get_close_matches

from sdrun.catalog.targets import Targets, targets
from sdrun.core.target import Target, select
from sdrun.errors import UsageProblem


def selected(selector: str) -> tuple[Targets, list[Target]]:
    """The catalogue and the targets that `selector` names, at least one. Raises UsageProblem (`unknown-target`)."""
    catalogue = targets()
    try:
        found = select(selector, catalogue.rows)
    except ValueError as fault:
        raise UsageProblem(str(fault), "Write a glob over target ids such as 'cu124-sm{86,89}'.", id="unknown-target") from None
    if found:
        return catalogue, found
    ids = [str(row.id) for row in catalogue.rows]
    near = get_close_matches(selector, ids, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    raise UsageProblem(f"no target is named {selector[:60]!r}", f"{hint}List them: sdrun targets", id="unknown-target")
