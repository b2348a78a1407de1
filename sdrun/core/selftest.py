"""Which kernels of an engine compute wrongly, told from pictures: what a probe exercises, how far its picture may be from the
recorded one, and what follows from probes that passed and probes that did not.

The logic is that of group testing. A probe is one small picture drawn in one way; it exercises several kernel families. A probe
that passes clears all of its families. In one that does not, only families that nothing cleared can be at fault; where a single
one is left, that one is off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sdrun.core.target import PRUNED_ENGINE

Backend = Literal["cpu", "cuda"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
CHANNELS = 3  # red, green, blue; a byte each
SQUARE = 16  # pixels
NOT_RUN = "not run: "  # how the line begins that says why no probe could be drawn


@dataclass(frozen=True, slots=True)
class Family:
    """Kernels that belong together. `title` completes the sentence "... computes wrongly"; `avoid` says how to do without them
    until there is a sound image, empty where one cannot."""

    name: str
    title: str
    avoid: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a picture is from the recorded one, in levels of 255: `mean` over all values; `worst`, the largest mean of a
    square of SQUARE x SQUARE pixels, which tells a hole in a good picture."""

    mean: float
    worst: float

    def within(self, bounds: Difference) -> bool:
        """Whether neither figure is above its bound."""
        return self.mean <= bounds.mean and self.worst <= bounds.worst


@dataclass(frozen=True, slots=True)
class Probe:
    """One picture to draw. `exercises`: names of families, by backend; `arguments` go to the engine as they are; `init` is a
    recorded picture to start from, of which `strength` (0 to 1) changes; `picture` is the recorded result (both are plain file
    names); `bounds`: how far the result may be from it, by backend; `quick`: part of the short form."""

    name: str
    title: str
    exercises: Mapping[Backend, frozenset[str]]
    picture: str
    bounds: Mapping[Backend, Difference]
    arguments: tuple[str, ...] = ()
    init: str | None = None
    strength: float | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """All probes and what they share: the model's full name, prompt, seed, size in pixels and sampling steps. `recorded` says
    where the recorded pictures come from."""

    model: str
    prompt: str
    seed: int
    size: int
    steps: int
    families: Mapping[str, Family]
    probes: tuple[Probe, ...]
    recorded: Mapping[str, str]

    def stranger(self, engine: str) -> str:
        """Why the pictures say nothing about this engine: another one may rightly draw others. Empty for the recorded one, its
        libraries pruned or not."""
        known = self.recorded.get("engine", "")
        return (
            ""
            if engine.removesuffix(PRUNED_ENGINE) == known
            else f"the recorded pictures are of the engine {known}, the image has {engine or 'another'}"
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one probe gave: the difference, or the `fault` with which the engine ended (`difference` is None then)."""

    probe: Probe
    backend: Backend
    difference: Difference | None
    fault: str = ""
    seconds: float = 0.0

    @property
    def bounds(self) -> Difference:
        """What the difference may be."""
        return self.probe.bounds[self.backend]

    @property
    def passed(self) -> bool:
        """Whether there is a picture and it is within the bounds."""
        return self.difference is not None and self.difference.within(self.bounds)

    @property
    def exercised(self) -> frozenset[str]:
        """Names of the families."""
        return self.probe.exercises[self.backend]


@dataclass(frozen=True, slots=True)
class Finding:
    """What follows. `off`: families that are certainly wrong; `suspects`: each of these alone would explain the other failures
    (where none would, everything that could have a part in one); `cleared`: seen to be right; `unknown`: met in failed probes
    only, which are explained without it; `puzzling`: probes that failed although each of their families passed elsewhere (then
    it is this combination, or chance)."""

    off: tuple[str, ...]
    suspects: tuple[str, ...]
    cleared: tuple[str, ...]
    unknown: tuple[str, ...]
    puzzling: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every probe passed."""
        return not (self.off or self.suspects or self.puzzling)


def difference(one: Sequence[bytes], other: Sequence[bytes]) -> Difference:
    """The difference of two pictures of one size, given as rows of RGB bytes. Raises ValueError where the sizes differ."""
    if [len(row) for row in one] != [len(row) for row in other] or not one:
        raise ValueError("the pictures are not of one size")
    width = len(one[0]) // CHANNELS
    across = -(-width // SQUARE)
    total, worst = 0, 0.0
    for top in range(0, len(one), SQUARE):
        sums = [0] * across
        rows = range(top, min(top + SQUARE, len(one)))
        for y in rows:
            gaps = [abs(a - b) for a, b in zip(one[y], other[y], strict=True)]
            for square in range(across):
                sums[square] += sum(gaps[square * SQUARE * CHANNELS : (square + 1) * SQUARE * CHANNELS])
        total += sum(sums)
        for square, value in enumerate(sums):
            pixels = min(SQUARE, width - square * SQUARE) * len(rows)
            worst = max(worst, value / (pixels * CHANNELS))
    return Difference(total / (len(one) * len(one[0])), worst)


def deduce(readings: Sequence[Reading]) -> Finding:
    """What the readings say about the families. Families are named in the order in which probes exercise them."""
    failed = [reading for reading in readings if not reading.passed]
    met = _ordered(reading.exercised for reading in readings)
    cleared = frozenset[str]().union(*(reading.exercised for reading in readings if reading.passed))
    open_to = {reading.probe.name: reading.exercised - cleared for reading in failed}
    off = frozenset(name for names in open_to.values() if len(names) == 1 for name in names)
    unexplained = [names for names in open_to.values() if names and not names & off]
    common = frozenset.intersection(*unexplained) if unexplained else frozenset()
    suspects = common or frozenset().union(*unexplained)
    return Finding(
        tuple(name for name in met if name in off),
        tuple(name for name in met if name in suspects),
        tuple(name for name in met if name in cleared),
        tuple(name for name in met if name not in cleared | off | suspects),
        tuple(name for name, names in open_to.items() if not names),
    )


def _ordered(groups: Iterable[frozenset[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in sorted(group)))
