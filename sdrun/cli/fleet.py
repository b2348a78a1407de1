"""`sdrun fleet`: node pools to pinned digests and Kubernetes objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from sdrun.core.fleet import FleetPlan
    from sdrun.core.index import Index
    from sdrun.core.node import Node

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Nodes = Annotated[
    str, typer.Option("--nodes", metavar="FILE", help="What kubectl get nodes -o json prints (- for stdin), or an inventory.")
]
IndexFile = Annotated[str | None, typer.Option("--index", metavar="INDEX.json", help="The published images.")]
AssumeDriver = Annotated[
    str | None, typer.Option("--assume-driver", metavar="VERSION", help="The driver of nodes that state none.")
]
AllowJit = Annotated[bool, typer.Option("--allow-jit/--no-jit", help="Let the driver compile PTX on the first run.")]
Tolerate = Annotated[list[str] | None, typer.Option("--tolerate", metavar="KEY", help="A taint that pods tolerate.")]


@app.callback()
def fleet_of() -> None:
    """Node pools to pinned images and Kubernetes objects."""


@app.command("plan")
def plan(
    ctx: typer.Context,
    nodes: Nodes,
    index: IndexFile = None,
    assume_driver: AssumeDriver = None,
    allow_jit: AllowJit = True,
    tolerate: Tolerate = None,
    as_json: AsJson = False,
) -> None:
    """Show which image each node runs, or why none: nodes in classes that share one image."""
    from sdrun.cli.fleettext import plan_table

    console: Console = ctx.obj
    found = _plan(read(nodes, assume_driver), published(console, index), allow_jit, tolerate or ())
    if as_json:
        console.document(found.to_json())
        return
    console.result(plan_table(found))
    say_notes(console, found)


def read(nodes: str, assumed: str | None) -> tuple[Node, ...]:
    """The nodes in the file; raises UsageProblem for a driver version that is none."""
    from sdrun.core.version import DriverVersion
    from sdrun.errors import UsageProblem
    from sdrun.fleet.reading import read_nodes

    try:
        driver = None if assumed is None else DriverVersion.parse(assumed)
    except ValueError as fault:
        raise UsageProblem(f"--assume-driver {fault}", "Give the version that nvidia-smi shows on such a node.") from None
    return read_nodes(nodes, driver)


def published(console: Console, index: str | None) -> Index:
    """The images that may be pinned. Raises UsageProblem where nothing names any."""
    from sdrun.catalog.indexfile import read_index
    from sdrun.errors import UsageProblem

    named = index or console.settings().index
    if named is None:
        raise UsageProblem("no index of published images is named", "Name one with --index or SDRUN_INDEX.", id="bad-option")
    return read_index(named)


def _plan(nodes: tuple[Node, ...], index: Index, allow_jit: bool, tolerate: list[str] | tuple[str, ...]) -> FleetPlan:
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.fleet.planning import plan_fleet

    return plan_fleet(nodes, index, load_cuda_facts(), allow_jit=allow_jit, tolerate=tolerate)


def say_notes(console: Console, found: FleetPlan) -> None:
    """What should be known of nodes, on stderr."""
    from sdrun.cli.fleettext import named

    for note, names in found.notes.items():
        console.note(f"note: {named(names)}: {note}")


@app.command("lock")
def lock(
    ctx: typer.Context,
    nodes: Nodes,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="LOCK", help="The lock file; one that is there is renewed.")
    ],
    index: IndexFile = None,
    assume_driver: AssumeDriver = None,
    allow_jit: AllowJit = True,
    tolerate: Tolerate = None,
    as_json: AsJson = False,
) -> None:
    """Write the plan down as a lock file, to be reviewed and committed; print its path."""
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.fleet.locking import make_lock, write_whole

    console: Console = ctx.obj
    made = make_lock(
        read(nodes, assume_driver),
        published(console, index),
        load_cuda_facts(),
        _held(output),
        allow_jit=allow_jit,
        tolerate=tolerate or (),
    )
    write_whole(output, made.text)
    say_notes(console, made.plan)
    pinned, refused = sum(len(row.nodes) for row in made.lock.classes), len(made.lock.refused)
    console.note(f"{len(made.lock.classes)} classes with {pinned} nodes; {refused} nodes get no image")
    if as_json:
        console.document({**made.plan.to_json(), "lock": str(output)})
    else:
        console.result(str(output))


def _held(path: Path) -> tuple[Path, str] | None:
    """The lock file that is there, None where there is none."""
    from sdrun.errors import BadConfiguration

    try:
        return path, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as fault:
        why = getattr(fault, "strerror", None) or "is not UTF-8 text"
        raise BadConfiguration(f"{path}: {why}", "Name another file with --output.", id="bad-lock") from None


@app.command("manifests", context_settings={"allow_interspersed_args": True})
def manifests(
    ctx: typer.Context,
    lock_file: Annotated[Path, typer.Argument(metavar="LOCK", help="What sdrun fleet lock wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A folder, made or written anew.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A catalogue name, or role=FILE,role=FILE on the volume.")],
    kind: Annotated[str, typer.Option("--kind", help="server, job or prompts.")] = "server",
    form: Annotated[str, typer.Option("--format", help="kustomize, compose or quadlet.")] = "kustomize",
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Of a job.")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="A prompt a line.")] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", metavar="NAME", help="Only this class. Repeatable.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Where the objects go.")] = None,
    model_claim: Annotated[str, typer.Option("--model-claim", help="The volume claim with the models.")] = "sdrun-models",
    out_claim: Annotated[str | None, typer.Option("--out-claim", help="A volume claim for pictures.")] = None,
    tools_image: Annotated[str | None, typer.Option("--tools-image", metavar="REF@DIGEST", help="A static busybox.")] = None,
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="Servers in each class.")] = 1,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Ask for what the GPUs' memory needs.")] = True,
    engine_args: Annotated[list[str] | None, typer.Argument(metavar="[-- ENGINE ARGS]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write Kubernetes objects, compose files or quadlet units that run a model on the lock's classes; print the folder."""
    from sdrun.catalog.lockfile import read_lock
    from sdrun.cli.fleetload import Asked, load_for
    from sdrun.core.workload import Cluster
    from sdrun.fleet.manifests import chosen, files, write

    console: Console = ctx.obj
    lock = read_lock(lock_file)
    rows = chosen(lock, classes or ())
    asked = Asked(kind, form, model, prompt, prompts, tuple(engine_args or ()), fit)
    load = load_for(console, asked, lock.engine, rows)
    cluster = Cluster(namespace, model_claim, out_claim, replicas, lock.tolerate, tools_image)
    made = files(rows, load, asked.checked_format, cluster)
    write(output, made)
    for row in rows:
        console.note(f"{row.name}: {row.image.target} on {len(row.nodes)} nodes; {row.reason}")
    if "label-nodes.sh" in made:
        console.note(f"note: run {output / 'label-nodes.sh'} first: some nodes are told apart by labels of sdrun's own")
    if as_json:
        console.document({"schema": "sdrun.fleet-manifests/v1", "folder": str(output), "files": sorted(made)})
    else:
        console.result(str(output))
