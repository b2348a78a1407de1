"""Recorded runs on GPUs: what stands for a pruned library where reading it back cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.target import Target, TargetId
from sdrun.core.version import DriverVersion


@dataclass(frozen=True, slots=True)
class GpuRun:
    """One run of the self-test through an image of `target` on a GPU. `library`: sha256 (64 hex digits) of the pruned library
    in it; `cublas`: the version it was made of; `device` with `capability` and `driver`: where it ran; `selftest`: what came
    of it, in one line; `evidence`: the recorded result, a path in the repository."""

    target: TargetId
    platform: str
    engine: str
    library: str
    cublas: str
    device: str
    capability: ComputeCapability
    driver: DriverVersion
    date: str
    selftest: str
    evidence: str


def awaited(target: Target, runs: Iterable[GpuRun], library: str | None = None) -> tuple[Arch, ...]:
    """The archs of a pruned target on whose GPUs no run is recorded; empty where nothing was pruned. With `library` only runs
    of these very bytes count: a published image is held to it, since what another library had tells nothing of this one."""
    if not target.pruned:
        return ()
    seen = {
        run.capability
        for run in runs
        if (run.target, run.platform) == (target.id, target.platform) and library in (None, run.library)
    }
    return tuple(arch for arch in target.sass if arch.capability not in seen)
