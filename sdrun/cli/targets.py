"""`sdrun targets`: what can be built."""

from __future__ import annotations

from typing import Annotated

import typer

from sdrun.cli.console import Console
from sdrun.cli.selection import selected
from sdrun.core.target import Target, to_json

COLUMNS = ("TARGET", "TOOLKIT", "SASS", "PTX", "MIN DRIVER", "PLATFORM", "TAG")


def command(
    ctx: typer.Context,
    selector: Annotated[str, typer.Argument(help="A glob over target ids, such as 'cu124-sm{86,89}' or '*-sm120'.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.targets/v1.")] = False,
) -> None:
    """List what can be built, one target a line."""
    console: Console = ctx.obj
    _, rows = selected(selector)
    if as_json:
        console.document({"schema": "sdrun.targets/v1", "targets": [to_json(row) for row in rows]})
    else:
        console.result(table(rows))


def table(rows: list[Target]) -> str:
    """The targets in columns; a dash stands for nothing."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(row: Target) -> tuple[str, ...]:
    sass, ptx = ",".join(map(str, row.sass)), ",".join(map(str, row.ptx))
    cells = (str(row.id), str(row.toolkit or ""), sass, ptx, str(row.min_driver or ""), row.platform, row.tag)
    return tuple(cell or "-" for cell in cells)
