"""What can be built: engine x toolkit x archs x platform, under a short id that people and tags use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from sdrun.core.capability import Arch
from sdrun.core.index import Compression
from sdrun.core.version import CudaVersion, DriverVersion

_ID = re.compile(r"cu([0-9]{2})([0-9]{1,2})-(?:sm([0-9]{2,3}[af]?)|multi)")
_BRACES = re.compile(r"\{([^{}]*)\}")
PRUNED_LIBRARY = "libsdrun-cublas.so"
PRUNED_ENGINE = "-pruned"  # behind the engine's name where `sdrun build --pruned` made the image: the engine is the same
MAX_ALTERNATIVES = 1000  # a selector is typed by hand; nested braces multiply, and nobody means more than this


@dataclass(frozen=True, slots=True)
class TargetId:
    """`cpu`, `cu124-sm89` (one arch) or `cu124-multi` (several). `toolkit` is None for `cpu` alone; `arch` None for `multi`.

    A toolkit's major has had two digits since 10.0, which is what makes `cu1210` readable as 12.10.
    """

    toolkit: CudaVersion | None = None
    arch: Arch | None = None

    @classmethod
    def parse(cls, text: str) -> TargetId:
        """The value whose `str` is `text`; raises ValueError for anything else."""
        if text == "cpu":
            return cls()
        match = _ID.fullmatch(text)
        if match is None or match[2] != str(int(match[2])):
            raise ValueError(f'must be a target id such as "cpu", "cu124-sm89" or "cu124-multi", not {text[:40]!r}')
        return cls(CudaVersion(int(match[1]), int(match[2])), Arch.parse(match[3]) if match[3] else None)

    def __str__(self) -> str:
        if self.toolkit is None:
            return "cpu"
        return f"{self.toolkit.short}-{f'sm{self.arch}' if self.arch else 'multi'}"


@dataclass(frozen=True, slots=True)
class Base:
    """What a build starts from and takes its C and C++ libraries from. `image` is pulled where a registry can be reached, else
    `suite` is bootstrapped (None: it can only be pulled); `packages` build the engine; `licence` (SPDX) is that of the
    libraries copied out of it; `glibc` its version; `gcc` the major versions of g++ it offers, oldest first."""

    name: str
    suite: str | None
    image: str
    packages: tuple[str, ...]
    licence: str
    glibc: str
    gcc: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where a toolkit comes from at build time. `kind`: `debian`, `nvidia`, `pypi` or `local`; `base`: the name of its Base;
    `root`: where the toolkit lies in the build stage; `packages` (Debian's names, from the archive's further `sections`) and
    `wheels` (`name==version`) bring it; `gcc`: the host compiler; `driver_stub`: it has a libcuda to link with;
    `static_libraries`: it has cuBLAS as static libraries as well, and nvprune, of which pruned targets are made."""

    kind: str
    toolkit: CudaVersion
    base: str
    root: str
    gcc: int
    packages: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    driver_stub: bool = True
    static_libraries: bool = True


@dataclass(frozen=True, slots=True)
class Variant:
    """One compile of the engine within a target: `sass` and `ptx` are all that its programs hold, and these lie in the folder
    `name` (`sm89`, `ptx90`; empty where the target is one compile)."""

    name: str
    sass: tuple[Arch, ...]
    ptx: tuple[Arch, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """One row of what gets built. `sass` and `ptx` are what the finished binary must hold, sorted; `toolkit`, `toolchains`
    (names, best first), `toolchain` (the one it is built with), `fatbin_compression` and `min_driver` (the oldest driver that
    runs it) are empty for `cpu`; `cpu_level` names the host processor's instructions, such as `x86-64-v3`. `pruned`: code of
    other archs was taken out of the toolkit's libraries. What they lack by that cannot be read from them (measured: cuBLAS 13.0
    without its 9.0a code ends every run on a 9.0), so such a target is proven by a run on a GPU of each arch alone."""

    id: TargetId
    engine: str
    platform: str
    base: str
    cpu_level: str
    sass: tuple[Arch, ...] = ()
    ptx: tuple[Arch, ...] = ()
    toolchains: tuple[str, ...] = ()
    fatbin_compression: Compression | None = None
    min_driver: DriverVersion | None = None
    toolchain: Toolchain | None = None
    pruned: bool = False

    @property
    def name(self) -> str:
        """`cu124-sm89`, or `cu130-sm90-arm64`: unlike the id, one for each platform. For folders, locks and CI jobs."""
        return str(self.id) if self.platform == "linux/amd64" else f"{self.id}-{self.platform.rpartition('/')[2]}"

    def built_with(self, toolchain: Toolchain) -> Target:
        """The same target with its toolkit from elsewhere."""
        return replace(self, toolchain=toolchain, base=toolchain.base)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What is compiled: one program for one arch, and in a `multi` target a program for each arch. Then the code of a
        program cannot be another than its kernels are chosen for (rule 5 of resolving), and each is the one that the target
        of this arch alone holds, down to the objects that it is linked of."""
        if self.id.arch is not None or self.toolkit is None:
            return (Variant("", self.sass, self.ptx),)
        native = [Variant(f"sm{arch}", (arch,), ()) for arch in self.sass]
        return (*native, *(Variant(f"ptx{arch}", (), (arch,)) for arch in self.ptx))

    @property
    def toolkit(self) -> CudaVersion | None:
        """The CUDA release it is built with."""
        return self.id.toolkit

    @property
    def pruned_library(self) -> str:
        """The soname of the library that is linked of the toolkit's static ones after pruning; empty where nothing is pruned.
        Not NVIDIA's name: nothing may take it for theirs."""
        return f"{PRUNED_LIBRARY}.{self.toolkit.major}" if self.pruned and self.toolkit is not None else ""

    @property
    def tag(self) -> str:
        """`<engine>-<target>`: the tag of its image in every repository."""
        return f"{self.engine}-{self.id}"


def to_json(target: Target) -> dict[str, object]:
    """One row of schema sdrun.targets/v1."""
    return {
        "target": str(target.id),
        "toolkit": str(target.toolkit) if target.toolkit else None,
        "sass": [str(arch) for arch in target.sass],
        "ptx": [str(arch) for arch in target.ptx],
        "platform": target.platform,
        "min_driver": str(target.min_driver) if target.min_driver else None,
        "toolchains": list(target.toolchains),
        "tag": target.tag,
        **({"pruned": True} if target.pruned else {}),
    }


def expand_braces(pattern: str) -> list[str]:
    """`cu124-sm{86,89}` -> both; nested braces multiply. Raises ValueError for a brace without its partner or for more than
    `MAX_ALTERNATIVES` results."""
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        text = waiting.pop(0)
        match = _BRACES.search(text)
        if match is None:
            if "{" in text or "}" in text:
                raise ValueError(f"{pattern[:40]!r} has a brace without its partner")
            done.append(text)
        else:
            waiting += [text[: match.start()] + part + text[match.end() :] for part in match[1].split(",")]
        if len(done) + len(waiting) > MAX_ALTERNATIVES:
            raise ValueError(f"{pattern[:40]!r} stands for more than {MAX_ALTERNATIVES} names")
    return list(dict.fromkeys(done))


def select(selector: str, targets: Sequence[Target]) -> list[Target]:
    """The targets whose id matches the glob `selector`, in the order given. Raises ValueError for a malformed selector."""
    patterns = expand_braces(selector)
    return [target for target in targets if any(fnmatchcase(str(target.id), pattern) for pattern in patterns)]
