"""`sdrun doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdrun.cli.console import Console
    from sdrun.launch.doctor import Check

_COLOURS = {"ok": "32", "warn": "33", "fail": "31;1", "skip": "2"}
_NAME = 13
_INDENT = 4 + 2 + _NAME + 2


def command(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.doctor/v1 on stdout.")] = False,
    index: Annotated[str | None, typer.Option("--index", metavar="FILE", help="The published images (SDRUN_INDEX).")] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="FILE", help="Host facts instead of this machine's GPUs.")
    ] = None,
) -> None:
    """Check everything a run needs; each finding with its remedy.

    Ends with 0 when nothing failed, else with the exit code of the first failure: the one that a run would end with.
    """
    from sdrun.launch.doctor import examine, survey, worst
    from sdrun.launch.doctor.check import to_json

    console: Console = ctx.obj
    checks = examine(survey(console.settings(), index, host))
    if as_json:
        console.document(to_json(checks))
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in table(checks, width=min(shutil.get_terminal_size().columns, 120), colours=colours):
            console.result(line)
        console.note(_summary(checks))
    raise typer.Exit(worst(checks))


def table(checks: Sequence[Check], width: int, colours: bool) -> Iterator[str]:
    """Status, name and what was seen, wrapped to `width`; below it the remedy, on one line, so that it can be pasted."""
    import textwrap

    for check in checks:
        wrapper = textwrap.TextWrapper(
            width=max(width, 40), subsequent_indent=" " * _INDENT, break_long_words=False, break_on_hyphens=False
        )
        lines = wrapper.wrap(f"{check.status:<4}  {check.name:<{_NAME}}  {' '.join(check.seen.split())}")
        if colours:
            lines[0] = f"\x1b[{_COLOURS[check.status]}m{check.status:<4}\x1b[0m{lines[0][4:]}"
        yield from lines
        if check.remedy:
            yield f"      fix: {check.remedy}"


def _summary(checks: Sequence[Check]) -> str:
    failed = sum(check.status == "fail" for check in checks)
    warned = sum(check.status == "warn" for check in checks)
    if not failed and not warned:
        return "Nothing is wrong."
    counts = [f"{failed} failed"] if failed else []
    counts += [f"{warned} to look at"] if warned else []
    return ", ".join(counts) + "."
