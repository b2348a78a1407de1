"""Compute capabilities and the CUDA code targets ("archs") built for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_CAPABILITY = re.compile(r"([1-9][0-9]?)\.([0-9])")
_ARCH = re.compile(r"([1-9][0-9]{1,2})([af]?)")


@dataclass(frozen=True, slots=True, order=True)
class ComputeCapability:
    """`major.minor` of a GPU. A string on the outside (`"8.9"`), never a float, never a marketing name."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ComputeCapability:
        """`"8.9"`, `"12.1"`; raises ValueError for anything else."""
        match = _CAPABILITY.fullmatch(text)
        if match is None:
            raise ValueError(f'must be a compute capability such as "8.9", not {text[:40]!r}')
        return cls(int(match[1]), int(match[2]))

    @property
    def number(self) -> int:
        """`89` for 8.9: what `sm_89` and target ids say."""
        return self.major * 10 + self.minor

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True, order=True)
class Arch:
    """One CUDA code target as it stands in `sass` and `ptx` lists: `89`, `90a`, `120f`.

    `suffix` `a` is code for exactly this capability, `f` for its family from this minor on; whether it is machine code or PTX
    is said by the list it stands in. Ordered by number, then suffix.
    """

    number: int
    suffix: Literal["", "a", "f"] = ""

    @classmethod
    def parse(cls, text: str) -> Arch:
        """`"89"`, `"90a"`, `"120f"`; raises ValueError for anything else (`"8.9"`, `"native"`)."""
        match = _ARCH.fullmatch(text)
        if match is None:
            raise ValueError(f'must be an arch such as "89" or "120a", not {text[:40]!r}')
        suffix: Literal["", "a", "f"] = "a" if match[2] == "a" else "f" if match[2] == "f" else ""
        return cls(int(match[1]), suffix)

    @property
    def capability(self) -> ComputeCapability:
        """The capability the code was made for."""
        return ComputeCapability(self.number // 10, self.number % 10)

    def __str__(self) -> str:
        return f"{self.number}{self.suffix}"
