"""Whether a library from which code was taken out still holds all that a GPU could load: compared with what it held before.

A list of archs does not tell. cuBLAS 13.0 pruned to sm_90 lists machine code for 9.0 and ends every run on a 9.0 (measured);
1375 of its cubins for it are 9.0a code, which such pruning takes out. So pieces of code are compared, as multisets of digests.
nvprune keeps them as they are packed (12.4's does); what differs as stored is unpacked and compared again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.code import loadable_ptx, loadable_sass
from sdrun.core.facts import CudaFacts
from sdrun.core.version import CudaVersion
from sdrun.fatbin import archive, elf
from sdrun.fatbin.carried import NotInspectable
from sdrun.fatbin.container import MAGIC, Entry, Fault, containers, find_containers
from sdrun.fatbin.content import content_digest, stored_digest
from sdrun.fatbin.lz4 import Corrupt
from sdrun.fatbin.source import Source
from sdrun.fatbin.stores import Tries, find_stored

MAX_PIECES = 100_000  # of one file; the largest library known has 6,000


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry, the bytes it stands in, and a digest of it as it is stored."""

    entry: Entry
    source: Source
    digest: bytes


@dataclass(frozen=True, slots=True)
class Holding:
    """All GPU code of one file: `fatbins`, whose entries are alternatives to each other, and `stored`, what stands outside
    fatbin sections. Good while the source it was read from is open."""

    fatbins: tuple[tuple[Piece, ...], ...]
    stored: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of a file's code for a GPU of `capability`, as numbers of entries by arch. `kept`, `missing`, `added`:
    machine code it could load; `jit_missing`: PTX it needs, since the fatbin had no machine code for it; `stored_kept`,
    `stored_missing`, `stored_added`: code outside fatbin sections, for any GPU; `others`: how many entries for other GPUs are
    gone."""

    capability: ComputeCapability
    kept: Mapping[Arch, int]
    missing: Mapping[Arch, int]
    added: Mapping[Arch, int]
    jit_missing: Mapping[Arch, int]
    stored_kept: Mapping[Arch, int]
    stored_missing: Mapping[Arch, int]
    stored_added: Mapping[Arch, int]
    others: int

    @property
    def complete(self) -> bool:
        """Whether such a GPU finds exactly the code that there was before."""
        return not (self.missing or self.added or self.jit_missing or self.stored_missing or self.stored_added)

    def to_json(self) -> dict[str, object]:
        """The value of `compared` in a document of schema sdrun.inspect/v1."""
        names = ("kept", "missing", "added", "jit_missing", "stored_kept", "stored_missing", "stored_added")
        counts = {name: {str(arch): count for arch, count in sorted(getattr(self, name).items())} for name in names}
        return {"capability": str(self.capability), "complete": self.complete, **counts, "others_removed": self.others}


def read_holding(source: Source) -> Holding:
    """The code of an ELF file, static library or bare fatbin. Raises NotInspectable for anything else, and for damage."""
    fatbins: dict[tuple[int, int], list[Piece]] = {}
    stored: list[Piece] = []
    left = MAX_PIECES
    for number, (part, item, own) in enumerate(_entries(source)):
        if isinstance(item, Fault):
            raise NotInspectable(str(item))
        if (left := left - 1) < 0:
            raise NotInspectable(f"it holds more than {MAX_PIECES} pieces of GPU code")
        piece = Piece(item, part, stored_digest(part, item))
        if own:
            stored.append(piece)
        else:
            fatbins.setdefault((id(part), item.container if item.container >= 0 else -number), []).append(piece)
    return Holding(tuple(map(tuple, fatbins.values())), tuple(stored))


def _entries(source: Source) -> Iterator[tuple[Source, Entry | Fault, bool]]:
    """Every entry with the source it stands in, and whether it is of a library's own store."""
    head, tries = source.read(0, 8), Tries()
    if archive.is_archive(head):
        for member in archive.members(source):
            if isinstance(member, Fault):
                yield source, member, False
            elif elf.is_elf(member.read(0, 4)):
                yield from _elf_entries(member, tries)
    elif elf.is_elf(head):
        yield from _elf_entries(source, tries)
    elif head.startswith(MAGIC):
        yield from ((source, item, False) for item in containers(source, 0, source.size))
    else:
        raise NotInspectable("it is no ELF file, static library or fatbin")


def _elf_entries(source: Source, tries: Tries) -> Iterator[tuple[Source, Entry | Fault, bool]]:
    parts = elf.read_map(source)
    yield from ((source, fault, False) for fault in parts.faults)
    for part in parts.code:
        walk = containers if part.exact else find_containers
        yield from ((source, item, False) for item in walk(source, part.start, part.end))
    yield from ((source, entry, True) for _, entry in find_stored(source, parts.data, tries))
    if tries.left < 0:
        yield source, Fault(0, "it holds more places that look like GPU code than can be tried"), True


