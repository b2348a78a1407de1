"""Does this processor have the instructions an image was built with? Asked before the start: the engine itself would only die
of an illegal instruction."""

from __future__ import annotations

import platform
from pathlib import Path

from sdrun.errors import EngineFailed

# x86-64 psABI levels (gitlab.com/x86-psABIs/x86-64-ABI, section 3.1.1) by the names in /proc/cpuinfo; each level includes the
# ones before it. `pni` is SSE3, `abm` LZCNT, `cx16` CMPXCHG16B.
_ADDED: dict[str, frozenset[str]] = {
    "x86-64": frozenset({"cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2"}),
    "x86-64-v2": frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    "x86-64-v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}
_LEVELS = tuple(_ADDED)


def missing_features(level: str, cpuinfo: str) -> tuple[str, ...]:
    """What a processor lacks of `level`, sorted; empty for a level that is not known (nothing can be said of it then).

    >>> missing_features("x86-64-v2", "flags : cmov cx8 fpu fxsr mmx syscall sse sse2 cx16 lahf_lm popcnt pni sse4_1 ssse3")
    ('sse4_2',)
    """
    if level not in _LEVELS:
        return ()
    wanted = frozenset().union(*(_ADDED[name] for name in _LEVELS[: _LEVELS.index(level) + 1]))
    line = next((line for line in cpuinfo.splitlines() if line.split(":")[0].strip() == "flags"), None)
    return () if line is None else tuple(sorted(wanted - set(line.split(":", 1)[1].split())))


def check_processor(level: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raises EngineFailed (`cpu-too-old`) naming what is missing. A processor that cannot be read is let pass."""
    if not level or platform.machine() != "x86_64":
        return
    try:
        lacking = missing_features(level, cpuinfo.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return
    if lacking:
        raise EngineFailed(
            f"the image needs a processor of level {level}; this one lacks {', '.join(lacking)}",
            "Build an image for this processor's level, or use a newer machine.",
            id="cpu-too-old",
        )
