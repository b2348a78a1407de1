"""A library that was pruned, held against what it was: over-pruned ones are found, packing does not matter."""

from __future__ import annotations

import random
import struct
import sys

import pytest
from fatbins.files import Piece, cubin_head, elf, fatbin, fixture, library

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.capability import Arch, ComputeCapability
from sdrun.core.version import CudaVersion
from sdrun.fatbin.carried import NotInspectable, read_code
from sdrun.fatbin.pruned import Comparison, compare, differences, read_holding
from sdrun.fatbin.report import file_to_json
from sdrun.fatbin.source import MemorySource
from sdrun.fatbin.stores import MAX_TRIED

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FACTS = load_cuda_facts()
DRAW = random.Random(4)


def code(size: int = 3000) -> bytes:
    """Something that compresses and is like nothing else."""
    return cubin_head(124) + bytes(DRAW.choices(range(16), k=size - 64))


def lz4_block(data: bytes) -> bytes:
    """One run of literals: what an LZ4 compressor writes that finds nothing."""
    rest, out = len(data) - 15, bytearray([0xF0])
    while rest >= 255:
        out.append(255)
        rest -= 255
    return bytes(out) + bytes([rest]) + data


def cubin(sm: int, *, a: bool = False, new: bool = False, size: int = 2000) -> bytes:
    """A whole cubin by its header: ABI 7, or 8 with the arch in another byte."""
    flags = (sm << 8 | (8 if a else 0)) if new else (sm | (0x800 if a else 0))
    ident = b"\x7fELF\x02\x01\x01" + (b"\x41\x08" if new else b"\x33\x07")
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 190, 124, 0, 0, size - 128, flags, 64, 0, 0, 64, 2, 1)
    return head + bytes(DRAW.choices(range(16), k=size - 64))


CODE = {name: code() for name in ("75", "80", "86", "89", "90", "90a", "80 alone", "ptx", "ptx alone")}


def piece(name: str, compression: str = "none") -> Piece:
    """The entry `80`, `90a` or `ptx`."""
    kind, word = ("ptx", "90") if name.startswith("ptx") else ("cubin", name.split()[0])
    data = CODE[name]
    payload = {"none": data, "zstd": zstd.compress(data, 1), "lz4": lz4_block(data)}[compression]
    return Piece(kind, int(word.rstrip("a")), "a" if word.endswith("a") else "", compression, payload=payload)


def made(*groups: tuple[str, ...], compression: str = "none", data: bytes = b"") -> bytes:
    """A library: a fatbin for each group of entries, and a data section."""
    body = b"".join(fatbin(*(piece(name, compression) for name in group)) for group in groups)
    return elf({".text": bytes(64), ".data": data or bytes(8), ".nv_fatbin": body})


WHOLE = (("75", "80", "86", "89", "90", "90a", "ptx"), ("80 alone", "ptx alone"))


def compared(before: bytes, after: bytes, capability: str) -> Comparison:
    was, now = read_holding(MemorySource(before)), read_holding(MemorySource(after))
    return compare(was, now, ComputeCapability.parse(capability), FACTS, CudaVersion(12, 4))


def counts(**numbers: int) -> dict[Arch, int]:
    return {Arch.parse(name.lstrip("_")): number for name, number in numbers.items()}


def test_pruned_to_all_that_a_gpu_can_load() -> None:
    found = compared(made(*WHOLE), made(("80", "86", "89"), ("80 alone",)), "8.9")
    assert found.complete
    assert found.kept == counts(_80=2, _86=1, _89=1)
    assert found.others == 5
    assert differences("x", found) == []


def test_lower_minors_are_missed() -> None:
    """nvprune -arch sm_89: a kernel that is there for 8.0 alone is gone, and the list of archs still says 8.9."""
    found = compared(made(*WHOLE), made(("89",)), "8.9")
    assert not found.complete
    assert (found.kept, found.missing) == (counts(_89=1), counts(_80=2, _86=1))
    (sentence,) = differences("lib.so", found)
    assert sentence.startswith("lib.so lacks machine code that a GPU of compute capability 8.9 could load")
    assert sentence.endswith("2 for sm_80, 1 for sm_86")


def test_code_of_one_capability_alone_is_missed() -> None:
    """nvprune -arch sm_90 of CUDA 13: 9.0a code is gone."""
    found = compared(made(*WHOLE), made(("90",), ("ptx alone",)), "9.0")
    assert (found.missing, found.kept, found.jit_missing) == (counts(_90a=1), counts(_90=1), {})


