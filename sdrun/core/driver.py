"""The driver of a host, as far as it decides what runs: rule 4 of resolving, and how far an update may reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sdrun.core.capability import ComputeCapability
from sdrun.core.facts import NO_CUDA, CudaFacts, Floor
from sdrun.core.host import HostFacts
from sdrun.core.version import CudaVersion, DriverVersion


@dataclass(frozen=True, slots=True)
class Driver:
    """A running driver. `by_cuda`: floors are compared by CUDA version, because the driver's own number is unknown or, on
    Jetson, counts differently (L4T 36.4 says 540.4.0 and speaks CUDA 12.6)."""

    version: DriverVersion | None
    cuda: CudaVersion
    by_cuda: bool

    def meets(self, floor: Floor) -> bool:
        """Whether this driver is at or above `floor`."""
        if self.version is None or floor.driver is None or self.compares_cuda(floor):
            return (self.cuda.major, self.cuda.minor) >= (floor.cuda.major, floor.cuda.minor)
        return self.version.numbers >= floor.driver.numbers

    def compares_cuda(self, floor: Floor) -> bool:
        """Whether the CUDA versions decide, not the drivers' numbers."""
        return floor.spoken or self.by_cuda or floor.driver is None

    def __str__(self) -> str:
        return f"CUDA {self.cuda}" if self.version is None or self.by_cuda else str(self.version)


def driver_of(host: HostFacts, facts: CudaFacts) -> Driver | None:
    """The host's driver, or None where none runs. A CUDA version that the probe could not ask for follows from the driver's
    branch; on Jetson from the L4T release, where that says more."""
    version, spoken, release = host.driver_version, host.cuda_driver, host.l4t
    if version is None and spoken is None and release is None:
        return None
    if spoken is None:
        spoken = facts.cuda_of(version) if version is not None else NO_CUDA
        if release is not None:
            spoken = max([spoken, *(row.cuda for row in facts.jetpacks if row.l4t <= release)])
    return Driver(version, spoken, by_cuda=version is None or release is not None)


def combined(floors: Iterable[Floor]) -> Floor:
    """The one floor that meets all of `floors` (at least one)."""
    floors = tuple(floors)
    known = [floor.driver for floor in floors if floor.driver is not None]
    return Floor(
        max(known) if len(known) == len(floors) else None,
        max(floor.cuda for floor in floors),
    )


def jetpack_for(floor: Floor, capability: ComputeCapability, facts: CudaFacts) -> str | None:
    """The oldest JetPack for `capability` whose driver meets `floor`: `JetPack 7.2 (L4T 39)`."""
    for row in facts.jetpacks:
        if capability in row.capabilities and row.cuda >= floor.cuda:
            return f"JetPack {row.name} (L4T {row.l4t})"
    return None


def reachable(floor: Floor, capability: ComputeCapability, host: HostFacts, facts: CudaFacts) -> bool:
    """Whether a driver that meets `floor` exists for such a GPU: Maxwell, Pascal and Volta end with branch 580, a Jetson with
    its last JetPack. Of a part whose end is not announced, a driver that is not yet known may come."""
    row = facts.capabilities.get(capability)
    if host.tegra is not None and any(capability in jetpack.capabilities for jetpack in facts.jetpacks):
        return jetpack_for(floor, capability, facts) is not None
    if row is None or row.last_driver_branch is None:
        return True
    return floor.driver is not None and floor.driver.branch <= row.last_driver_branch
