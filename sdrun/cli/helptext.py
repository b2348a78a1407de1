"""Help as plain text: usage, what the command does, then its options and commands under the headings they are given.

typer's own help draws boxes with rich, whose import costs more than the rest of `sdrun --help` together.
"""

from __future__ import annotations

import inspect
import os
from functools import cache
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

WIDTH = 100  # columns at most; a narrower terminal's own


@cache
def speak_plainly() -> None:
    """From the first call on, commands and groups of this process format their help so."""
    for kind in (TyperCommand, TyperGroup):
        kind.format_help = _format_help  # type: ignore[method-assign]


def _format_help(self: Any, ctx: Any, formatter: Any) -> None:
    """What click calls to write the help of a command or group."""
    self.format_usage(ctx, formatter)
    self.format_help_text(ctx, formatter)
    for heading, rows in _sections(self, ctx).items():
        with formatter.section(typer.style(heading, bold=True) if _styled() else heading):
            formatter.write_dl(rows)


def _styled() -> bool:
    """Whether headings may stand out, where they go to a terminal at all."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Heading -> (what, its line): arguments and options without a heading of their own first, commands last."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        if (record := parameter.get_help_record(ctx)) is not None:
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
    for name in command.list_commands(ctx) if isinstance(command, TyperGroup) else ():
        inner = command.get_command(ctx, name)
        if inner is not None and not inner.hidden:
            heading = getattr(inner, "rich_help_panel", None)
            sections.setdefault(heading if isinstance(heading, str) else "Commands", []).append((name, _first_paragraph(inner)))
    return {heading: rows for heading, rows in sections.items() if rows}


def _first_paragraph(command: Any) -> str:
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())
