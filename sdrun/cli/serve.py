"""`sdrun serve`: the engine's HTTP server, for programs that speak OpenAI's or A1111's way of asking for pictures."""

from __future__ import annotations

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
    Model,
    Tuned,
    after_dashes,
    where_from,
)
from sdrun.cli.placement import fetching as fetching_for

if TYPE_CHECKING:
    from sdrun.launch.choosing import Wishes
    from sdrun.launch.request import Request
    from sdrun.launch.serve import Serving
    from sdrun.launch.serve_relay import Relay

PORT = 1234  # the engine's own default, which its clients know


def command(
    ctx: typer.Context,
    model: Model,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0 takes a free one.")] = PORT,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is every network there is.")] = "127.0.0.1",
    grace: Annotated[
        float, typer.Option("--grace", min=0, max=86400, help="Seconds that open requests have when it is stopped.")
    ] = 30,
    fit: Fit = True,
    tuned: Tuned = True,
    gpu: Gpu = "auto",
    allow_cpu: AllowCpu = False,
    allow_jit: AllowJit = True,
    image: Image = None,
    index: IndexFile = None,
    build: BuildHere = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    engine_args: EngineArguments = None,
) -> None:
    """Run the engine's HTTP server in a container; print its address when it answers."""
    console: Console = ctx.obj
    from sdrun.launch.choosing import Wishes
    from sdrun.launch.request import Request, check

    request = Request(model=model, prompt="", engine_args=after_dashes(engine_args or []), fit=fit, tuned=tuned, serves=True)
    check(request)
    wishes = Wishes(gpu, allow_cpu, allow_jit, image, *where_from(console, index))
    if dry_run:
        _print_command(console, request, wishes, build, port or PORT, as_json)
        return
    from sdrun.launch.serve_relay import Relay

    relay = Relay(host, port)  # before anything is fetched, built or started
    try:
        _run(console, request, wishes, build, relay, grace, as_json)
    finally:
        relay.close()


def _print_command(console: Console, request: Request, wishes: Wishes, build: bool, port: int, as_json: bool) -> None:
    import shlex

    from sdrun.launch.preparing import decide
    from sdrun.launch.serve import command_line
    from sdrun.launch.watch import Listener
    from sdrun.runtime.network import PUBLISHED

    connection = Connection(console)
    fetching = fetching_for(console, connection, build, dry_run=True)
    decided, runtime = decide(request, wishes, fetching, Listener(console.note, console.detail), connection.get)
    if runtime.name == "docker":
        console.note(f"make its network first, once: {shlex.join(PUBLISHED.command(runtime.name))}")
    command, missing = command_line(decided, runtime, port)
    if missing:
        console.note(f"make its folders first: {shlex.join(['mkdir', '-p', *map(str, missing)])}")
    if as_json:
        plan = decided.chosen.plan
        facts = {"target": plan.target, "image": decided.chosen.image, "code_path": plan.code_path}
        console.document({"schema": "sdrun.command/v1", "command": command, **facts})
    else:
        console.result(shlex.join(command))


def _run(console: Console, request: Request, wishes: Wishes, build: bool, relay: Relay, grace: float, as_json: bool) -> None:
    from sdrun.cli.downloads import Downloads
    from sdrun.cli.live import Raw, Silent
    from sdrun.errors import Interrupted
    from sdrun.launch.preparing import decide
    from sdrun.launch.serve import serve
    from sdrun.launch.stopping import stoppable
    from sdrun.launch.watch import Listener

    def ready(serving: Serving) -> None:
        if relay.exposed:
            console.note(
                f"reachable {relay.exposed}: it asks for no password, answers scripts of any web page, and takes engine "
                "options inside a prompt; put a proxy with a login before it"
            )
        if as_json:
            console.document(serving.to_json())
        else:
            console.result(serving.url)

    shown = Raw() if console.verbose and not console.quiet else Silent()
    downloads = Downloads(console)
    listener = Listener(console.note, console.detail, output=shown.output, download=downloads.show)
    connection = Connection(console)
    fetching = fetching_for(console, connection, build, dry_run=False)
    try:
        with stoppable():
            decided, runtime = decide(request, wishes, fetching, listener, connection.get)
            downloads.close()
            console.note(f"loading {decided.model.name}")
    except KeyboardInterrupt:
        raise Interrupted("stopped before the engine was started", "Run the same command again.") from None
    finally:
        downloads.close()
    serve(decided, runtime, relay, listener, grace, ready)
