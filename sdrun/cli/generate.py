"""`sdrun generate`: a prompt becomes a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console
from sdrun.cli.placement import (
    AllowCpu,
    AllowJit,
    AsJson,
    BuildHere,
    Connection,
    DryRun,
    EngineArguments,
    Fit,
    Gpu,
    Image,
    IndexFile,
    ModelOrUsual,
    Tuned,
    after_dashes,
    usual_model,
    where_from,
)
from sdrun.cli.placement import fetching as fetching_for

if TYPE_CHECKING:
    from sdrun.launch.choosing import Wishes
    from sdrun.launch.generate import Outcome, Prepared
    from sdrun.launch.request import Request
    from sdrun.runtime.protocol import ContainerRuntime

CONTEXT_SETTINGS = {"help_option_names": ["--help", "-h"]}
HELP_PICTURE = "Picture"


def command(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to draw.")],
    model: ModelOrUsual = None,
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
    fit: Fit = True,
    tuned: Tuned = True,
    gpu: Gpu = "auto",
    allow_cpu: AllowCpu = False,
    allow_jit: AllowJit = True,
    image: Image = None,
    index: IndexFile = None,
    build: BuildHere = False,
    dry_run: DryRun = False,
    show: Annotated[bool, typer.Option("--show", help="Draw the picture in the terminal.")] = False,
    as_json: AsJson = False,
    engine_args: EngineArguments = None,
) -> None:
    """Draw a picture in a container and print its path."""
    started = time.monotonic()
    console: Console = ctx.obj
    from sdrun.launch.choosing import Wishes
    from sdrun.launch.request import Request

    request = Request(
        model=model if model is not None else usual_model(console),
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
        engine_args=after_dashes(engine_args or []),
        metadata=not no_metadata,
        fit=fit,
        tuned=tuned,
    )
    wishes = Wishes(gpu, allow_cpu, allow_jit, image, *where_from(console, index))
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


def _prepare(console: Console, request: Request, wishes: Wishes, build: bool) -> tuple[Prepared, ContainerRuntime]:
    """For --dry-run: everything decided, nothing fetched, built or started."""
    from sdrun.launch.generate import prepare
    from sdrun.launch.watch import Listener

    connection = Connection(console)
    fetching = fetching_for(console, connection, build, dry_run=True)
    return prepare(request, wishes, fetching, Listener(console.note, console.detail), connection.get)


def _print_command(console: Console, ready: tuple[Prepared, ContainerRuntime], as_json: bool) -> None:
    import shlex

    from sdrun.launch.generate import command_line

    command, missing = command_line(*ready)
    if missing:
        console.note(f"make its folders first: {shlex.join(['mkdir', '-p', *map(str, missing)])}")
    chosen = ready[0].decided.chosen
    plan = chosen.plan
    facts = {"target": plan.target, "image": chosen.image, "code_path": plan.code_path}
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
    connection = Connection(console)
    fetching = fetching_for(console, connection, build, dry_run=False)
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
