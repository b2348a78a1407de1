"""`sdrun detect`: host facts."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sdrun.cli.console import Console
from sdrun.core.host import HostFacts, RuntimeFacts, to_json
from sdrun.probe.overrides import current_host


def command(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Host facts as JSON (schema sdrun.host/v1).")] = False,
) -> None:
    """Print what was found out about this host's GPUs, driver and container runtime.

    Exit 0 whenever it could look, also when there is no GPU. SDRUN_HOST_FACTS, SDRUN_COMPUTE_CAPABILITY and
    SDRUN_DRIVER_VERSION override what is found; that is said aloud.
    """
    console: Console = ctx.obj
    host = look(console)
    if as_json:
        console.document(to_json(host))
    else:
        console.result("\n".join(describe(host)))


def look(console: Console) -> HostFacts:
    """This host's facts, overrides applied; what was noticed is said on stderr. The container runtime is asked while the
    driver's own probe works."""
    reasons: list[str] = []

    def runtime() -> RuntimeFacts | None:
        from sdrun.errors import RuntimeUnavailable
        from sdrun.runtime import connect

        try:
            return connect(console.settings().runtime).facts()
        except RuntimeUnavailable as failure:
            reasons.append(f"No container runtime: {failure.message}. {failure.remedy}")
            return None

    host = current_host(os.environ, runtime)
    for note in (*host.notes, *reasons):
        console.note(f"note: {note}")
    return host


def describe(host: HostFacts) -> list[str]:
    """The facts for people, a line each."""
    lines = [f"platform   {host.platform}{', WSL2' if host.wsl else ''}{f', L4T {host.tegra}' if host.tegra else ''}"]
    speaks = f", CUDA {host.cuda_driver}" if host.cuda_driver else ""
    lines.append(f"driver     {host.driver_version or 'none'}{speaks}")
    for gpu in host.gpus:
        lines.append(f"GPU {gpu.index}      {gpu.name}, CC {gpu.compute_capability}, {gpu.memory_mib} MiB, {gpu.uuid}")
        lines += [f"  MIG      {piece.profile}, {piece.memory_mib} MiB, {piece.uuid}" for piece in gpu.mig]
    if not host.gpus:
        lines.append("GPU        none")
    runtime = host.runtime
    if runtime is None:
        lines.append("runtime    none")
    else:
        ways = [f"{len(runtime.cdi_devices)} CDI devices"] if runtime.cdi_devices else []
        ways += ["NVIDIA's runtime"] if runtime.nvidia_runtime else []
        lines.append(f"runtime    {runtime.name} {runtime.version}, GPUs by: {' and '.join(ways) or 'no way found'}")
    return [*lines, f"found by   {host.probe}"]
