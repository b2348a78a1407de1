"""The program's front: global options, one lazily imported module a verb, one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sdrun.cli.console import Console, own_arguments, printable, stdout_takes_more, stopped, unwritable
from sdrun.cli.helptext import WIDTH, speak_plainly
from sdrun.cli.quickvalues import spare_adapters
from sdrun.cli.verbs import PANELS, VERBS
from sdrun.errors import Interrupted, SdrunError, UsageProblem

LISTING = "sdrun.listing"


class VerbGroup(TyperGroup):
    """Commands by name from `VERBS`. While help is being listed a verb is only its name and line, so `--help` imports none."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Verb names, panel by panel."""
        return sorted(VERBS, key=lambda verb: PANELS.index(VERBS[verb][0]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's command, or None for an unknown name."""
        if cmd_name not in VERBS:
            return None
        if ctx.meta.get(LISTING):
            panel, line = VERBS[cmd_name]
            return TyperCommand(cmd_name, help=line, rich_help_panel=panel)
        return load(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's; its suggestion for a mistyped verb looks at `commands`, which a lazy group must fill in first."""
        if args and args[0] not in VERBS:
            self.commands = dict.fromkeys(VERBS, TyperCommand(None))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Lists the verbs without importing them."""
        ctx.meta[LISTING] = True
        super().format_help(ctx, formatter)


def load(verb: str) -> Any:
    """Imports the verb's module and makes its typer command, or its group of commands where the module offers an `app`."""
    module = import_module(f"sdrun.cli.{verb}")
    if hasattr(module, "app"):
        group = typer.main.get_command(module.app)
        group.name = verb
        return group
    app = typer.Typer(add_completion=False)
    settings = getattr(module, "CONTEXT_SETTINGS", None)
    app.command(verb, help=module.command.__doc__, context_settings=settings)(module.command)
    command = typer.main.get_command(app)
    command.name = verb
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        from sdrun import __version__

        Console().result(f"sdrun {__version__}")
        raise typer.Exit


def _program() -> typer.Typer:
    app = typer.Typer(
        cls=VerbGroup, no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"max_content_width": WIDTH}
    )

    @app.callback()
    def program(
        ctx: typer.Context,
        config: Annotated[Path | None, typer.Option("--config", help="Settings file, over the user's and the site's.")] = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result and errors.")] = False,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show commands before they run.")] = False,
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        """The right stable-diffusion.cpp image for every NVIDIA GPU: built, proven, chosen and run."""
        ctx.obj = Console(quiet=quiet, verbose=verbose, config=config)

    return app


def main() -> int:
    """Runs the command line; returns the exit code. No traceback reaches a user unless SDRUN_TRACEBACK is set."""
    own = own_arguments(sys.argv[1:])
    console = Console(as_json="--json" in own)
    printable()
    try:
        return _run(own, console)
    except (BrokenPipeError, SystemExit) as end:
        if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
            raise  # else typer has made an exit with 1 of it
        sys.stdout = None  # the reader went away; nothing is left to say to it
        return 0
    except Exception as error:  # the last line of defence: a defect is told as one, with how to see more
        if isinstance(error, OSError) and not stdout_takes_more():
            console.error(unwritable(error))
            return UsageProblem.exit_code
        if os.environ.get("SDRUN_TRACEBACK"):
            raise
        console.error(
            SdrunError(
                f"unexpected {type(error).__name__}: {error}",
                "This is a defect in sdrun. Run again with SDRUN_TRACEBACK=1 and report what it prints.",
            )
        )
        return 1


def _run(own: list[str], console: Console) -> int:
    """The exit code; raises what is no error of the user's."""
    try:
        spare_adapters()
        speak_plainly()
        code = _program()(standalone_mode=False, prog_name="sdrun")
        if code == Interrupted.exit_code:  # what typer makes of a KeyboardInterrupt; ours is an error with its own words
            return stopped(own)
        return code if isinstance(code, int) else 0
    except SdrunError as error:
        console.error(error)
        return error.exit_code
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            return 2
        console.error(UsageProblem(error.format_message(), _usage_remedy(own, error), id="usage"))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return stopped(own)


def _usage_remedy(own: list[str], error: typer.TyperException) -> str:
    option, verb = getattr(error, "option_name", None), _verb(own)
    if verb and option in ("--quiet", "-q", "--verbose", "-v", "--config", "--version"):
        return f"It stands before the verb: sdrun {option} {verb}..."
    context = getattr(error, "ctx", None)
    return f"See: {context.command_path} --help" if context is not None else f"See: sdrun {verb}--help"


def _verb(arguments: list[str]) -> str:
    return next((f"{word} " for word in arguments if word in VERBS), "")