def compare(
    before: Holding, after: Holding, capability: ComputeCapability, facts: CudaFacts, toolkit: CudaVersion | None = None
) -> Comparison:
    """What a GPU of `capability` finds after as against before. `toolkit` made the code: it decides under which number the
    GPU goes. Raises NotInspectable where code cannot be unpacked that would have to be."""
    device = facts.named_by(toolkit, capability) if toolkit is not None else capability
    mixes = facts.is_tegra(device)

    def loadable(piece: Piece) -> bool:
        return piece.entry.kind == "cubin" and loadable_sass([piece.entry.arch], device, mixes=mixes, facts=facts) is not None

    native, there = _filtered(before, loadable), _filtered(after, loadable)
    missing, added = _differences(native, there)
    jit = [piece for fatbin in before.fatbins for piece in _needed_ptx(fatbin, loadable, device, facts)]
    jit_missing, _ = _differences(jit, _filtered(after, lambda piece: piece.entry.kind == "ptx"))
    stored_missing, stored_added = _differences(before.stored, after.stored)
    others = sum(map(len, before.fatbins)) - sum(map(len, after.fatbins)) - len(missing) - len(jit_missing) + len(added)
    return Comparison(
        capability,
        _by_arch(native, missing),
        _by_arch(missing),
        _by_arch(added),
        _by_arch(jit_missing),
        _by_arch(before.stored, stored_missing),
        _by_arch(stored_missing),
        _by_arch(stored_added),
        others,
    )


def _filtered(holding: Holding, test: Callable[[Piece], bool]) -> list[Piece]:
    return [piece for fatbin in holding.fatbins for piece in fatbin if test(piece)]


def _needed_ptx(
    fatbin: Sequence[Piece], loadable: Callable[[Piece], bool], device: ComputeCapability, facts: CudaFacts
) -> list[Piece]:
    """What the driver would compile: of a fatbin without machine code for the device its best PTX."""
    if any(map(loadable, fatbin)):
        return []
    ptx = [piece for piece in fatbin if piece.entry.kind == "ptx"]
    best = loadable_ptx((piece.entry.arch for piece in ptx), device, facts)
    return [piece for piece in ptx if piece.entry.arch == best]


def _differences(before: Sequence[Piece], after: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """What is in one multiset and not in the other: by digests of what is stored, then by those of what that unpacks to."""
    gone, new = _unmatched(before, after, lambda piece: piece.digest)
    common = {piece.entry.arch for piece in gone} & {piece.entry.arch for piece in new}
    if not common:
        return gone, new
    return _unmatched(gone, new, lambda piece: _content(piece) if piece.entry.arch in common else piece.digest)


def _unmatched(
    before: Iterable[Piece], after: Iterable[Piece], digest: Callable[[Piece], bytes]
) -> tuple[list[Piece], list[Piece]]:
    there: dict[tuple[str, Arch, bytes], list[Piece]] = {}
    for piece in after:
        there.setdefault((piece.entry.kind, piece.entry.arch, digest(piece)), []).append(piece)
    gone = []
    for piece in before:
        matching = there.get((piece.entry.kind, piece.entry.arch, digest(piece)))
        if matching:
            matching.pop()
        else:
            gone.append(piece)
    return gone, [piece for pieces in there.values() for piece in pieces]


def _content(piece: Piece) -> bytes:
    try:
        return content_digest(piece.source, piece.entry)
    except Corrupt as fault:
        raise NotInspectable(f"code for {piece.entry.arch} cannot be unpacked: {fault}") from None


def _by_arch(pieces: Iterable[Piece], without: Iterable[Piece] = ()) -> dict[Arch, int]:
    counts = Counter(piece.entry.arch for piece in pieces)
    counts.subtract(piece.entry.arch for piece in without)
    return {arch: count for arch, count in counts.items() if count > 0}


def differences(path: str, found: Comparison) -> list[str]:
    """A sentence for each way in which the code of the file `path` is not what it was before; none where it is."""
    device = f"a GPU of compute capability {found.capability}"
    said = (
        (found.missing, f"{path} lacks machine code that {device} could load and that the whole has"),
        (found.jit_missing, f"{path} lacks PTX that {device} needs and that the whole has"),
        (found.added, f"{path} has machine code for {device} that the whole has not"),
        (found.stored_missing, f"{path} lacks code outside fatbin sections that the whole has"),
        (found.stored_added, f"{path} has code outside fatbin sections that the whole has not"),
    )
    return [f"{sentence}: {counted(counts)}" for counts, sentence in said if counts]


def counted(counts: Mapping[Arch, int]) -> str:
    """`255 for sm_80, 1375 for sm_90a`."""
    return ", ".join(f"{count} for sm_{arch}" for arch, count in sorted(counts.items())) or "none"
