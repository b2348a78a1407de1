"""`sdrun build`: targets become proven images in the local container runtime."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdrun.catalog.engines import engines
from sdrun.cli.console import Console
from sdrun.cli.exercising import exercise_for
from sdrun.cli.selection import selected
from sdrun.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sdrun.build.buildlog import BuildStep
    from sdrun.build.image import BuiltImage
    from sdrun.core.target import Base
    from sdrun.runtime.protocol import ContainerRuntime

LINE_EVERY_PERCENT = 10
REDRAW_SECONDS = 0.1
WIDTH = 79


def command(
    ctx: typer.Context,
    selector: Annotated[str, typer.Argument(help="A glob over target ids; see sdrun targets.")],
    force: Annotated[bool, typer.Option("--force", help="Build even where the same recipe was built before.")] = False,
    engine_source: Annotated[
        Path | None,
        typer.Option("--engine-source", help="Build this folder of stable-diffusion.cpp; its images are tagged local-*."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Files compiled at a time; default: all cores.")
    ] = None,
    toolchain: Annotated[
        str | None, typer.Option("--toolchain", help="Take the toolkit from debian, nvidia or pypi; default: the row's first.")
    ] = None,
    toolkit: Annotated[
        Path | None, typer.Option("--toolkit", help="Take the toolkit from this folder of this machine (toolchain local).")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Build all of the engine's GPU code, also what no model needs; tagged *-full-*.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--pruned", help="Take other archs' code out of cuBLAS, to run and record it; tagged *-pruned-*.")
    ] = False,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Write what each file took to compile to this JSON file; show the slowest.")
    ] = None,
    compiler_cache: Annotated[
        Path | None,
        typer.Option("--compiler-cache", metavar="FOLDER", help="Carry the compiler's cache from and to this folder (CI)."),
    ] = None,
    base_only: Annotated[
        bool, typer.Option("--base-only", help="Bring the base image here (local, pulled or bootstrapped) and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was built as JSON.")] = False,
) -> None:
    """Build engine images and prove what they hold; print their references."""
    from sdrun.build.choice import on_platform, with_local_toolkit, with_toolchain
    from sdrun.build.image import build
    from sdrun.build.local import in_full, pruned, with_local_source
    from sdrun.probe.machine import platform_of
    from sdrun.runtime import connect

    console: Console = ctx.obj
    catalogue, rows = selected(selector)
    rows = on_platform(rows, platform_of(os.uname().machine))
    local = None
    if toolkit is not None:
        rows, local = with_local_toolkit(rows, catalogue, toolkit)
    else:
        rows = with_toolchain(rows, catalogue, toolchain)
    plans = [(row, engines()[row.engine]) for row in rows]
    if engine_source is not None:
        plans = [with_local_source(target, engine, engine_source) for target, engine in plans]
    elif full:
        plans = [in_full(target, engine) for target, engine in plans]
    if prune:
        plans = [pruned(target, engine) for target, engine in plans]
    runtime = connect(console.settings().runtime)
    if base_only:
        bring_bases({row.base: catalogue.bases[row.base] for row in rows}, runtime, console)
        return
    built = []
    for target, engine in plans:
        display = Display(console)
        base = catalogue.bases[target.base]
        try:
            image = build(
                target,
                engine,
                base,
                runtime,
                say=console.note,
                on_step=display.show,
                force=force,
                jobs=jobs,
                toolkit=local,
                compiler_cache=compiler_cache,
                exercise=exercise_for(console),
            )
        finally:
            display.end()
        console.note(summary(image))
        built.append(image)
    if profile is not None:
        write_profiles(built, profile, console)
    if as_json:
        console.document({"schema": "sdrun.build/v1", "images": [to_json(image) for image in built]})
    else:
        console.result("\n".join(image.reference for image in built))


def bring_bases(bases: Mapping[str, Base], runtime: ContainerRuntime, console: Console) -> None:
    """Makes each base image local and prints its reference."""
    from sdrun.build.base import ensure_base
    from sdrun.build.client import find_client

    client = find_client(runtime.name)
    for base in bases.values():
        console.result(ensure_base(base, runtime, client, console.note).reference)


def write_profiles(built: Sequence[BuiltImage], file: Path, console: Console) -> None:
    """What each of the images took to compile, to `file` (schema sdrun.profile/v1), and the slowest files to stderr."""
    import json

    from sdrun.build.profile import profile_of, slowest, to_json

    found = {image.reference: profile_of(image.log) for image in built}
    for reference, profile in found.items():
        console.note(f"{reference}: nothing was compiled (--force does)" if profile is None else slowest(reference, profile))
    document = {name: to_json(profile) for name, profile in found.items() if profile is not None}
    try:
        file.write_text(json.dumps({"schema": "sdrun.profile/v1", "images": document}, indent=1) + "\n", encoding="utf-8")
    except OSError as fault:
        raise UsageProblem(
            f"{file} cannot be written: {fault.strerror}", "Name another file with --profile.", id="output-not-writable"
        ) from None


def summary(image: BuiltImage) -> str:
    """One line about a finished image. Sizes in MB of 10^6 bytes, as docker shows them."""
    how = "unchanged" if image.cached else "built and proven"
    sizes = (
        f"about {image.proof.transfer_bytes / 1e6:.0f} MB packed with gzip, {image.proof.unpacked_bytes / 1e6:.1f} MB unpacked"
    )
    archs = ", ".join(str(arch.capability) for arch in image.awaits)
    waits = (
        f"; its libraries were pruned, so it counts as proven only after a recorded run on a GPU of {archs}" if archs else ""
    )
    drawn = f"; selftest: {image.proof.selftest}" if image.proof.selftest else ""
    return f"{image.reference}: {how} in {image.seconds:.1f} s; {sizes}{waits}{drawn}"


def to_json(image: BuiltImage) -> dict[str, object]:
    """One element of schema sdrun.build/v1: the index row and what else was read back."""
    from sdrun.core.index import image_to_json

    return {
        **image_to_json(image.row),
        "reference": image.reference,
        "recipe": image.recipe,
        "cached": image.cached,
        "seconds": round(image.seconds, 2),
        "unpacked_bytes": image.proof.unpacked_bytes,
        "libraries": list(image.proof.libraries),
        "code": list(image.proof.code),
        "engine_version": image.proof.version,
        "selftest": image.proof.selftest,
        "pruned_library": image.proof.pruned_library or None,
        "awaits_run_on": [str(arch) for arch in image.awaits],
        "log": str(image.log) if image.log else None,
    }


@dataclass(slots=True)
class Display:
    """The build's progress on stderr: one live line on a terminal, else a line for each step and each tenth of the compile."""

    console: Console
    _last: tuple[str, int, int] = ("", 0, 0)
    _drawn: float = 0.0
    _open: bool = False
    _live: bool = field(default_factory=lambda: sys.stderr.isatty())

    def show(self, step: BuildStep) -> None:
        """Takes the newest state."""
        if self.console.quiet:
            return
        text = describe(step)
        if self._live:
            now = time.monotonic()
            if now - self._drawn >= REDRAW_SECONDS:
                print(f"\r\x1b[K{text[:WIDTH]}", end="", file=sys.stderr, flush=True)
                self._drawn, self._open = now, True
            return
        mark = (step.stage, step.step, (step.percent or 0) // LINE_EVERY_PERCENT)
        if mark != self._last:
            self._last = mark
            print(text[:WIDTH], file=sys.stderr, flush=True)

    def end(self) -> None:
        """Wipes the live line, so that what follows begins on a clean one."""
        if self._open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._open = False


def describe(step: BuildStep) -> str:
    """`engine 2/3  41%  Building CXX object ...` with the line's own first words."""
    where = " ".join(part for part in (step.stage, f"{step.step}/{step.steps}" if step.steps else "") if part)
    share = f"{step.percent:3d}%" if step.percent is not None else ""
    line = " ".join("".join(c if c.isprintable() else " " for c in step.line).split())
    return "  ".join(part for part in (where or "build", share, line) if part)