def test_ptx_may_go_only_where_machine_code_stays() -> None:
    whole = made(*WHOLE)
    assert compared(whole, made(("90", "90a"), ("ptx alone",)), "9.0").complete
    found = compared(whole, made(("90", "90a")), "9.0")
    assert (found.complete, found.jit_missing) == (False, counts(_90=1))
    assert "lacks PTX" in differences("x", found)[0]
    assert (
        compared(whole, made(("90", "90a")), "7.5").jit_missing == {}
    )  # newer than the GPU: it never could be compiled for it


@pytest.mark.parametrize("packed", ["none", "zstd", "lz4"])
@pytest.mark.parametrize("packed_anew", ["none", "zstd", "lz4"])
def test_packing_does_not_matter(packed: str, packed_anew: str) -> None:
    found = compared(made(*WHOLE, compression=packed), made(("80",), ("80 alone",), compression=packed_anew), "8.0")
    assert found.complete, found


@pytest.mark.parametrize("packed", ["none", "zstd"])
def test_other_code_in_place_of_it_is_no_consolation(packed: str) -> None:
    other = elf({".nv_fatbin": fatbin(Piece("cubin", 80, payload=code())) + fatbin(piece("80 alone"))})
    found = compared(made(*WHOLE, compression=packed), other, "8.0")
    assert (found.missing, found.added, found.kept) == (counts(_80=1), counts(_80=1), counts(_80=1))
    assert [sentence.split(":")[0] for sentence in differences("x", found)] == [
        "x lacks machine code that a GPU of compute capability 8.0 could load and that the whole has",
        "x has machine code for a GPU of compute capability 8.0 that the whole has not",
    ]


def test_every_copy_counts() -> None:
    """A multiset: the same code in two fatbins is needed twice."""
    twice = made(("80",), ("80",))
    assert not compared(twice, made(("80",)), "8.0").complete
    assert compared(made(("80",)), twice, "8.0").added == counts(_80=1)


def test_groups_are_taken_apart() -> None:
    """nvcc --concat: entries share one payload; each is its own part of it."""
    whole = fixture("cu135-concat.fatbin")
    holding = read_holding(MemorySource(whole))
    pieces = [piece for fatbin in holding.fatbins for piece in fatbin]
    assert len({piece.digest for piece in pieces}) == len(pieces) == 4
    found = compare(holding, holding, ComputeCapability.parse("8.6"), FACTS)
    assert (found.complete, found.kept) == (True, counts(_86=1))


@pytest.mark.parametrize(
    ("capability", "kept"), [("8.7", {"80", "86"}), ("8.6", {"80", "86"}), ("7.5", {"75"}), ("12.0", set())]
)
def test_what_a_gpu_could_load(capability: str, kept: set[str]) -> None:
    """A Jetson from JetPack 7.2 on takes desktop code, so it counts for it."""
    whole = made(*WHOLE)
    assert {str(arch) for arch in compared(whole, whole, capability).kept} == kept


# --- code outside fatbin sections


def stored(*, lost: bool = False) -> bytes:
    """Cubins as libcublasLt keeps them in .data, between other things that look a little like them."""
    draw = random.Random(9)
    noise = bytes(draw.randrange(256) for _ in range(999))
    parts = [zstd.compress(one, 3) for one in (STORED_80, STORED_90A, STORED_103)]
    text = zstd.compress(b"no code at all" * 50)
    return b"\x28\xb5\x2f\xfd" + noise.join([*(parts[1:] if lost else parts), text, STORED_PLAIN, b"\x7fELF\x02\x01\x01"])


STORED_80, STORED_90A, STORED_103 = cubin(80, size=300_000), cubin(90, a=True), cubin(103, new=True)
STORED_PLAIN = cubin(120, a=True, new=True)


def test_code_in_data_is_seen_and_kept() -> None:
    file = made(*WHOLE, data=stored())
    assert read_code(MemorySource(file), "x").stored == {
        (".data", arch): 1 for arch in map(Arch.parse, ("80", "90a", "103", "120a"))
    }
    found = compared(file, made(("80",), ("80 alone",), data=stored()), "8.0")
    assert (found.complete, found.stored_kept) == (True, counts(_80=1, _90a=1, _103=1, _120a=1))


