"""Driver and CUDA versions as comparable values with a text form that round-trips."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

_CUDA = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
_L4T = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?(?:\.([0-9]{1,3}))?")
_DRIVER = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})(?:\.([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, order=True)
class CudaVersion:
    """A toolkit's version, or the CUDA version a driver speaks: `12.4`; short form `cu124`."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> CudaVersion:
        """`"12.4"`; raises ValueError for anything else (`"12"`, `"12.4.1"`, `"five"`)."""
        match = _CUDA.fullmatch(text)
        if match is None:
            raise ValueError(f'must be a CUDA version such as "12.4", not {text[:40]!r}')
        return cls(int(match[1]), int(match[2]))

    @property
    def short(self) -> str:
        """`cu124`: the form that stands in target ids."""
        return f"cu{self.major}{self.minor}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class DriverVersion:
    """An NVIDIA driver's version: `580.159.04` or, on some branches, `470.82`; `branch` is its first number.

    `text` keeps the spelling (`04`), which is part of the name people know, and takes no part in comparing.
    """

    numbers: tuple[int, int, int]
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DriverVersion) and self.numbers == other.numbers

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __lt__(self, other: DriverVersion) -> bool:
        return self.numbers < other.numbers

    @classmethod
    def parse(cls, text: str) -> DriverVersion:
        """`"580.159.04"` or `"470.82"`; raises ValueError for anything else."""
        match = _DRIVER.fullmatch(text)
        if match is None:
            raise ValueError(f'must be a driver version such as "580.159.04", not {text[:40]!r}')
        return cls((int(match[1]), int(match[2]), int(match[3] or 0)), text)

    @property
    def branch(self) -> int:
        """The driver branch, `580`."""
        return self.numbers[0]

    def __str__(self) -> str:
        return self.text


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class L4tRelease:
    """A Jetson Linux release: `36.4`, `36.4.3`, `39`. `text` keeps the spelling and takes no part in comparing."""

    numbers: tuple[int, int, int]
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, L4tRelease) and self.numbers == other.numbers

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __lt__(self, other: L4tRelease) -> bool:
        return self.numbers < other.numbers

    @classmethod
    def parse(cls, text: str) -> L4tRelease:
        """`"36.4"`; raises ValueError for anything else (`"R36"`, `"JetPack 6"`)."""
        match = _L4T.fullmatch(text)
        if match is None:
            raise ValueError(f'must be an L4T release such as "36.4", not {text[:40]!r}')
        return cls((int(match[1]), int(match[2] or 0), int(match[3] or 0)), text)

    def __str__(self) -> str:
        return self.text
