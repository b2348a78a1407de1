"""Does this processor have the instructions an image was built with? Asked before the start: the engine itself would only die
of an illegal instruction."""

from __future__ import annotations

import platform
from pathlib import Path

from sdrun.catalog.cpu_levels import load_cpu_levels
from sdrun.errors import EngineFailed


def missing_features(level: str, cpuinfo: str) -> tuple[str, ...]:
    """What a processor lacks of `level`, sorted; empty for a level that is not known (nothing can be said of it then).

    >>> missing_features("x86-64-v2", "flags : cmov cx8 fpu fxsr mmx syscall sse sse2 cx16 lahf_lm popcnt pni sse4_1 ssse3")
    ('sse4_2',)
    """
    wanted = load_cpu_levels().get(level, frozenset())
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
