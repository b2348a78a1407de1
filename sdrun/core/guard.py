"""What the guard of an image knows (images/guard/guard.c): the resolver's verdict on every capability, as a C header.

The guard itself decides nothing about archs, so it cannot disagree with `resolve`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.code import Match, match
from sdrun.core.driver import combined
from sdrun.core.facts import CudaFacts
from sdrun.core.index import IndexImage
from sdrun.core.target import Target, Variant
from sdrun.core.version import CudaVersion

PROGRAMS = "/usr/libexec/sdrun"  # where the engine's own programs lie in an image whose /usr/bin holds guards
NEWER = 0  # guard.c's number for any capability above all known ones
_PATHS = {"sass-exact": "EXACT", "sass-compatible": "COMPATIBLE", "ptx-jit": "JIT"}
_PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "sbsa"}


def guard_header(target: Target, programs: Sequence[str], facts: CudaFacts) -> str:
    """The text of `guard-target.h` for a CUDA target whose engine has `programs` (the first is the default). It follows from
    the target and the facts alone: other rows may come and go without changing it."""
    toolkit = target.toolkit
    if toolkit is None:
        raise ValueError(f"{target.id} has no GPU code to guard")
    holds = [f"sm_{arch}" for arch in target.sass] + [f"PTX {arch}" for arch in target.ptx]
    lines = [
        f"/* What {target.id} ({target.platform}) holds and whom it serves. Rendered by sdrun. */",
        f"#define GUARD_TARGET {_quoted(str(target.id))}",
        f"#define GUARD_HOLDS {_quoted(', '.join(holds))}",
        f"#define GUARD_MIN_DRIVER {_quoted(str(target.min_driver or 'any'))}",
        f"#define GUARD_PROGRAMS {_quoted(folder_of(target.variants[0]))}",
        f"static const char *const programs[] = {{{', '.join(map(_quoted, programs))}}};",
        "static const struct rule rules[] = {",
        *_rules(target, toolkit, facts),
        "};",
        "static const struct way ways[] = {",
        *_ways(target.platform, facts),
        "};",
    ]
    return "\n".join(lines) + "\n"


def folder_of(variant: Variant) -> str:
    """Where the programs of a variant lie in an image: `/usr/libexec/sdrun`, or a folder of their own below it."""
    return f"{PROGRAMS}/{variant.name}".rstrip("/")


def _rules(target: Target, toolkit: CudaVersion, facts: CudaFacts) -> Iterator[str]:
    image = IndexImage(str(target.id), "", target.platform, toolkit, target.sass, target.ptx, target.fatbin_compression)
    to_come = ComputeCapability(max(known.major for known in facts.capabilities) + 1, 0)
    for device in facts.capabilities:
        yield _rule(device.number, match(image, device, mixes=False, facts=facts), target.variants)
    yield _rule(NEWER, match(image, to_come, mixes=False, facts=facts), target.variants)


def _rule(number: int, found: Match, variants: Sequence[Variant]) -> str:
    if found.path is None:
        mismatch = found.barred is not None and found.barred.reason == "arch-mismatch"
        return f'    {{{number}, {"MISMATCH" if mismatch else "NONE"}, 0, "", ""}},'
    floor = combined(floor for _, floor in found.floors)
    chosen = next(one for one in variants if found.arch in (one.ptx if found.path == "ptx-jit" else one.sass))
    texts = ", ".join(map(_quoted, (str(floor.driver or "any"), folder_of(chosen))))
    return f"    {{{number}, {_PATHS[found.path]}, {_spoken(floor.cuda)}, {texts}}},"


def _ways(platform: str, facts: CudaFacts) -> Iterator[str]:
    """For each capability of the platform, targets with exactly its code, in the order in which refusals name them."""
    for device, row in facts.capabilities.items():
        if _PLATFORMS.get(platform) not in row.platforms:
            continue
        lowest: CudaVersion | None = None
        for toolkit in facts.suggest:
            named, floor = facts.named_by(toolkit, device), facts.sass_floor(toolkit).cuda
            if Arch(named.number) in facts.toolkits[toolkit].sass and (lowest is None or floor < lowest):
                lowest = floor  # a later one that demands as much would never be named
                yield f"    {{{device.number}, {_spoken(floor)}, {_quoted(f'{toolkit.short}-sm{named.number}')}}},"


def _spoken(cuda: CudaVersion) -> int:
    """As cuDriverGetVersion tells it: 12040 for 12.4."""
    return cuda.major * 1000 + cuda.minor * 10


def _quoted(text: str) -> str:
    """A C string; the texts are ids, versions and paths, in which nothing needs an escape."""
    if not text.isascii() or any(c in '"\\' or not c.isprintable() for c in text):
        raise ValueError(f"{text[:40]!r} cannot stand in a C string as it is")
    return f'"{text}"'
