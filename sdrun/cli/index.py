"""`sdrun index`: what a registry has published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sdrun.core.index import IndexImage

COLUMNS = ("TARGET", "PLATFORM", "TOOLKIT", "SASS", "PTX", "FATBINS", "PULL", "DIGEST")


def command(
    ctx: typer.Context,
    registry: Annotated[
        str | None, typer.Option("--registry", metavar="REF", help="HOST[:PORT]/PATH[:ENGINE]; default: SDRUN_REGISTRY.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.index/v1, which --index takes.")] = False,
) -> None:
    """List the images of a registry with what each one really contains.

    One request; where the registry cannot be reached, the index as it was last seen, and its age.
    """
    from sdrun.core.index import to_json
    from sdrun.errors import UsageProblem
    from sdrun.launch.sources import sources_at

    console: Console = ctx.obj
    sources = sources_at(console.settings(), registry)
    if not sources.references:
        raise UsageProblem("no registry is named", "Name it: --registry registry.example/team/sdrun, or SDRUN_REGISTRY.")
    found = sources.found(console.note)
    console.note(f"{found.published.engine} at {found.reference.repository}")
    console.detail(f"{found.reference}@{found.digest}: {found.requests} requests, {found.bytes} bytes")
    if as_json:
        console.document(to_json(found.index))
        return
    console.result(table(found.index.images))


def table(rows: Sequence[IndexImage]) -> str:
    """The images in columns; a dash stands for nothing."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(row: IndexImage) -> tuple[str, ...]:
    from sdrun.core.size import size_text

    size = size_text(row.size_bytes) if row.size_bytes is not None else ""
    sass, ptx = ",".join(map(str, row.sass)), ",".join(map(str, row.ptx))
    digest = row.image.rpartition("@")[2]
    cells = (row.target, row.platform, str(row.toolkit or ""), sass, ptx, row.fatbin_compression or "", size, digest[:19])
    return tuple(cell or "-" for cell in cells)
