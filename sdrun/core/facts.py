"""What NVIDIA's hardware, drivers and toolkits can do, as values. The numbers themselves stand in images/*.yaml; the catalogue
reads them (sdrun.catalog.cuda) and hands one `CudaFacts` to everything that decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.version import CudaVersion, DriverVersion, L4tRelease

NO_CUDA = CudaVersion(0, 0)  # what a driver older than every known branch is taken to speak


@dataclass(frozen=True, slots=True)
class Capability:
    """One compute capability. `last_toolkit` None: the newest toolkit still emits it. `family`: the capabilities that code for
    its `f` target runs on. `becomes`: the name it bears from a toolkit version on (10.1 is 11.0 from 13.0)."""

    capability: ComputeCapability
    architecture: str
    platforms: tuple[str, ...]
    first_toolkit: CudaVersion
    last_toolkit: CudaVersion | None = None
    a_from: CudaVersion | None = None
    f_from: CudaVersion | None = None
    family: tuple[ComputeCapability, ...] = ()
    tegra: bool = False
    last_driver_branch: int | None = None
    becomes: tuple[ComputeCapability, CudaVersion] | None = None
    gpus: tuple[str, ...] = ()

    def emits(self, suffix: str, toolkit: CudaVersion) -> bool:
        """Whether `toolkit` compiles machine code for this capability with that arch suffix (`""`, `"a"`, `"f"`)."""
        first = {"": self.first_toolkit, "a": self.a_from, "f": self.f_from}[suffix]
        return first is not None and first <= toolkit and (self.last_toolkit is None or toolkit <= self.last_toolkit)


@dataclass(frozen=True, slots=True)
class Toolkit:
    """One CUDA release. `driver`: what came with it; `branch`: the driver branch that reports it (None: unknown).
    `glibc_below`: the first glibc its headers clash with, None where none is known. `compress_modes`: values nvcc's
    -compress-mode takes, empty where it has none."""

    version: CudaVersion
    sass: tuple[Arch, ...]
    ptx_isa: str
    max_gcc: int
    max_clang: int
    glibc_below: str | None
    compress_modes: tuple[str, ...]
    compress_default: str
    driver: DriverVersion | None
    branch: int | None
    nvidia_image: str | None
    nvidia_image_os: tuple[str, ...]
    toolchains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Floor:
    """A demand on the driver, told twice: the oldest version that meets it and the CUDA version that driver speaks.
    `driver` None: no driver that does is known. `spoken`: only the CUDA version counts (PTX), not the driver's number."""

    driver: DriverVersion | None
    cuda: CudaVersion
    spoken: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """A driver branch, the CUDA version it speaks for life, and the last month of its support (`2028-06`) where known."""

    branch: int
    cuda: CudaVersion
    end: str | None = None


@dataclass(frozen=True, slots=True)
class JetPack:
    """A Jetson release line. `desktop_code`: Jetson and server code may stand in for each other."""

    l4t: L4tRelease
    name: str
    cuda: CudaVersion
    capabilities: tuple[ComputeCapability, ...]
    desktop_code: bool


@dataclass(frozen=True, slots=True)
class CudaFacts:
    """All facts the resolver takes as its argument. Sequences are sorted, oldest first; `suggest` is best first."""

    capabilities: Mapping[ComputeCapability, Capability]
    toolkits: Mapping[CudaVersion, Toolkit]
    branches: tuple[Branch, ...]
    major_floors: Mapping[int, Floor]
    zstd_floor: Floor
    jetpacks: tuple[JetPack, ...]
    suggest: tuple[CudaVersion, ...]
    jit_first_run_seconds: int
    mixing_from: L4tRelease | None = field(init=False)

    def __post_init__(self) -> None:
        mixing = [row.l4t for row in self.jetpacks if row.desktop_code]
        object.__setattr__(self, "mixing_from", min(mixing, default=None))

    def __hash__(self) -> int:
        """Cheap, so that answers can be remembered by facts; equal facts have equal hashes."""
        return hash((len(self.capabilities), len(self.toolkits), self.branches[-1:], self.zstd_floor))

    def cuda_of(self, driver: DriverVersion) -> CudaVersion:
        """The CUDA version `driver` speaks, by its branch; of an unknown branch, that of the nearest lower known one."""
        spoken = NO_CUDA
        for row in self.branches:
            if row.branch > driver.branch:
                break
            spoken = row.cuda
        return spoken

    def driver_of(self, cuda: CudaVersion) -> DriverVersion | None:
        """The oldest driver known to speak at least `cuda`, or None: the one that came with the toolkit, else its branch."""
        for row in self.branches:
            if row.cuda >= cuda:
                toolkit = self.toolkits.get(row.cuda)
                if toolkit is not None and toolkit.driver is not None:
                    return toolkit.driver
                return DriverVersion((row.branch, 0, 0), f"{row.branch}.0")
        return None

    def is_tegra(self, capability: ComputeCapability) -> bool:
        """Whether code for `capability` is Jetson code."""
        row = self.capabilities.get(capability)
        return row is not None and row.tegra

    def mixes(self, tegra: L4tRelease | None) -> bool:
        """Whether desktop and Jetson code may stand in for each other on a host of that L4T release (None: no Jetson)."""
        return tegra is not None and self.mixing_from is not None and tegra >= self.mixing_from

    def named_by(self, toolkit: CudaVersion, capability: ComputeCapability) -> ComputeCapability:
        """`capability` by the name `toolkit` gives it: 10.1 is 11.0 from toolkit 13.0 on."""
        row = self.capabilities.get(capability)
        if row is not None and row.becomes is not None and toolkit >= row.becomes[1]:
            return row.becomes[0]
        return capability

    def in_family(self, arch: Arch, capability: ComputeCapability) -> bool:
        """Whether `f` code of `arch` runs on `capability`; of a family nobody knows, only its own capability is a member."""
        row = self.capabilities.get(arch.capability)
        return capability == arch.capability or (row is not None and capability in row.family)

    def sass_floor(self, toolkit: CudaVersion) -> Floor:
        """What machine code of `toolkit` demands: its major's floor, or, of a major whose floor is unknown, the toolkit's own
        CUDA version (no relief is known for it)."""
        return self.major_floors.get(toolkit.major) or self.ptx_floor(toolkit)

    def ptx_floor(self, toolkit: CudaVersion) -> Floor:
        """What PTX of `toolkit` demands: a driver that speaks the toolkit's own version."""
        return Floor(self.driver_of(toolkit), toolkit, spoken=True)

    def min_driver(self, toolkit: CudaVersion, *, ptx_only: bool = False, zstd: bool = False) -> DriverVersion | None:
        """The oldest driver that runs such an image, for labels and listings; None where none is known."""
        floors = [self.sass_floor(toolkit)]
        if zstd:
            floors.append(self.zstd_floor)
        if ptx_only:
            floors.append(self.ptx_floor(toolkit))
        known = [floor.driver for floor in floors if floor.driver is not None]
        return max(known) if len(known) == len(floors) else None
