"""`sdrun render`: Dockerfiles as text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdrun.catalog.engines import engines
from sdrun.cli.console import Console
from sdrun.cli.selection import selected
from sdrun.core.engine import Engine
from sdrun.errors import UsageProblem
from sdrun.render.dockerfile import CONTEXT_SOURCE, render


def command(
    ctx: typer.Context,
    selector: Annotated[str, typer.Argument(help="A glob over target ids.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; each target gets one below it.")],
    sources: Annotated[
        bool, typer.Option("--sources", help=f"Put {CONTEXT_SOURCE} there as well, so that each folder can be built as it is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the Dockerfile and its scripts for each target; print the Dockerfiles' paths."""
    console: Console = ctx.obj
    catalogue, rows = selected(selector)
    written = {}
    for row in rows:
        files = render(row, engines()[row.engine], catalogue.bases[row.base])
        folder = output / f"{row.engine}-{row.name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
            if sources:
                put_sources(engines()[row.engine], folder, console)
        except OSError as fault:
            raise UsageProblem(
                f"{folder} cannot be written: {fault.strerror}", "Name another folder with -o.", id="output-not-writable"
            ) from None
        written[row.name] = str(folder / "Dockerfile")
    if as_json:
        rendered = [{"target": target, "dockerfile": path} for target, path in written.items()]
        console.document({"schema": "sdrun.render/v1", "rendered": rendered})
        return
    console.result("\n".join(written.values()))
    if not sources:
        console.note(f"The build context also needs {CONTEXT_SOURCE}, the engine's sources; sdrun build makes it.")


def put_sources(engine: Engine, folder: Path, console: Console) -> None:
    """The engine's packed sources, fetched if need be, into a context."""
    from shutil import copyfile

    from sdrun.build.source import fetch
    from sdrun.resources import cache_root

    destination = folder / CONTEXT_SOURCE
    destination.unlink(missing_ok=True)
    tar = fetch(engine, cache_root(), console.note).tar
    try:
        destination.hardlink_to(tar)
    except OSError:  # another file system
        copyfile(tar, destination)
