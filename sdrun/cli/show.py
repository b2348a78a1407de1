"""`sdrun show`: how a picture was made, and the command that makes it again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from sdrun.core.picture import Record
    from sdrun.launch.repeat import Repeat


def command(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PNG that sdrun, or another program, has made.")],
    print_command: Annotated[bool, typer.Option("--command", help="Print the command that draws it again.")] = False,
    repeat: Annotated[bool, typer.Option("--repeat", help="Draw it again.")] = False,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Draw it again with this model.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where --repeat puts the picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.picture/v1.")] = False,
) -> None:
    """Print how a picture was made, or draw it again."""
    from sdrun.launch.metadata import read_record

    console: Console = ctx.obj
    record, keyword = read_record(file)
    if not (print_command or repeat):
        console.document(record.to_json()) if as_json else console.result(describe(record, keyword))
        return
    again = _again(record, model, output, console)
    for note in again.notes:
        console.note(note)
    if print_command:
        console.result(again.line)
    if repeat:
        _run(console, record, again, as_json, chosen=model is not None)


def _again(record: Record, model: str | None, output: Path | None, console: Console) -> Repeat:
    from sdrun.catalog.engines import engines
    from sdrun.launch.repeat import repeat

    known = {name for engine in engines().values() for name in engine.samplers}
    return repeat(record, model, output, known, lambda image: _is_here(image, console))


def _is_here(image: str, console: Console) -> bool:
    """Whether an image with sdrun's labels has that content id or digest. Without a runtime none is."""
    from sdrun.core.labels import TARGET
    from sdrun.errors import RuntimeUnavailable
    from sdrun.runtime import connect

    try:
        found = connect(console.settings().runtime).image(image)
    except RuntimeUnavailable:
        return False
    return found is not None and TARGET in found.labels


def _run(console: Console, record: Record, again: Repeat, as_json: bool, *, chosen: bool) -> None:
    """Becomes the command. A record may be anybody's: with engine arguments it could name files of this machine, with an
    address what is fetched, and then the user has to look first. Options that sdrun itself adds are no matter."""
    from sdrun.catalog.settings import settings
    from sdrun.core.fit import OPTIONS
    from sdrun.errors import UsageProblem
    from sdrun.launch.fitting import WITH_FLASH

    if any("=hf://" in word for word in again.arguments) and not chosen:
        raise UsageProblem(
            "the picture names a model by its address, which is not fetched unseen",
            "Name it: --model ADDRESS. sdrun show FILE prints it.",
        )
    own = {*OPTIONS, *(word for words in WITH_FLASH.values() for word in words)}
    own |= {option for setting in settings() for option in setting.options}
    if not set(record.engine_args) <= own:
        raise UsageProblem(
            "the picture was made with engine arguments, which are not repeated unseen",
            "Look at the command and run it: sdrun show FILE --command.",
        )
    console.note(again.line)
    sys.stdout.flush()
    sys.stderr.flush()
    words = ["--config", str(console.config)] if console.config else []
    words += [*(["--quiet"] if console.quiet else []), *(["--verbose"] if console.verbose else [])]
    words += [*again.arguments, *(["--json"] if as_json else [])]
    os.execv(sys.executable, [sys.executable, "-m", "sdrun", *words])


def describe(record: Record, keyword: str) -> str:
    """A line for each thing known, the prompt first. Control characters are written out."""
    from sdrun.launch.metadata import KEYWORD

    size = f"{record.width}x{record.height}" if record.width and record.height else None
    model, image = record.model, record.image
    rows: list[tuple[str, object]] = [
        ("prompt", record.prompt),
        ("negative", record.negative or None),
        ("seed", record.seed),
        ("size", size),
        ("steps", record.steps),
        ("cfg scale", record.cfg_scale),
        ("guidance", record.guidance),
        ("sampler", record.sampler),
        ("scheduler", record.scheduler),
        ("first picture", record.init and f"{record.init.name}, strength {record.strength or 0.75:g}"),
        ("model", model and (model.name or "own files")),
        *((f"  {file.role}", f"{file.name}, {_digest(file.sha256)}") for file in (model.files if model else ())),
        ("image", image and f"{image.target}, {image.digest}"),
        ("engine", image and f"{image.engine} ({image.revision[:12]})"),
        ("device", record.device),
        ("engine args", " ".join(record.engine_args) or None),
        ("made by", f"sdrun {record.version}" if keyword == KEYWORD else "another program (its parameters are shown)"),
        *record.notes.items(),
    ]
    return "\n".join(f"{name:<14} {_safe(str(value))}" for name, value in rows if value is not None)


def _digest(sha256: str | None) -> str:
    return f"sha256 {sha256}" if sha256 else "sha256 not known"


def _safe(text: str) -> str:
    lines = ("".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line) for line in text.split("\n"))
    return ("\n" + " " * 15).join(lines)
