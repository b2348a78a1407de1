"""What one file carries: its archs, entries, compression, the engine's own arch list and what is known of its toolkit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sdrun.core.capability import Arch
from sdrun.core.index import COMPRESSIONS, Compression
from sdrun.core.version import CudaVersion
from sdrun.fatbin import archive, elf, producer
from sdrun.fatbin.container import MAGIC, Entry, Fault, containers, find_containers
from sdrun.fatbin.elf import Range
from sdrun.fatbin.engine_archs import find_engine_archs
from sdrun.fatbin.source import Source
from sdrun.fatbin.stores import Tries, find_stored

_MAX_FAULTS = 8
_MAX_UNPACKED = 256 * 1024  # stored bytes of cubins unpacked to learn their toolkit, the smallest cubins first
_MAX_CUBINS = 24  # of them; no library has code for more archs


class NotInspectable(ValueError):
    """The bytes are of no format that can hold GPU code for a host program."""


@dataclass(frozen=True, slots=True)
class FileCode:
    """One file's GPU code. `counts`: the number of entries for each kind and arch (`ptx`, `cubin`, `lto`); `compression`: the
    strictest found, None where a driver loads nothing; `ptx_isas`: the versions its PTX is written in; `cubin_toolkits`: the
    toolkits its machine code names; `stored`: the number of cubins outside fatbin sections by section and arch, which a library
    loads by itself and which say nothing about where it runs (sdrun.fatbin.stores); `faults`: the file breaks its format there,
    and the rest may be incomplete."""

    path: str
    counts: Mapping[tuple[Literal["ptx", "cubin", "lto"], Arch], int] = field(default_factory=dict)
    compression: Compression | None = None
    engine_archs: tuple[Arch, ...] | None = None
    ptx_isas: frozenset[tuple[int, int]] = frozenset()
    cubin_toolkits: frozenset[CudaVersion] = frozenset()
    stored: Mapping[tuple[str, Arch], int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def archs(self, kind: Literal["ptx", "cubin", "lto"]) -> tuple[Arch, ...]:
        """The archs that entries of `kind` are for, sorted."""
        return tuple(sorted(arch for held, arch in self.counts if held == kind))

    @property
    def sass(self) -> tuple[Arch, ...]:
        """Archs of machine code."""
        return self.archs("cubin")

    @property
    def ptx(self) -> tuple[Arch, ...]:
        """Archs of PTX."""
        return self.archs("ptx")

    @property
    def entries(self) -> int:
        """Cubins and PTX together; link-time IR is no code a driver loads."""
        return sum(count for (kind, _), count in self.counts.items() if kind != "lto")


def can_hold_code(head: bytes) -> bool:
    """Whether a file that begins with these bytes (8 suffice) is of a format `read_code` reads."""
    return elf.is_elf(head) or archive.is_archive(head) or head.startswith(MAGIC)


def read_code(source: Source, path: str) -> FileCode:
    """The code in an ELF file, a static library or a bare .fatbin. Raises NotInspectable for anything else; damage inside a
    file of the right format is told in `faults`. Of entries in fatbin sections only headers are read; the host program's data
    is searched through (0.3 s for 250 MB)."""
    head = source.read(0, 8)
    if not can_hold_code(head):
        raise NotInspectable("it is no ELF file, static library or fatbin")
    tally = _Tally(source)
    if archive.is_archive(head):
        for member in archive.members(source):
            if isinstance(member, Fault):
                tally.note(member)
            elif elf.is_elf(member.read(0, 4)):
                _read_elf(member, tally)
    elif head.startswith(MAGIC):
        tally.take(source, containers(source, 0, source.size))
    else:
        _read_elf(source, tally)
    return tally.result(path)


def _read_elf(source: Source, tally: _Tally) -> None:
    parts = elf.read_map(source)
    if parts.machine == elf.EM_CUDA:
        tally.note(Fault(0, "it is a bare cubin, which does not say whether its code is for one arch or its family"))
        return
    for fault in parts.faults:
        tally.note(fault)
    before = tally.total
    for part in parts.code:
        walk = containers if part.exact else find_containers
        tally.take(source, walk(source, part.start, part.end))
    if tally.total > before and tally.engine_archs is None:
        tally.engine_archs = find_engine_archs(source, parts.constants)
    tally.store(find_stored(source, parts.data, tally.tries))


class _Tally:
    """Sums up entries as they are walked over; keeps none of them but the smallest cubins."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._counts: Counter[tuple[Literal["ptx", "cubin", "lto"], Arch]] = Counter()
        self._compressions: set[Compression] = set()
        self._isas: set[tuple[int, int]] = set()
        self._toolkits: set[CudaVersion] = set()
        self._smallest: dict[tuple[Arch, Compression], tuple[Source, Entry]] = {}
        self._stored: Counter[tuple[str, Arch]] = Counter()
        self._faults: list[str] = []
        self.engine_archs: tuple[Arch, ...] | None = None
        self.tries = Tries()
        self.total = 0

    def note(self, fault: Fault) -> None:
        """Keeps the first few faults; one broken table can hold a million."""
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append(str(fault))

    def take(self, source: Source, items: Iterable[Entry | Fault]) -> None:
        """Adds what a walk over `source` yields."""
        for item in items:
            if isinstance(item, Fault):
                self.note(item)
                continue
            self.total += 1
            self._counts[item.kind, item.arch] += 1
            if item.kind == "lto":
                continue
            self._compressions.add(item.compression)
            if item.kind == "ptx":
                self._isas.add(item.version)
            elif item.stored:
                self._cubin(source, item)

    def store(self, found: Iterable[tuple[Range, Entry]]) -> None:
        """Adds code outside fatbin sections."""
        for part, entry in found:
            if entry.kind == "cubin":
                self._stored[f".{part.name.split('.')[1]}" if part.name.startswith(".") else part.name, entry.arch] += 1

    def _cubin(self, source: Source, entry: Entry) -> None:
        if (toolkit := producer.quick_toolkit(source, entry)) is not None:
            self._toolkits.add(toolkit)
            return
        key = (entry.arch, entry.compression)
        held = self._smallest.get(key)
        if entry.stored <= producer.MAX_STORED and (held is None or entry.stored < held[1].stored):
            self._smallest[key] = (source, entry)

    def _unpacked(self) -> Iterator[CudaVersion]:
        budget = _MAX_UNPACKED
        for source, entry in sorted(self._smallest.values(), key=lambda pair: pair[1].stored)[:_MAX_CUBINS]:
            budget -= entry.stored
            if budget >= 0 and (toolkit := producer.thorough_toolkit(source, entry)) is not None:
                yield toolkit

    def result(self, path: str) -> FileCode:
        """The sum."""
        return FileCode(
            path=path,
            counts=dict(self._counts),
            compression=max(self._compressions, key=COMPRESSIONS.index, default=None),
            engine_archs=self.engine_archs,
            ptx_isas=frozenset(self._isas),
            cubin_toolkits=frozenset(self._toolkits) | frozenset(self._unpacked()),
            stored=dict(self._stored),
            faults=tuple(self._faults),
        )
