"""Finding known error texts in a log of any size: patterns, causes and the scanner. Pure; the texts themselves are data.

A pattern is the text itself with named gaps, `cudaMalloc failed: {why}`, and not a regular expression: it is searched for piece
by piece from left to right, so the cost of a line is linear in its length whatever stands in it, and a row of the table can be
compared with a real log by eye.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_FIELD = re.compile(r"\{([a-z_]+)(?::([a-z]+))?\}")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ARCH_LIST = re.compile(r"[0-9]{3,4}(?:,[0-9]{3,4})*")
KINDS = ("text", "capabilities")
SHORTEST_LITERAL = 6  # a shorter one would be found all over an innocent log
LONGEST_FIELD = 200
LONGEST_EVIDENCE = 400


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pieces` are the literal parts in order, `fields[i]` (name, kind) the gap behind piece i. A gap reaches to the next piece
    or, behind the last one, to the end of the line; two gaps of one name must hold the same. Kind `capabilities` reads ggml's
    `750,860` as `7.5, 8.6`."""

    text: str
    pieces: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    anchor: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of a table's text; raises ValueError for one that starts with a gap, has two in a row, an unknown kind,
        a stray brace, or no literal of at least 6 characters."""
        pieces: list[str] = []
        fields: list[tuple[str, str]] = []
        end = 0
        for match in _FIELD.finditer(text):
            pieces.append(text[end : match.start()])
            fields.append((match[1], match[2] or "text"))
            end = match.end()
        if end < len(text) or not pieces:
            pieces.append(text[end:])
        if not all(pieces):
            raise ValueError("must not start with a gap or hold two gaps in a row")
        if any(kind not in KINDS for _, kind in fields) or any(brace in piece for piece in pieces for brace in "{}"):
            raise ValueError(f"a gap is written {{name}} or {{name:kind}} with a kind of {', '.join(KINDS)}")
        if len(anchor := max(pieces, key=len)) < SHORTEST_LITERAL:
            raise ValueError(f"needs a literal part of at least {SHORTEST_LITERAL} characters")
        return cls(text, tuple(pieces), tuple(fields), anchor.encode())

    @property
    def names(self) -> frozenset[str]:
        """The names of the gaps."""
        return frozenset(name for name, _ in self.fields)

    def match(self, line: str) -> dict[str, str] | None:
        """What the gaps hold in `line`, or None where the text is not in it."""
        held: list[str] = []
        position = 0
        for i, piece in enumerate(self.pieces):
            found = line.find(piece, position)
            if found < 0:
                return None
            if i:
                held.append(line[position:found])
            position = found + len(piece)
        if len(self.fields) == len(self.pieces):
            held.append(line[position:])
        values: dict[str, str] = {}
        for (name, kind), raw in zip(self.fields, held, strict=True):
            value = _value(raw, kind)
            if values.setdefault(name, value) != value:
                return None
        return values


def _value(raw: str, kind: str) -> str:
    text = raw.strip()[:LONGEST_FIELD]
    if kind == "capabilities" and _ARCH_LIST.fullmatch(text):
        return ", ".join(f"{int(number) // 100}.{int(number) % 100 // 10}" for number in text.split(","))
    return text


@dataclass(frozen=True, slots=True)
class Cause:
    """One row of the table. `key` is unique; `id` is the error's id, which several rows may share; `texts` is empty for a row
    that is known by the exit status alone. `exits` and `out_of_memory`, where given, must hold as well. `explains_cpu_run`: the
    text also explains a run that ended well without the GPU. `message` and `remedy` may name gaps; `defaults` fill those that a
    shorter form of the text lacks."""

    key: str
    id: str
    exit_code: int
    message: str
    remedy: str
    source: str
    where: str = "engine"
    texts: tuple[Pattern, ...] = ()
    exits: tuple[int, ...] = ()
    out_of_memory: bool = False
    explains_cpu_run: bool = False
    defaults: Mapping[str, str] = field(default_factory=dict)

    def holds(self, code: int, out_of_memory: bool) -> bool:
        """Whether the way the process ended agrees with this row."""
        return (not self.exits or code in self.exits) and (out_of_memory or not self.out_of_memory)


@dataclass(frozen=True, slots=True)
class Finding:
    """A text that was found: the line it stood in (escape sequences removed, cut to 400 characters) and what its gaps held."""

    line: str
    values: Mapping[str, str]


class Scanner:
    """Looks for many patterns in blocks of whole lines. Work is linear in the log and memory is bounded: once a key has `keep`
    findings its patterns are no longer looked for, and a block is cut into lines only around a literal that occurs in it."""

    def __init__(self, patterns: Mapping[str, Iterable[Pattern]], keep: int = 1) -> None:
        self.found: dict[str, list[Finding]] = {}
        self._keep = keep
        self._pending = [(key, pattern) for key, texts in patterns.items() for pattern in texts]

    def scan(self, block: bytes) -> None:
        """Looks through one block; lines end with LF or CR."""
        full = False
        for key, pattern in self._pending:
            if pattern.anchor in block and len(self.found.get(key, ())) < self._keep:
                self._collect(key, pattern, block)
                full = full or len(self.found.get(key, ())) >= self._keep
        if full:
            self._pending = [item for item in self._pending if len(self.found.get(item[0], ())) < self._keep]

    def _collect(self, key: str, pattern: Pattern, block: bytes) -> None:
        position = block.find(pattern.anchor)
        while position >= 0:
            start, end = _line_around(block, position)
            line = clean(block[start:end])
            values = pattern.match(line)
            if values is not None:
                findings = self.found.setdefault(key, [])
                findings.append(Finding(line.strip()[:LONGEST_EVIDENCE], values))
                if len(findings) >= self._keep:
                    return
            position = block.find(pattern.anchor, end)


def _line_around(block: bytes, position: int) -> tuple[int, int]:
    """Where the line that holds `position` starts and ends. The CR is looked for between line feeds only, which keeps the work
    linear in a block that has no CR at all."""
    start = block.rfind(b"\n", 0, position) + 1
    start = max(start, block.rfind(b"\r", start, position) + 1)
    newline = block.find(b"\n", position)
    end = len(block) if newline < 0 else newline
    cr = block.find(b"\r", position, end)
    return start, end if cr < 0 else cr


def clean(raw: bytes) -> str:
    """A line of a log as text that is safe to print: terminal escapes and control characters removed, bad UTF-8 replaced."""
    text = _ESCAPE.sub("", raw.decode("utf-8", "replace"))
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def first_cause(
    causes: Sequence[Cause], found: Mapping[str, Sequence[Finding]], code: int, out_of_memory: bool
) -> tuple[Cause, Finding | None] | None:
    """The first row of the table, in its own order, that holds: causes stand above symptoms there, wherever each stood in the
    log. None where no row holds."""
    for cause in causes:
        if not cause.holds(code, out_of_memory):
            continue
        if findings := found.get(cause.key):
            return cause, findings[0]
        if not cause.texts:
            return cause, None
    return None
