"""`sdrun render`: Dockerfiles and CI workflows as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; each target gets one below it.")],
    selector: Annotated[str | None, typer.Argument(help="A glob over target ids.")] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help=f"Put {CONTEXT_SOURCE} there as well, so that each folder can be built as it is.")
    ] = False,
    ci: Annotated[
        str | None, typer.Option("--ci", help="CI workflows instead: github, gitlab, or gitlab-images with --rows.")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", metavar="FILE", help="What `sdrun matrix --format github` printed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write the Dockerfile and its scripts for each target, or the CI workflows; print the paths."""
    console: Console = ctx.obj
    if ci is not None:
        _workflows(console, ci, selector, rows, output, as_json)
        return
    if selector is None:
        raise UsageProblem("a selector is missing", "Name targets, such as 'cu124-*', or ask for --ci github.", id="usage")
    _dockerfiles(console, selector, output, sources, as_json)


def _dockerfiles(console: Console, selector: str, output: Path, sources: bool, as_json: bool) -> None:
    catalogue, targets = selected(selector)
    written = {}
    for row in targets:
        files = render(row, engines()[row.engine], catalogue.bases[row.base])
        folder = output / f"{row.engine}-{row.name}"
        with _writing(folder):
            _write(folder, files)
            if sources:
                put_sources(engines()[row.engine], folder, console)
        written[row.name] = str(folder / "Dockerfile")
    if as_json:
        rendered = [{"target": target, "dockerfile": path} for target, path in written.items()]
        console.document({"schema": "sdrun.render/v1", "rendered": rendered})
        return
    console.result("\n".join(written.values()))
    if not sources:
        console.note(f"The build context also needs {CONTEXT_SOURCE}, the engine's sources; sdrun build makes it.")


def _workflows(console: Console, ci: str, selector: str | None, rows: Path | None, output: Path, as_json: bool) -> None:
    from sdrun.catalog.workflows import workflows
    from sdrun.render.workflow import KINDS, render_workflows

    kind = next((known for known in KINDS if known == ci), None)
    if kind is None:
        raise UsageProblem(f"--ci must be one of {', '.join(KINDS)}, not {ci[:40]!r}", "Choose one of them.")
    if selector is not None or (rows is not None) != (kind == "gitlab-images"):
        raise UsageProblem(
            "--rows goes with --ci gitlab-images and with nothing else; --ci takes no selector",
            "sdrun matrix 'cu124-*' --format github > rows.json, then render --ci gitlab-images --rows rows.json",
            id="usage",
        )
    files = render_workflows(kind, workflows(), _read_rows(rows) if rows is not None else ())
    with _writing(output):
        _write(output, files)
    paths = [str(output / name) for name in files]
    if as_json:
        console.document({"schema": "sdrun.render/v1", "rendered": [{"workflow": path} for path in paths]})
    else:
        console.result("\n".join(paths))


def _read_rows(path: Path) -> list[dict[str, object]]:
    from sdrun.catalog.jsonfile import Unreadable, read_json
    from sdrun.errors import BadConfiguration
    from sdrun.render.matrix import rows_of

    try:
        return rows_of(read_json(path))
    except (Unreadable, ValueError) as fault:
        text = str(fault) if isinstance(fault, Unreadable) else f"{path}: {fault}"
        raise BadConfiguration(text, "Give what sdrun matrix --format github printed.", id="bad-config") from None


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise UsageProblem(
            f"{folder} cannot be written: {fault.strerror}", "Name another folder with -o.", id="output-not-writable"
        ) from None


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
