"""`sdrun resolve`: plan or refusal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy
from sdrun.errors import from_refusal

if TYPE_CHECKING:
    from sdrun.core.explain import Explanation


def command(
    ctx: typer.Context,
    host: Annotated[
        str | None, typer.Option("--host", metavar="FACTS.json", help="Host facts (- for stdin) instead of this host's.")
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index", metavar="INDEX.json", help="Published images (- for stdin); else the registry's or the local ones."
        ),
    ] = None,
    gpu: Annotated[str, typer.Option("--gpu", metavar="SEL", help="auto, all, none, an index, a UUID or a MIG UUID.")] = "auto",
    image: Annotated[
        str | None, typer.Option("--image", metavar="REF", help="Only this image (reference, tag or target); checks stay.")
    ] = None,
    allow_cpu: Annotated[bool, typer.Option("--allow-cpu", help="Take the CPU image where no GPU image runs.")] = False,
    allow_jit: Annotated[
        bool, typer.Option("--allow-jit/--no-jit", help="Let the driver compile PTX on the first run.")
    ] = True,
    explain: Annotated[bool, typer.Option("--explain", help="Every candidate, taken or not, and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan or refusal as JSON (schema sdrun.plan/v1).")] = False,
) -> None:
    """Say which image this host runs, or what to change.

    Pure: the same host facts and index give the same answer, and with --host and --index nothing else is looked at. The
    image's reference is printed on stdout; a refusal ends with its exit code and the one thing to change.
    """
    console: Console = ctx.obj
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.catalog.runtimes import readable_here

    facts = _host(console, host)
    published = readable_here(_index(console, index), facts.runtime)
    policy = _policy(gpu, image, allow_cpu, allow_jit, own_host=host is None)
    told: Explanation | None = None
    if explain:
        from sdrun.core.explain import explain as explained

        told = explained(facts, published, policy, load_cuda_facts())
        answer = told.answer
    else:
        from sdrun.core.resolve import resolve

        answer = resolve(facts, published, policy, load_cuda_facts())
    if as_json:
        console.document({**answer.to_json(), **(_told_json(told) if told else {})})
    elif told:
        from sdrun.cli.explaining import print_table

        print_table(told)
    _say(console, answer, as_json, bare=not as_json and told is None)


def _host(console: Console, file: str | None) -> HostFacts:
    if file is not None:
        from sdrun.probe.hostfile import read_host_facts

        return read_host_facts(file)
    from sdrun.cli.detect import look

    return look(console)


def _index(console: Console, file: str | None) -> Index:
    if named := file or console.settings().index:
        from sdrun.catalog.indexfile import read_index

        return read_index(named)
    from sdrun.launch.sources import sources_of

    if (sources := sources_of(console.settings())).references:
        return sources.index(console.note)
    from sdrun.launch.localimages import local_index
    from sdrun.runtime import connect

    index, notes = local_index(connect(console.settings().runtime))
    for note in notes:
        console.note(f"note: {note}")
    if not index.images:
        console.note("note: the local runtime holds no image of sdrun; name an index with --index, or build: sdrun build cpu")
    return index


def _policy(gpu: str, image: str | None, allow_cpu: bool, allow_jit: bool, *, own_host: bool) -> Policy:
    """CUDA_VISIBLE_DEVICES speaks of this host, so it is heeded only where the facts are this host's."""
    if not own_host:
        return Policy(gpu=gpu, allow_cpu=allow_cpu, allow_jit=allow_jit, image=image)
    from sdrun.probe.visible import device_order, visible_devices

    visible, order = visible_devices(os.environ), device_order(os.environ)
    return Policy(gpu=gpu, allow_cpu=allow_cpu, allow_jit=allow_jit, image=image, visible=visible, device_order=order)


def _say(console: Console, answer: Plan | Refusal, as_json: bool, *, bare: bool) -> None:
    if isinstance(answer, Plan):
        gpus = answer.handover.gpus
        named = [f"{device.name} ({device.uuid})" for device in gpus[:2]]
        named += [f"{len(gpus) - 2} more"] if len(gpus) > 2 else []
        console.note(f"{answer.target} by {answer.code_path} on {', '.join(named) or 'the CPU'}")
        for note in answer.handover.notes:
            console.note(f"note: {note}")
        if bare:
            console.result(answer.image)
        return
    error = from_refusal(answer.id, answer.exit_code, answer.message, answer.remedy)
    Console(quiet=console.quiet, verbose=console.verbose).error(error)  # as JSON it has been printed: the refusal itself
    raise typer.Exit(answer.exit_code)


def _told_json(told: Explanation) -> dict[str, object]:
    rows = [{"target": r.target, "verdict": r.verdict, "code_path": r.code_path, "why": r.why} for r in told.candidates]
    return {"candidates": rows, "gain": told.gain}
