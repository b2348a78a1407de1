"""`sdrun selftest`: does an image compute what it should on the chosen device, and if not, which kernels are off?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console
from sdrun.cli.placement import AllowCpu, AllowJit, AsJson, Connection, Gpu, Image, IndexFile
from sdrun.cli.placement import fetching as fetching_for

if TYPE_CHECKING:
    from sdrun.launch.choosing import Wishes
    from sdrun.launch.selftest import Result


def command(
    ctx: typer.Context,
    image: Image = None,
    gpu: Gpu = "auto",
    allow_cpu: AllowCpu = False,
    allow_jit: AllowJit = True,
    index: IndexFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only what a run with the shipped model exercises.")] = False,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Leave the pictures in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw recorded pictures again and compare; exit 9 where the engine computes wrongly, naming the kernels."""
    from sdrun.launch.choosing import Wishes

    console: Console = ctx.obj
    wishes = Wishes(gpu, allow_cpu, allow_jit, image, index or console.settings().index)
    result = _run(console, wishes, quick, keep)
    error = result.error()
    if as_json:
        console.document(result.to_json())
        if error is not None:
            console.note(f"sdrun: {error.message}")
            raise typer.Exit(error.exit_code)
        return
    if error is not None:
        error.detail = None  # the readings were told while they were taken
        raise error
    console.result(f"{result.chosen.plan.target}: {result.summary()}")


def _run(console: Console, wishes: Wishes, quick: bool, keep: Path | None) -> Result:
    from sdrun.catalog.selftest import pictures_dir, selftest
    from sdrun.core.selftest import Reading
    from sdrun.launch.selftest import run
    from sdrun.launch.selftest.report import line
    from sdrun.launch.watch import Listener

    suite = selftest()
    probes = [probe for probe in suite.probes if probe.quick or not quick]
    connection = Connection(console)

    def tell(reading: Reading) -> None:
        console.note(line(reading))

    return run(
        suite,
        probes,
        wishes,
        fetching_for(console, connection, build=False, dry_run=False),
        Listener(console.note, console.detail),
        connection.get,
        pictures_dir(),
        tell=tell,
        keep=keep,
    )
