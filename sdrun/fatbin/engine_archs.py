"""The arch list that ggml compiles into its CUDA backend: what the engine itself believes it was built for.

ggml offers __CUDA_ARCH_LIST__ (`750,860`) as the value of its backend feature "ARCHS", so the two strings stand in the host
program's constants, mostly side by side: a compiler puts strings in the order of their use. Lists of 31 letters and more land
in another section (x86-64 aligns them), which is why the whole of the constants is searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from sdrun.core.capability import Arch
from sdrun.fatbin.elf import Range
from sdrun.fatbin.source import Source

_MARK = re.compile(rb"ARCHS\0")
_LIST = re.compile(rb"(?<=\0)[1-9][0-9]{1,2}0(?:,[1-9][0-9]{1,2}0){0,63}(?=\0)")
_STEP = 1 << 22
_OVERLAP = 512  # longer than any list
_NEAR = 128
_MAX_FOUND = 1000


def find_engine_archs(source: Source, constants: Iterable[Range]) -> tuple[Arch, ...] | None:
    """The list, sorted, or None where there is none or several contradict each other. A suffix is not part of it: ggml's list
    says 1200 for `120a` too."""
    constants = tuple(constants)
    marks = [at for at, _ in _found(_MARK, source, constants)]
    if not marks:
        return None
    lists = {at: text for at, text in _found(_LIST, source, constants) if _ascending(text)}
    return _parse(_chosen(marks, lists)) if lists else None


def _found(pattern: re.Pattern[bytes], source: Source, parts: Iterable[Range]) -> list[tuple[int, bytes]]:
    """Place and text of the first matches; a made-up file may hold millions, and every pair of mark and list is weighed."""
    found: dict[int, bytes] = {}
    for part in parts:
        for at in range(part.start, part.end, _STEP):
            chunk = source.read(at, min(_STEP + _OVERLAP, part.end - at))
            found |= {at + match.start(): match[0] for match in islice(pattern.finditer(chunk), _MAX_FOUND)}
            if len(found) >= _MAX_FOUND:
                return list(found.items())[:_MAX_FOUND]
    return list(found.items())


def _ascending(text: bytes) -> bool:
    numbers = [int(word) for word in text.split(b",")]
    return numbers == sorted(set(numbers))


def _chosen(marks: list[int], lists: dict[int, bytes]) -> bytes | None:
    """The list right behind a mark; else the only one with a comma; else the nearest."""
    for mark in marks:
        if (text := lists.get(mark + len(b"ARCHS\0"))) is not None:
            return text
    long = {text for text in lists.values() if b"," in text}
    if long:
        return long.pop() if len(long) == 1 else None
    distance, text = min((abs(at - mark), text) for mark in marks for at, text in lists.items())
    return text if distance <= _NEAR else None


def _parse(text: bytes | None) -> tuple[Arch, ...] | None:
    if text is None:
        return None
    return tuple(sorted(Arch(int(word) // 10) for word in text.split(b",")))
