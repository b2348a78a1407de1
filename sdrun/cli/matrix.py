"""`sdrun matrix`: the targets for CI."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sdrun.catalog.ci import ci
from sdrun.cli.console import Console
from sdrun.cli.selection import selected
from sdrun.errors import UsageProblem
from sdrun.render.matrix import FORMATS, MAX_JOBS, as_bake, as_github, as_list


def command(
    ctx: typer.Context,
    selector: Annotated[str, typer.Argument(help="A glob over target ids.")] = "*",
    format: Annotated[
        str, typer.Option("--format", "-f", help="json, github (strategy.matrix, one line for $GITHUB_OUTPUT) or bake.")
    ] = "json",
    unpublished: Annotated[
        str | None, typer.Option("--unpublished", metavar="REGISTRY", help="Only targets that this registry's index lacks.")
    ] = None,
    context: Annotated[
        str, typer.Option("--context", help="bake: where `sdrun render --sources -o` wrote the contexts.")
    ] = "out",
    repository: Annotated[str, typer.Option("--repository", help="bake: what the images are named.")] = "sdrun",
    as_json: Annotated[
        bool, typer.Option("--json", help="The answer is JSON in every format; with this errors are, too.")
    ] = False,
) -> None:
    """Print the targets as a CI matrix or a bake file (JSON)."""
    console: Console = ctx.obj
    if format not in FORMATS:
        raise UsageProblem(f"--format must be one of {', '.join(FORMATS)}, not {format[:40]!r}", "Choose one of them.")
    catalogue, rows = selected(selector)
    if unpublished is not None:
        from sdrun.build.unpublished import unpublished as lacking
        from sdrun.catalog.engines import engines
        from sdrun.resources import cache_root

        rows = lacking(rows, engines(), catalogue.bases, unpublished, cache_root(), console.note)
    if format == "bake":
        console.document(as_bake(rows, catalogue.bases, context, repository))
    elif format == "json":
        console.document(as_list(rows))
    else:
        if len(rows) > MAX_JOBS:
            raise UsageProblem(
                f"{selector[:60]!r} names {len(rows)} targets, and a GitHub matrix has at most {MAX_JOBS} jobs",
                "Split them over several matrices: sdrun matrix 'cu124-*' --format github",
            )
        console.result(json.dumps(as_github(rows, ci())))
