"""`sdrun generate`: a prompt becomes a picture."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from sdrun.core.policy import Build
    from sdrun.launch.choosing import Fetching, Wishes
    from sdrun.launch.generate import Outcome, Prepared
    from sdrun.launch.request import Request
    from sdrun.runtime.protocol import ContainerRuntime

CONTEXT_SETTINGS = {"help_option_names": ["--help", "-h"]}
HELP_PICTURE, HELP_PLACE = "Picture", "Where it runs"


def command(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A catalogue name, a file, or role=FILE,... (diffusion, llm, vae, ...).")
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to draw.")],
    negative: Annotated[str, typer.Option("--negative-prompt", "-n", help="What not to draw.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG or JPEG file, or a folder. Default: output.png, or a free name.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="Pixels.", rich_help_panel=HELP_PICTURE)] = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Pixels.", rich_help_panel=HELP_PICTURE)] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Sampling steps.", rich_help_panel=HELP_PICTURE)] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", help="Same seed, same picture; -1 draws one.", rich_help_panel=HELP_PICTURE)
    ] = None,
    cfg_scale: Annotated[
        float | None,
        typer.Option("--cfg-scale", help="Pull of the prompt; 1 for distilled models.", rich_help_panel=HELP_PICTURE),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Distilled guidance (FLUX).", rich_help_panel=HELP_PICTURE)
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", "--sampling-method", help="Such as euler.", rich_help_panel=HELP_PICTURE)
    ] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Such as karras.", rich_help_panel=HELP_PICTURE)] = None,
    init: Annotated[
        Path | None,
        typer.Option("--init", "-i", "--init-img", help="A first picture to start from.", rich_help_panel=HELP_PICTURE),
    ] = None,
    strength: Annotated[
        float | None, typer.Option("--strength", help="How much of it changes, 0 to 1.", rich_help_panel=HELP_PICTURE)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", help="How many pictures.", rich_help_panel=HELP_PICTURE)] = 1,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Do not write into it how it was made.", rich_help_panel=HELP_PICTURE)
    ] = False,
    fit: Annotated[
        bool,
        typer.Option("--fit/--no-fit", help="Look at free memory first, and save it.", rich_help_panel=HELP_PLACE),
    ] = True,
    gpu: Annotated[
        str, typer.Option("--gpu", help="auto, all, an index, a UUID, a MIG UUID, none.", rich_help_panel=HELP_PLACE)
    ] = "auto",
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Use the CPU where no GPU can be used.", rich_help_panel=HELP_PLACE)
    ] = False,
    allow_jit: Annotated[
        bool,
        typer.Option("--allow-jit/--no-jit", help="Code the driver compiles at the first run.", rich_help_panel=HELP_PLACE),
    ] = True,
    image: Annotated[
        str | None, typer.Option("--image", help="This image: tag, digest, id or target.", rich_help_panel=HELP_PLACE)
    ] = None,
    index: Annotated[
        str | None, typer.Option("--index", help="Published images (sdrun.index/v1).", rich_help_panel=HELP_PLACE)
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build the image here where none fits.", rich_help_panel=HELP_PLACE)
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the container command; start nothing.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Draw the picture in the terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    engine_args: Annotated[list[str] | None, typer.Argument(help="After --: handed to the engine as they are.")] = None,
) -> None:
    """Draw a picture in a container and print its path."""
    started = time.monotonic()
    console: Console = ctx.obj
    from sdrun.launch.choosing import Wishes
    from sdrun.launch.request import Request

    request = Request(
        model=model,
        prompt=prompt,
        negative=negative,
        output=output,
        width=width,
        height=height,
        steps=steps,
        seed=seed,
        cfg_scale=cfg_scale,
        guidance=guidance,
        sampler=sampler,
        scheduler=scheduler,
        init=init,
        strength=strength,
        batch=batch,
        engine_args=_after_dashes(engine_args or []),
        metadata=not no_metadata,
        fit=fit,
    )
    wishes = Wishes(gpu, allow_cpu, allow_jit, image, index or console.settings().index)
    if dry_run:
        _print_command(console, _prepare(console, request, wishes, build), as_json)
        return
    outcome = _run(console, request, wishes, build, started)
    if as_json:
        console.document(outcome.to_json())
    else:
        console.result("\n".join(str(path) for path in outcome.files))
    if show:
        from sdrun.cli.picture import show_picture

        for path in outcome.files:
            show_picture(path, console)


def _after_dashes(words: list[str]) -> tuple[str, ...]:
    """Words that stand after `--` are the engine's. One before it is a mistake, and the engine would only say so late."""
    from sdrun.errors import UsageProblem

    own = sys.argv[1:]
    passed = len(own) - own.index("--") - 1 if "--" in own else 0
    if len(words) > passed:
        raise UsageProblem(
            f"unexpected argument {words[0][:40]!r}", "Quote the prompt; engine arguments stand after --.", id="usage"
        )
    return tuple(words)


def _prepare(console: Console, request: Request, wishes: Wishes, build: bool) -> tuple[Prepared, ContainerRuntime]:
    """For --dry-run: everything decided, nothing fetched, built or started."""
    from sdrun.launch.generate import prepare
    from sdrun.launch.watch import Listener

    connection = _Connection(console)
    fetching = _fetching(console, connection, build, dry_run=True)
    return prepare(request, wishes, fetching, Listener(console.note, console.detail), connection.get)


def _print_command(console: Console, decided: tuple[Prepared, ContainerRuntime], as_json: bool) -> None:
    import shlex

    from sdrun.launch.generate import command_line

    command = command_line(*decided)
    folder = decided[0].destination.folder
    if not folder.exists():  # --mount makes none
        console.note(f"make its folder first: {shlex.join(['mkdir', '-p', str(folder)])}")
    plan = decided[0].chosen.plan
    facts = {"target": plan.target, "image": decided[0].chosen.image, "code_path": plan.code_path}
    if as_json:
        console.document({"schema": "sdrun.command/v1", "command": command, **facts})
    else:
        console.result(shlex.join(command))


def _run(console: Console, request: Request, wishes: Wishes, build: bool, started: float) -> Outcome:
    from sdrun.cli.downloads import Downloads
    from sdrun.cli.live import display
    from sdrun.errors import Interrupted
    from sdrun.launch.generate import generate, prepare
    from sdrun.launch.stopping import stoppable
    from sdrun.launch.watch import Listener

    shown = display(console)
    downloads = Downloads(console)
    listener = Listener(console.note, console.detail, shown.progress, shown.output, downloads.show)
    connection = _Connection(console)
    fetching = _fetching(console, connection, build, dry_run=False)
    try:
        with stoppable():
            prepared, runtime = prepare(request, wishes, fetching, listener, connection.get)
            downloads.close()
            return generate(prepared, runtime, listener, started)
    except KeyboardInterrupt:
        raise Interrupted("stopped before the engine was started", "Run the same command again.") from None
    finally:
        downloads.close()
        shown.close()


class _Connection:
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


def _fetching(console: Console, connection: _Connection, build: bool, dry_run: bool) -> Fetching:
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
    from sdrun.cli.selection import selected

    catalogue, rows = selected(wanted.target)
    (target, *_) = on_platform(rows, wanted.platform)
    shown = Display(console)
    try:
        built = build(
            target, engines()[target.engine], catalogue.bases[target.base], runtime, say=console.note, on_step=shown.show
        )
    finally:
        shown.end()
    console.note(summary(built))