def test_code_in_data_must_not_get_lost() -> None:
    """Whatever it is for: which of it a library takes for which GPU is not known."""
    was, now = made(*WHOLE, data=stored()), made(*WHOLE, data=stored(lost=True))
    for one, other, word in ((was, now, "lacks"), (now, was, "has")):
        found = compared(one, other, "9.0")
        assert not found.complete
        (sentence,) = differences("x", found)
        assert f"x {word} code outside fatbin sections" in sentence
        assert sentence.endswith(": 1 for sm_80")


def test_code_in_data_may_move_and_be_packed_anew() -> None:
    was = elf({".data": zstd.compress(STORED_80, 1), ".nv_fatbin": fatbin(piece("80"))})
    now = elf({".ldata": bytes(100) + zstd.compress(STORED_80, 9), ".nv_fatbin": fatbin(piece("80"))})
    assert compared(was, now, "8.0").complete


def test_fatbins_in_another_section() -> None:
    """.cask_resource of CUDA 13: containers as in .nv_fatbin, which no tool of NVIDIA's lists. Cubins in them count once."""
    resource = fatbin(Piece("cubin", 100, "f", "zstd", payload=zstd.compress(STORED_103, 3)))
    file = elf({".cask_resource": resource, ".nv_fatbin": fatbin(piece("80"))})
    read = read_code(MemorySource(file), "x")
    assert (read.sass, read.stored) == ((Arch(80),), {(".cask_resource", Arch(100, "f")): 1})
    assert file_to_json(read)["own_store"] == {"sections": [".cask_resource"], "sass": ["100f"], "entries": 1}
    assert compared(file, elf({".nv_fatbin": fatbin(piece("80"))}), "8.0").stored_missing == {Arch(100, "f"): 1}


def test_sections_of_static_libraries_go_by_their_first_name() -> None:
    file = library(elf({".data._ZL5cubin": zstd.compress(STORED_80)}), elf({".nv_fatbin": fatbin(piece("80"))}))
    assert read_code(MemorySource(file), "x").stored == {(".data", Arch(80)): 1}
    assert compared(file, file, "8.0").complete


def test_without_section_headers_nothing_counts_twice() -> None:
    data = zstd.compress(STORED_80, 3)
    file = elf({".data": data, ".nv_fatbin": fatbin(piece("80", "zstd"))}, stripped=True)
    read = read_code(MemorySource(file), "x")
    assert (read.entries, sum(read.stored.values())) == (1, 1)
    found = compared(file, file, "8.0")
    assert (found.kept, found.stored_kept) == (counts(_80=1), counts(_80=1))


def test_a_library_without_such_code_says_nothing_of_it() -> None:
    assert "own_store" not in file_to_json(read_code(MemorySource(made(*WHOLE)), "x"))


# --- damage


@pytest.mark.parametrize("data", [b"", b"hello", bytes(100)])
def test_only_files_with_gpu_code_are_compared(data: bytes) -> None:
    with pytest.raises(NotInspectable, match="no ELF file"):
        read_holding(MemorySource(data))


def test_damage_is_no_loss_but_an_error() -> None:
    """Half a list would be taken for the whole."""
    whole = made(*WHOLE)
    with pytest.raises(NotInspectable):
        read_holding(MemorySource(whole[: len(whole) // 2]))
    packed = made(("80",), compression="zstd")
    at = packed.index(b"\x28\xb5\x2f\xfd") + 40
    broken = packed[:at] + bytes([packed[at] ^ 0xFF]) + packed[at + 1 :]
    with pytest.raises(NotInspectable, match="cannot be unpacked"):
        compared(packed, broken, "8.0")


def test_frames_that_lie_are_passed_over() -> None:
    frame = zstd.compress(STORED_80, 3)
    for bad in (frame[:-1], frame[:20], frame[:4] + b"\xff" * 30, b"\x28\xb5\x2f\xfd", STORED_80[:63]):
        assert read_code(MemorySource(elf({".data": bad})), "x").stored == {}


def test_a_file_made_of_nothing_but_beginnings_ends_soon() -> None:
    data = b"\x28\xb5\x2f\xfd" * (MAX_TRIED + 1)
    file = library(elf({".data": data, ".nv_fatbin": fatbin(piece("80"))}), elf({".data": zstd.compress(STORED_80)}))
    assert read_code(MemorySource(file), "x").sass == (Arch(80),)
    with pytest.raises(NotInspectable, match="more places that look like GPU code"):
        read_holding(MemorySource(file))  # half of it would be taken for the whole
