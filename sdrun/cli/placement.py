"""The options that say where an engine runs, and what stands behind them: shared by the verbs that start one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from sdrun.core.policy import Build
    from sdrun.launch.choosing import Fetching
    from sdrun.launch.sources import Sources
    from sdrun.runtime.protocol import ContainerRuntime

PANEL = "Where it runs"

_MODEL = typer.Option("--model", "-m", help="A catalogue name, a file, or role=FILE,... (diffusion, llm, vae, ...).")
Model = Annotated[str, _MODEL]
ModelOrUsual = Annotated[str | None, _MODEL]
Fit = Annotated[bool, typer.Option("--fit/--no-fit", help="Look at free memory first, and save it.", rich_help_panel=PANEL)]
Tuned = Annotated[
    bool, typer.Option("--tuned/--no-tuned", help="Tell the engine what is faster on this GPU.", rich_help_panel=PANEL)
]
Gpu = Annotated[str, typer.Option("--gpu", help="auto, all, an index, a UUID, a MIG UUID, none.", rich_help_panel=PANEL)]
AllowCpu = Annotated[bool, typer.Option("--allow-cpu", help="Use the CPU where no GPU can be used.", rich_help_panel=PANEL)]
AllowJit = Annotated[
    bool, typer.Option("--allow-jit/--no-jit", help="Code the driver compiles at the first run.", rich_help_panel=PANEL)
]
Image = Annotated[str | None, typer.Option("--image", help="This image: tag, digest, id or target.", rich_help_panel=PANEL)]
IndexFile = Annotated[str | None, typer.Option("--index", help="Published images (sdrun.index/v1).", rich_help_panel=PANEL)]
BuildHere = Annotated[bool, typer.Option("--build", help="Build the image here where none fits.", rich_help_panel=PANEL)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the container command; start nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
EngineArguments = Annotated[list[str] | None, typer.Argument(help="After --: handed to the engine as they are.")]


def usual_model(console: Console) -> str:
    """The model of the catalogue that is taken where none is named, and a line that says so."""
    from sdrun.catalog.models import models

    name = models().default
    console.note(f"model {name} (sdrun models ls has others; -m chooses one)")
    return name


def where_from(console: Console, index: str | None) -> tuple[str | None, Sources]:
    """The index file that was named, and the registry of the settings."""
    from sdrun.launch.sources import sources_of

    settings = console.settings()
    return index or settings.index, sources_of(settings)


def after_dashes(words: list[str]) -> tuple[str, ...]:
    """Words that stand after `--` are the engine's. One before it is a mistake, and the engine would only say so late."""
    from sdrun.errors import UsageProblem

    own = sys.argv[1:]
    passed = len(own) - own.index("--") - 1 if "--" in own else 0
    if len(words) > passed:
        raise UsageProblem(
            f"unexpected argument {words[0][:40]!r}", "Quote the prompt; engine arguments stand after --.", id="usage"
        )
    return tuple(words)


class Connection:
    """The runtime, connected to when it is first asked for, and once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runtime: ContainerRuntime | None = None

    def get(self) -> ContainerRuntime:
        """The runtime."""
        if self._runtime is None:
            from sdrun.runtime import connect

            self._runtime = connect(self._console.settings().runtime)
        return self._runtime


def fetching(console: Console, connection: Connection, build: bool, dry_run: bool) -> Fetching:
    """How what is missing may be had: nothing for a dry run, else pulled, and built where that was asked for."""
    from sdrun.cli.live import PullProgress
    from sdrun.launch.choosing import Fetching

    def make(wanted: Build) -> None:
        _build(console, connection.get(), wanted)

    return Fetching(
        pull=not dry_run, build=make if build and not dry_run else None, progress=PullProgress(console).show, say=console.note
    )


def _build(console: Console, runtime: ContainerRuntime, wanted: Build) -> None:
    """Builds the target the resolver asks for. Raises UsageProblem where the catalogue does not have it."""
    from sdrun.build.choice import on_platform
    from sdrun.build.image import build
    from sdrun.catalog.engines import engines
    from sdrun.cli.build import Display, summary
    from sdrun.cli.exercising import exercise_for
    from sdrun.cli.selection import selected

    catalogue, rows = selected(wanted.target)
    (target, *_) = on_platform(rows, wanted.platform)
    shown = Display(console)
    try:
        built = build(
            target,
            engines()[target.engine],
            catalogue.bases[target.base],
            runtime,
            say=console.note,
            on_step=shown.show,
            exercise=exercise_for(console),
        )
    finally:
        shown.end()
    console.note(summary(built))
