"""`sdrun matrix`: the targets for CI."""

from __future__ import annotations

from typing import Annotated

import typer

from sdrun.cli.console import Console
from sdrun.cli.selection import selected
from sdrun.errors import UsageProblem
from sdrun.render.matrix import FORMATS, as_bake, as_github, as_list


def command(
    ctx: typer.Context,
    selector: Annotated[str, typer.Argument(help="A glob over target ids.")] = "*",
    format: Annotated[str, typer.Option("--format", "-f", help="json, github (strategy.matrix) or bake.")] = "json",
    context: Annotated[
        str, typer.Option("--context", help="bake: where `sdrun render --sources -o` wrote the contexts.")
    ] = "out",
    repository: Annotated[str, typer.Option("--repository", help="bake: what the images are named.")] = "sdrun",
) -> None:
    """Print the targets as a CI matrix or a bake file (JSON)."""
    console: Console = ctx.obj
    if format not in FORMATS:
        raise UsageProblem(f"--format must be one of {', '.join(FORMATS)}, not {format[:40]!r}", "Choose one of them.")
    catalogue, rows = selected(selector)
    if format == "bake":
        console.document(as_bake(rows, catalogue.bases, context, repository))
    else:
        console.document(as_github(rows) if format == "github" else as_list(rows))
