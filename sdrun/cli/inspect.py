"""`sdrun inspect`: which GPUs a binary or an image was really built for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sdrun.core.capability import ComputeCapability
    from sdrun.core.facts import CudaFacts
    from sdrun.fatbin.carried import FileCode
    from sdrun.fatbin.report import Inspection
    from sdrun.fatbin.verdict import Reach
    from sdrun.runtime.protocol import ContainerRuntime

MANY, EXAMPLES = 3, 3  # how many capabilities are told with names of GPUs, and how many names each
COLUMNS = ("FILE", "SASS", "PTX", "ENTRIES", "COMPRESSION", "ENGINE BUILT FOR")


def command(
    ctx: typer.Context,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="FILE-or-IMAGE",
            help="An ELF file, a saved image (tar), a local image, or one of a registry (HOST/NAME:TAG).",
        ),
    ],
    device: Annotated[
        str, typer.Option("--for", metavar="CC", help='Answer for one compute capability, such as "8.9"; exit 4 for no.')
    ] = "",
    before: Annotated[
        Path | None,
        typer.Option("--before", metavar="ORIGINAL", help="With --for: is all code for it still there that ORIGINAL has?"),
    ] = None,
    platform: Annotated[
        str, typer.Option("--platform", help='Of a registry\'s list of images the one for it, such as "linux/arm64".')
    ] = "",
    remote: Annotated[bool, typer.Option("--remote", help="Ask the registry, also where the image is here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print schema sdrun.inspect/v1.")] = False,
) -> None:
    """List the GPU code a file or image carries and the GPUs it runs on."""
    from sdrun.build.inspecting import inspect
    from sdrun.catalog.cuda import load_cuda_facts
    from sdrun.fatbin.verdict import reach
    from sdrun.runtime import connect

    console: Console = ctx.obj
    capability = _capability(device) if device else None
    facts = load_cuda_facts()
    if before is not None:
        _compare(console, Path(subject), before, capability, as_json, facts)
        return
    asked = _platform(platform)

    def from_registry(reference: str) -> Inspection:
        from sdrun.build.remote import inspect_remote

        return inspect_remote(reference, facts, asked or _own_platform(), console.note, asked=bool(asked))

    def from_runtime() -> ContainerRuntime:
        return connect(console.settings().runtime)

    inspection = from_registry(subject) if remote else inspect(subject, facts, from_runtime, from_registry)
    for fault in inspection.faults:
        console.note(f"damaged, may hold more than is listed: {fault}")
    answer = _answer(inspection, capability, facts) if capability else ""
    if as_json:
        console.document(inspection.to_json())
    elif answer:
        console.result(answer)
    else:
        console.result(describe(inspection, reach(inspection, facts) if inspection.sass or inspection.ptx else None, facts))


def _compare(
    console: Console, file: Path, before: Path, capability: ComputeCapability | None, as_json: bool, facts: CudaFacts
) -> None:
    """Holds a pruned file against its original; raises VerificationFailed (`code-missing`) where it lost what it needs."""
    from sdrun.build.inspecting import compare_files, inspect_file
    from sdrun.errors import UsageProblem, VerificationFailed
    from sdrun.fatbin.pruned import counted, differences

    if capability is None:
        raise UsageProblem("--before compares code for one capability", 'Name it: --for "8.9"')
    found = compare_files(file, before, capability, facts)
    if not found.complete:
        raise VerificationFailed(
            "; ".join(differences(str(file), found)),
            "Prune it for every arch that such a GPU can load, letters and lower minors of its major among them.",
            id="code-missing",
        )
    if as_json:
        console.document({**inspect_file(file, facts).to_json(), "compared": found.to_json()})
        return
    stored = f", and {sum(found.stored_kept.values())} pieces outside fatbin sections" if found.stored_kept else ""
    console.result(
        f"{file} holds all that a GPU of compute capability {capability} could load of {before}: "
        f"{counted(found.kept)}{stored}; {found.others} entries for other GPUs are gone."
    )


def _capability(text: str) -> ComputeCapability:
    from sdrun.core.capability import ComputeCapability
    from sdrun.errors import UsageProblem

    try:
        return ComputeCapability.parse(text)
    except ValueError as fault:
        raise UsageProblem(f"--for {fault}", 'Give it as major.minor: --for "8.9"') from None


def _platform(text: str) -> str:
    from sdrun.core.platform import parse_platform
    from sdrun.errors import UsageProblem

    try:
        return parse_platform(text) if text else ""
    except ValueError as fault:
        raise UsageProblem(f"--platform {fault}", "Give it as os/architecture: --platform linux/arm64") from None


def _own_platform() -> str:
    import os

    from sdrun.probe.machine import platform_of

    return platform_of(os.uname().machine)


def _answer(inspection: Inspection, capability: ComputeCapability, facts: CudaFacts) -> str:
    """One sentence; raises NoImage with it, and with what to build instead, where the answer is no."""
    from sdrun.errors import NoImage
    from sdrun.fatbin.verdict import better_target, judge, sentence

    if not inspection.files:
        raise NoImage(f"{inspection.subject} holds no CUDA code at all: nothing of it runs on a GPU.", _remedy(None))
    verdict = judge(inspection, capability, facts)
    if verdict.path is None:
        message = sentence(verdict, inspection, facts)
        raise NoImage(message, _remedy(better_target(capability, facts)), id=verdict.reason)
    return sentence(verdict, inspection, facts)


def _remedy(target: str | None) -> str:
    return f"Use an image built for it: sdrun build {target}" if target else "Use an image that holds code for this GPU."


def describe(inspection: Inspection, reach: Reach | None, facts: CudaFacts) -> str:
    """The table of files, and under it what they mean for GPUs and drivers."""
    if reach is None:
        linkable = sorted({arch for file in inspection.files for arch in file.archs("lto")})
        what = f"link-time code for {_words(linkable)} and no CUDA code that runs" if linkable else "no CUDA code"
        return "\n".join([f"{inspection.subject} holds {what}.", *_stored(inspection)])
    lines = [COLUMNS, *(_cells(file) for file in inspection.files)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(
        [
            *table,
            "",
            f"toolkit         {inspection.toolkit or 'unknown'}",
            f"min driver      {inspection.min_driver or 'unknown'}",
            f"runs natively   {_with_gpus(reach.native, facts)}",
            f"runs by JIT     {_words(reach.jit)}",
            f"does not run    {_words(reach.none)}",
            *_stored(inspection),
        ]
    )


def _stored(inspection: Inspection) -> list[str]:
    """A line for each file with code outside fatbin sections, which counts for nothing else here."""
    return [
        f"own store       {sum(file.stored.values())} cubins for {_words(sorted({arch for _, arch in file.stored}))} in "
        f"{_words(sorted({section for section, _ in file.stored}))} of {file.path}, which loads them itself"
        for file in inspection.files
        if file.stored
    ]


def _cells(file: FileCode) -> tuple[str, ...]:
    engine = "" if file.engine_archs is None else _words(file.engine_archs)
    cells = (file.path, _words(file.sass), _words(file.ptx), str(file.entries), file.compression or "", engine)
    return tuple(cell or "-" for cell in cells)


def _with_gpus(capabilities: tuple[ComputeCapability, ...], facts: CudaFacts) -> str:
    """Compute capabilities, and of a few what is sold under them."""
    if len(capabilities) > MANY:
        return _words(capabilities)
    named = [(one, facts.capabilities[one].gpus[:EXAMPLES]) for one in capabilities]
    return ", ".join(f"{one} ({', '.join(gpus)})" if gpus else str(one) for one, gpus in named) or "-"


def _words(values: Iterable[object]) -> str:
    return " ".join(map(str, values)) or "-"
