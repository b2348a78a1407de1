"""What a build spent its time on, out of its log: each file's time, what the compiler's cache gave, the processor time of all.

The engine stage of every Dockerfile prints it (templates/stages/engine.j2): ninja's own log, `ccache --show-log-stats` and what
the shell's `times` says of everything it started."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrun.build.buildlog import output_of

_UNIT = re.compile(r"sdrun unit: (\d+)\t(\d+)\t\d+\t(\S+)\t[0-9a-f]+")
_CACHE = re.compile(r"sdrun cache: +(Hits|Misses): +(\d+) / ")
_TIMES = re.compile(r"sdrun times: (\d+)m([0-9.]+)s (\d+)m([0-9.]+)s")
_OBJECT = re.compile(r"(?:CMakeFiles/[^/]*\.dir/|\.o$)")


@dataclass(frozen=True, slots=True)
class Unit:
    """One file that was compiled or linked, and how long that took by the clock: files beside it slow it down."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """`units`: slowest first; `cpu_seconds`: processor time of the whole step, user and system, of every process in it; `hits`
    and `misses` of the compiler's cache."""

    units: tuple[Unit, ...]
    cpu_seconds: float
    hits: int
    misses: int

    @property
    def unit_seconds(self) -> float:
        """The sum over all files; above `cpu_seconds` where they had to wait for processors."""
        return sum(unit.seconds for unit in self.units)


def read_profile(log: Iterable[str]) -> Profile | None:
    """The profile in a build's log, or None where the step that compiles did not run (it was in the builder's cache)."""
    units: list[Unit] = []
    counts: dict[str, int] = {"Hits": 0, "Misses": 0}
    cpu: list[float] = []
    for text in map(output_of, log):
        if unit := _UNIT.fullmatch(text):
            units.append(Unit(_OBJECT.sub("", unit[3]), (int(unit[2]) - int(unit[1])) / 1000))
        elif (cache := _CACHE.match(text)) and not counts[cache[1]]:
            counts[cache[1]] = int(cache[2])
        elif times := _TIMES.fullmatch(text):
            cpu.append(60 * (int(times[1]) + int(times[3])) + float(times[2]) + float(times[4]))
    if not units or not cpu:
        return None
    # The first line of `times` is the shell's own time, the second that of all it waited for.
    return Profile(tuple(sorted(units, key=lambda unit: -unit.seconds)), cpu[-1], counts["Hits"], counts["Misses"])


def profile_of(log: Path | None) -> Profile | None:
    """The profile in a log file, or None without a log."""
    if log is None:
        return None
    with log.open(encoding="utf-8", errors="replace") as lines:
        return read_profile(line.rstrip("\n") for line in lines)


def slowest(title: str, profile: Profile, count: int = 20) -> str:
    """A few lines for people: the totals and the `count` slowest files."""
    minutes = (
        f"{profile.cpu_seconds / 60:.1f} CPU-minutes, {profile.hits} of {profile.hits + profile.misses} files from the cache"
    )
    lines = [f"{unit.seconds:8.1f} s  {unit.name}" for unit in profile.units[:count]]
    return "\n".join([f"{title}: {minutes}", *lines])


def to_json(profile: Profile) -> Mapping[str, object]:
    """One element of schema sdrun.profile/v1."""
    return {
        "cpu_seconds": round(profile.cpu_seconds, 1),
        "unit_seconds": round(profile.unit_seconds, 1),
        "cache_hits": profile.hits,
        "cache_misses": profile.misses,
        "units": [{"name": unit.name, "seconds": unit.seconds} for unit in profile.units],
    }
