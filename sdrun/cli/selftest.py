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
    record: Annotated[
        Path | None,
        typer.Option(
            "--record-run", metavar="FILE", help="Write the evidence for an image with pruned libraries; print its row."
        ),
    ] = None,
    cublas: Annotated[
        str, typer.Option("--cublas", metavar="VERSION", help="Of --record-run: what the library was made of, 12.4.5.8 say.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Draw recorded pictures again and compare; exit 9 where the engine computes wrongly, naming the kernels."""
    from sdrun.launch.choosing import Wishes

    console: Console = ctx.obj
    if record is not None:
        _check_record(record, cublas, quick)
    wishes = Wishes(gpu, allow_cpu, allow_jit, image, index or console.settings().index)
    connection = Connection(console)
    result = _run(console, connection, wishes, quick, keep)
    error = result.error()
    if record is not None and error is None:
        row = _recorded(result, record, cublas, connection)
        console.note(f"the run is in {record}; keep it in bench/results, and put its row into images/gpu_runs.yaml")
        if not as_json:
            console.result(row)
            return
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


def _check_record(file: Path, cublas: str, quick: bool) -> None:
    """What can be known to be wrong before anything is drawn."""
    from sdrun.catalog.gpu_runs import CUBLAS, EVIDENCE
    from sdrun.errors import UsageProblem

    if quick:
        raise UsageProblem("--record-run records all pictures, and --quick draws one", "Leave one of them out.")
    if not CUBLAS.fullmatch(cublas):
        said = f", not {cublas[:40]!r}" if cublas else ""
        raise UsageProblem(
            f"--record-run needs the version of cuBLAS{said}", "Name it, as its package has it: --cublas 12.4.5.8"
        )
    if not EVIDENCE.fullmatch(f"bench/results/{file.name}") or not file.parent.is_dir():
        raise UsageProblem(
            f"--record-run {file} is no .json file in a folder that is there",
            "Name another file, of letters, digits, dots, dashes and underscores: it goes into bench/results.",
        )


def _recorded(result: Result, file: Path, cublas: str, connection: Connection) -> str:
    """Writes the evidence, whole or not at all; the row for images/gpu_runs.yaml as one line."""
    import json
    import os
    from datetime import UTC, datetime

    from sdrun.build.recording import pruned_library_of
    from sdrun.errors import UsageProblem
    from sdrun.launch.selftest.record import check_recordable, document

    check_recordable(result)
    image = result.chosen.local
    if image is None or not (library := pruned_library_of(image, connection.get())):
        raise UsageProblem(
            f"{result.chosen.plan.target} has no pruned library, so there is nothing to record",
            "Only images whose libraries were pruned wait for a run on a GPU.",
            id="not-recordable",
        )
    evidence = document(result, library, cublas, file, datetime.now(UTC).date())
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)
    return f"  - {json.dumps(evidence['run'])}"


def _run(console: Console, connection: Connection, wishes: Wishes, quick: bool, keep: Path | None) -> Result:
    from sdrun.catalog.selftest import pictures_dir, selftest
    from sdrun.core.selftest import Reading
    from sdrun.launch.selftest import run
    from sdrun.launch.selftest.report import line
    from sdrun.launch.watch import Listener

    suite = selftest()
    probes = [probe for probe in suite.probes if probe.quick or not quick]

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
