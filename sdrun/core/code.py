"""Which code of an image a driver would load on a device, and whether the engine would believe the same.

Rules 2, 3, 5 and 6 of resolving. Nothing here depends on the driver's version: an image whose kernels and code disagree stays
wrong whatever is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.facts import CudaFacts, Floor
from sdrun.core.index import Index, IndexImage
from sdrun.core.plan import CODE_PATHS, CodePath, Reason, Rejection


@dataclass(frozen=True, slots=True)
class Match:
    """What `image` offers a device. `path` None: nothing, and `barred` says why. `rank` orders what is offered, best first;
    `floors` are the demands on the driver, each with the reason a driver below it gives. `position`: the image's in its index,
    by which its rows for several devices find together."""

    image: IndexImage
    position: int
    path: CodePath | None
    arch: Arch | None
    rank: tuple[int, ...]
    barred: Rejection | None
    floors: tuple[tuple[Reason, Floor], ...]

    @property
    def order(self) -> tuple[object, ...]:
        """The order of preference: rank, then target id, then whatever else tells two rows apart."""
        image = self.image
        floor = (image.fatbin_compression or "", image.size_bytes or 0, image.platform)
        toolkit = (image.toolkit.major, image.toolkit.minor) if image.toolkit else ()
        return self.rank, image.target, image.image, image.tag or "", toolkit, image.sass, image.ptx, *floor


def archs_text(image: IndexImage) -> str:
    """`sm_80, sm_86, PTX 75`: what an image holds, in at most three words and a count."""
    texts = [f"sm_{arch}" for arch in image.sass] + [f"PTX {arch}" for arch in image.ptx] or ["no CUDA code"]
    return ", ".join(texts if len(texts) <= 3 else [*texts[:2], f"+{len(texts) - 2}"])


def loadable_sass(archs: Iterable[Arch], capability: ComputeCapability, *, mixes: bool, facts: CudaFacts) -> Arch | None:
    """The machine code the driver takes: of what fits, the highest.

    Plain code fits the same major from its own minor on (NVIDIA's Blackwell compatibility guide), `a` code its own capability,
    `f` code its family from its own minor on. `mixes`: Jetson and desktop code may stand in for each other.
    """
    best: Arch | None = None
    for arch in archs:
        if arch.number > capability.number or (best is not None and arch.number <= best.number):
            continue
        if _fits(arch, capability, facts) and (
            mixes or arch.number == capability.number or facts.is_tegra(arch.capability) == facts.is_tegra(capability)
        ):
            best = arch
    return best


def loadable_archs(archs: Iterable[Arch], capability: ComputeCapability, facts: CudaFacts) -> tuple[Arch, ...]:
    """Every arch whose machine code such a GPU takes, sorted: what must stay in a library that is pruned for it."""
    return tuple(sorted(one for one in archs if loadable_sass((one,), capability, mixes=False, facts=facts) is not None))


def _fits(arch: Arch, capability: ComputeCapability, facts: CudaFacts) -> bool:
    if arch.suffix == "":
        return arch.capability.major == capability.major
    if arch.suffix == "a":
        return arch.number == capability.number
    return facts.in_family(arch, capability)


def loadable_ptx(archs: Iterable[Arch], capability: ComputeCapability, facts: CudaFacts) -> Arch | None:
    """The PTX a driver would JIT-compile: the highest not above the device that is no `a` code, nor `f` code of a family the
    device is not in."""
    return max(
        (
            arch
            for arch in archs
            if arch.number <= capability.number
            and (arch.suffix == "" or (arch.suffix == "f" and facts.in_family(arch, capability)))
        ),
        key=lambda arch: arch.number,
        default=None,
    )


def match(image: IndexImage, device: ComputeCapability, *, mixes: bool, facts: CudaFacts, position: int = 0) -> Match:
    """What `image` offers `device`, platform, policy and driver aside."""
    if image.toolkit is None:
        return Match(image, position, "cpu", None, _rank("cpu", None, image), None, ())
    capability = facts.named_by(image.toolkit, device)
    sass = loadable_sass(image.sass, capability, mixes=mixes, facts=facts)
    ptx = None if sass is not None else loadable_ptx(image.ptx, capability, facts)
    arch = sass or ptx
    if arch is None:
        return _no_match(image, position, "no-code-for-capability", f"nothing for {device}: {archs_text(image)}")
    # ggml asks for the highest arch it was compiled for that is not above the device (ggml_cuda_highest_compiled_arch), and
    # asks it by number: measured on an H100, where PTX 7.5 ran under an engine that believed 8.6 and aborted.
    believed = max(other.number for other in (*image.sass, *image.ptx) if other.number <= capability.number)
    if believed != arch.number:
        loaded = f"sm_{arch}" if sass else f"PTX {arch}"
        return _no_match(image, position, "arch-mismatch", f"would load {loaded}, engine expects {believed}")
    path: CodePath = "ptx-jit" if sass is None else "sass-exact" if arch.number == capability.number else "sass-compatible"
    floors: list[tuple[Reason, Floor]] = [("driver-too-old", facts.sass_floor(image.toolkit))]
    if path == "ptx-jit":
        floors.append(("ptx-newer-than-driver", facts.ptx_floor(image.toolkit)))
    if image.fatbin_compression == "zstd":
        floors.append(("fatbin-compression-newer-than-driver", facts.zstd_floor))
    return Match(image, position, path, arch, _rank(path, arch, image), None, tuple(floors))


def _rank(path: CodePath, arch: Arch | None, image: IndexImage) -> tuple[int, ...]:
    """Path, then the highest arch, then the newest toolkit, then the fewest archs."""
    toolkit = image.toolkit
    return (
        CODE_PATHS.index(path),
        -(arch.number if arch else 0),
        -(toolkit.major if toolkit else 0),
        -(toolkit.minor if toolkit else 0),
        len(image.sass) + len(image.ptx),
    )


def _no_match(image: IndexImage, position: int, reason: Reason, detail: str) -> Match:
    return Match(image, position, None, None, (len(CODE_PATHS),), Rejection(image.target, reason, detail), ())


@lru_cache(maxsize=512)
def matches(index: Index, platform: str, device: ComputeCapability, mixes: bool, facts: CudaFacts) -> tuple[Match, ...]:
    """What every image of `index` offers such a device, best first. Remembered: hosts are many and kinds of GPU are few."""
    rows = []
    for position, image in enumerate(index.images):
        if image.platform != platform:
            detail = f"built for {image.platform}, not {platform}"
            rows.append(_no_match(image, position, "platform-mismatch", detail))
        else:
            rows.append(match(image, device, mixes=mixes, facts=facts, position=position))
    return tuple(sorted(rows, key=lambda row: row.order))
