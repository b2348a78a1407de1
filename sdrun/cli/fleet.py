"""`sdrun fleet`: node pools to pinned digests and Kubernetes objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console
from sdrun.cli.fleetsources import Registry, check_signatures, held, locked, published, read

if TYPE_CHECKING:
    from sdrun.core.fleet import FleetPlan
    from sdrun.core.index import Index
    from sdrun.core.node import Node

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Nodes = Annotated[
    str, typer.Option("--nodes", metavar="FILE", help="What kubectl get nodes -o json prints (- for stdin), or an inventory.")
]
IndexFile = Annotated[str | None, typer.Option("--index", metavar="INDEX.json", help="A file with the published images.")]
RegistryName = Annotated[
    str | None, typer.Option("--registry", metavar="REF", help="A registry with an index; default: SDRUN_REGISTRY.")
]
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
    registry: RegistryName = None,
    assume_driver: AssumeDriver = None,
    allow_jit: AllowJit = True,
    tolerate: Tolerate = None,
    as_json: AsJson = False,
) -> None:
    """Show which image each node runs, or why none: nodes in classes that share one image."""
    from sdrun.cli.fleettext import plan_table

    console: Console = ctx.obj
    found = _plan(read(nodes, assume_driver), published(console, index, registry), allow_jit, tolerate or ())
    if as_json:
        console.document(found.to_json())
        return
    console.result(plan_table(found))
    say_notes(console, found)


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
    registry: RegistryName = None,
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
        published(console, index, registry),
        load_cuda_facts(),
        held(output),
        allow_jit=allow_jit,
        tolerate=tolerate or (),
    )
    check_signatures(console, registry, made.lock)
    write_whole(output, made.text)
    say_notes(console, made.plan)
    pinned, refused = sum(len(row.nodes) for row in made.lock.classes), len(made.lock.refused)
    console.note(f"{len(made.lock.classes)} classes with {pinned} nodes; {refused} nodes get no image")
    if as_json:
        console.document({**made.plan.to_json(), "lock": str(output)})
    else:
        console.result(str(output))


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
    tuned: Annotated[bool, typer.Option("--tuned/--no-tuned", help="And for what is faster on them.")] = True,
    engine_args: Annotated[list[str] | None, typer.Argument(metavar="[-- ENGINE ARGS]")] = None,
    as_json: AsJson = False,
) -> None:
    """Write Kubernetes objects, compose files or quadlet units that run a model on the lock's classes; print the folder."""
    from sdrun.cli.fleetload import Asked, load_for
    from sdrun.core.workload import Cluster
    from sdrun.fleet.manifests import chosen, files, write

    console: Console = ctx.obj
    lock = locked(lock_file)
    rows = chosen(lock, classes or ())
    asked = Asked(kind, form, model, prompt, prompts, tuple(engine_args or ()), fit, tuned)
    written_as = asked.checked_format
    load = load_for(console, asked, lock.engine, rows)
    cluster = Cluster(namespace, model_claim, out_claim, replicas, lock.tolerate, tools_image)
    made = files(rows, load, written_as, cluster)
    write(output, made)
    for row in rows:
        console.note(f"{row.name}: {row.image.target} on {len(row.nodes)} nodes; {row.reason}")
    if "label-nodes.sh" in made:
        console.note(f"note: run {output / 'label-nodes.sh'} first: some nodes are told apart by labels of sdrun's own")
    if as_json:
        console.document({"schema": "sdrun.fleet-manifests/v1", "folder": str(output), "files": sorted(made)})
    else:
        console.result(str(output))


@app.command("check")
def check(
    ctx: typer.Context,
    lock_file: Annotated[Path, typer.Argument(metavar="LOCK", help="What sdrun fleet lock wrote.")],
    nodes: Nodes,
    index: IndexFile = None,
    registry: RegistryName = None,
    assume_driver: AssumeDriver = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look at the nodes alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether the pins still fit the nodes and the registry.

    Exit 0: they do; 4: a GPU has no image pinned for it; 5: a driver is too old for what is pinned; 7: an image is gone or
    altered; of several, the highest.
    """
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.cli.fleettext import findings_text
    from sdrun.fleet.checking import check_fleet

    console: Console = ctx.obj
    lock = locked(lock_file)
    live = read(nodes, assume_driver)
    asked = Registry(console, index, registry, offline)
    found = check_fleet(lock, live, load_cuda_facts(), index=asked.index, holds=asked.holds if asked.asked else None)
    found = asked.added_to(found)
    if as_json:
        console.document(found.to_json())
    else:
        console.result(findings_text(found))
    if found.exit_code:
        raise typer.Exit(found.exit_code)
