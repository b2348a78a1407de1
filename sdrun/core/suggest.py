"""What to build where no published image fits: the target that would serve those devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.driver import Driver, reachable
from sdrun.core.facts import CudaFacts, Floor
from sdrun.core.host import HostFacts
from sdrun.core.policy import Build
from sdrun.core.version import CudaVersion


def builds(
    kinds: Sequence[ComputeCapability], host: HostFacts, driver: Driver | None, facts: CudaFacts
) -> Iterator[tuple[Build, Floor | None]]:
    """Targets that would run on devices of all `kinds`, best first, each with the driver it needs first (None: this one does).

    Machine code for exactly these devices comes first, by a toolkit the driver serves; then the same with a driver that can
    be had; then, for a device that no toolkit here knows, PTX.
    """
    exact = [(toolkit, archs) for toolkit in _toolkits(facts) if (archs := _sass(kinds, toolkit, facts))]
    for toolkit, archs in exact:
        if driver is not None and driver.meets(facts.sass_floor(toolkit)):
            yield Build(_target(toolkit, archs), host.platform, toolkit, sass=archs), None
    for toolkit, archs in exact:
        floor = facts.sass_floor(toolkit)
        if all(reachable(floor, kind, host, facts) for kind in kinds):
            yield Build(_target(toolkit, archs), host.platform, toolkit, sass=archs), floor
    if any(kind not in facts.capabilities for kind in kinds):
        yield from _ptx_builds(kinds, host, driver, facts)


def _toolkits(facts: CudaFacts) -> tuple[CudaVersion, ...]:
    return tuple(dict.fromkeys((*facts.suggest, *sorted(facts.toolkits))))


def _sass(kinds: Sequence[ComputeCapability], toolkit: CudaVersion, facts: CudaFacts) -> tuple[Arch, ...]:
    """An exact arch for each kind, or none if the toolkit lacks one."""
    named = {facts.named_by(toolkit, kind) for kind in kinds}
    rows = [facts.capabilities.get(kind) for kind in named]
    whole = all(row is not None and row.emits("", toolkit) for row in rows)
    return tuple(sorted(Arch(kind.number) for kind in named)) if whole else ()


def _ptx_builds(
    kinds: Sequence[ComputeCapability], host: HostFacts, driver: Driver | None, facts: CudaFacts
) -> Iterator[tuple[Build, Floor | None]]:
    lowest = min(kinds).number
    for toolkit in _toolkits(facts):
        emitted = [arch for arch in facts.toolkits[toolkit].sass if arch.suffix == "" and arch.capability in facts.capabilities]
        below = [arch for arch in emitted if arch.number <= lowest]
        if below and driver is not None and driver.meets(facts.ptx_floor(toolkit)):
            yield Build(f"{toolkit.short}-multi", host.platform, toolkit, ptx=(max(below),)), None


def _target(toolkit: CudaVersion, archs: tuple[Arch, ...]) -> str:
    return f"{toolkit.short}-sm{archs[0]}" if len(archs) == 1 else f"{toolkit.short}-multi"
