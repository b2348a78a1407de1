"""What the engine is told on GPUs of a capability because it is faster there, and what speaks for it. The rows stand in
images/settings.yaml."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sdrun.core.capability import ComputeCapability

How = Literal["measured", "documented"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a setting on one capability. `faster`: the least and the greatest gain that was seen, as the ratio of
    steps a second; `apart`: the mean difference of pictures with and without it, of 255. None where nothing was measured.
    `result`: the file in bench/results with the figures, where there is one."""

    how: How
    source: str
    faster: tuple[float, float] | None = None
    apart: float | None = None
    result: str | None = None

    @property
    def gain(self) -> str:
        """For people: `1.13 to 1.19 times as fast`."""
        if self.faster is None:
            return "said to be faster by the engine's authors"
        least, most = (f"{number:.2f}" for number in self.faster)
        return f"{least} times as fast" if least == most else f"{least} to {most} times as fast"


@dataclass(frozen=True, slots=True)
class Setting:
    """`options` for the engine, for models of `families`, on the capabilities that `evidence` has; `implied_by` are options
    that do the same."""

    name: str
    title: str
    options: tuple[str, ...]
    implied_by: tuple[str, ...]
    families: tuple[str, ...]
    evidence: Mapping[ComputeCapability, Evidence]

    def holds(self, capabilities: Collection[ComputeCapability], family: str, given: Collection[str]) -> bool:
        """Whether it is to be added for a model of `family` on GPUs of all these capabilities, where `given` are options that
        are set already."""
        return (
            bool(capabilities)
            and family in self.families
            and all(capability in self.evidence for capability in capabilities)
            and not any(option in given for option in (*self.options, *self.implied_by))
        )

    def reason(self, capability: ComputeCapability) -> str:
        """One line for people."""
        return f"{' '.join(self.options)}: {self.title}, {self.evidence[capability].gain} on compute capability {capability}"


def settings_for(
    settings: Iterable[Setting], capabilities: Collection[ComputeCapability], family: str, given: Collection[str]
) -> tuple[Setting, ...]:
    """Those to be added, in the catalogue's order."""
    return tuple(setting for setting in settings if setting.holds(capabilities, family, given))
