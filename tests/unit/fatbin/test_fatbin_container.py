"""Containers and entries: what NVIDIA's tools wrote is read back, and what breaks the format is told."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from fatbins.files import Piece, elf, fatbin, fixture

from sdrun.fatbin import container
from sdrun.fatbin.carried import read_code
from sdrun.fatbin.container import Entry, Fault, containers, find_containers
from sdrun.fatbin.source import MemorySource

Walk = Callable[[MemorySource, int, int], Iterator[Entry | Fault]]

# What cuobjdump 13.5 lists for each, the letter f apart (it prints sm_120f as sm_120).
REAL = {
    "cu118-sm52.fatbin": [("cubin", "52", "none")],
    "cu118-lz4.fatbin": [("cubin", "52", "lz4"), ("cubin", "86", "lz4"), ("ptx", "86", "lz4")],
    "cu124-raw.fatbin": [("cubin", "89", "none"), ("cubin", "90a", "none"), ("ptx", "89", "lz4")],
    "cu130-lz4.fatbin": [("cubin", "120f", "lz4"), ("cubin", "75", "lz4")],
    "cu130-zstd.fatbin": [("cubin", "120a", "zstd"), ("cubin", "75", "zstd"), ("ptx", "120f", "zstd")],
    "cu135-concat.fatbin": [
        ("cubin", "120a", "zstd"), ("cubin", "75", "zstd"), ("cubin", "86", "zstd"), ("ptx", "120f", "zstd"),
    ],
}  # fmt: skip


def walked(data: bytes) -> tuple[list[Entry], list[Fault]]:
    items = list(containers(MemorySource(data), 0, len(data)))
    return [i for i in items if isinstance(i, Entry)], [i for i in items if isinstance(i, Fault)]


@pytest.mark.parametrize("name", REAL)
def test_reads_what_nvidias_tools_wrote(name: str) -> None:
    entries, faults = walked(fixture(name))
    assert sorted((entry.kind, str(entry.arch), entry.compression) for entry in entries) == REAL[name]
    assert faults == []


@pytest.mark.parametrize(
    ("name", "isa"), [("cu118-lz4", (7, 8)), ("cu124-raw", (8, 4)), ("cu130-zstd", (9, 0)), ("cu135-concat", (9, 5))]
)
def test_ptx_tells_its_isa(name: str, isa: tuple[int, int]) -> None:
    entries, _ = walked(fixture(f"{name}.fatbin"))
    assert {entry.version for entry in entries if entry.kind == "ptx"} == {isa}


def test_containers_follow_each_other_with_padding_between() -> None:
    data = fixture("cu118-sm52.fatbin") + bytes(24) + fixture("cu130-lz4.fatbin") + bytes(4000)
    entries, faults = walked(data)
    assert Counter(str(entry.arch) for entry in entries) == {"52": 1, "75": 1, "120f": 1}
    assert faults == []


def test_link_time_ir_is_told_apart_and_unknown_kinds_are_passed_over() -> None:
    lto = Piece("lto", 90)
    unknown = bytearray(Piece("cubin", 80).packed())
    struct.pack_into("<H", unknown, 0, 64)
    body = lto.packed() + bytes(unknown) + Piece("cubin", 75).packed()
    entries, faults = walked(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body)
    assert [(entry.kind, str(entry.arch)) for entry in entries] == [("lto", "90"), ("cubin", "75")]
    assert faults == []


def test_the_longest_true_prefix_is_read_and_the_cut_is_told() -> None:
    data = fatbin(Piece("cubin", 75), Piece("cubin", 86))
    for cut in range(17, len(data)):
        entries, faults = walked(data[:cut])
        assert len(entries) == (cut >= 16 + 128)
        assert faults, f"a cut at byte {cut} went unnoticed"


def test_bytes_between_containers_are_a_fault() -> None:
    good = fatbin(Piece("cubin", 75))
    entries, faults = walked(good + b"rubbish!" + good)
    assert len(entries) == 2
    assert len(faults) == 1


@pytest.mark.parametrize(("offset", "form", "value"), [(4, "<H", 2), (6, "<H", 8), (8, "<Q", 1 << 63)])
def test_a_nonsense_container_header_is_a_fault_and_the_next_container_is_found(offset: int, form: str, value: int) -> None:
    broken = bytearray(fatbin(Piece("cubin", 75)))
    struct.pack_into(form, broken, offset, value)
    entries, faults = walked(bytes(broken) + fatbin(Piece("cubin", 86)))
    assert "86" in [str(entry.arch) for entry in entries]
    assert faults


@pytest.mark.parametrize(("offset", "form", "value"), [(4, "<I", 0), (8, "<Q", 1 << 40), (28, "<I", 5), (28, "<I", 1 << 31)])
def test_a_nonsense_entry_is_a_fault(offset: int, form: str, value: int) -> None:
    broken = bytearray(fatbin(Piece("cubin", 75)))
    struct.pack_into(form, broken, 16 + offset, value)
    entries, faults = walked(bytes(broken))
    assert entries == []
    assert faults


def test_a_concat_group_with_more_records_than_fit_is_a_fault() -> None:
    broken = bytearray(fixture("cu135-concat.fatbin"))
    group = next(at for at in range(16, len(broken), 8) if struct.unpack_from("<HH", broken, at) == (256, 257))
    options = struct.unpack_from("<I", broken, group + 20)[0]
    assert struct.unpack_from("<I", broken, group + options)[0] == 2
    struct.pack_into("<I", broken, group + options, 0xFFFFFFFF)
    entries, faults = walked(bytes(broken))
    assert [str(entry.arch) for entry in entries] == ["120a", "120f"]
    assert "4294967295" in str(faults[0])


def test_searching_takes_a_lone_magic_number_for_data() -> None:
    magic = struct.pack("<I", 0xBA55ED50)
    program = bytes(40) + magic + bytes(60) + magic + b"\x01\0\x10\0" + bytes(16) + fatbin(Piece("cubin", 75)) + b"text" * 9
    items = list(find_containers(MemorySource(program), 0, len(program)))
    assert [str(item.arch) for item in items if isinstance(item, Entry)] == ["75"]
    assert len(items) == 1


ENTRY = Piece("cubin", 75, payload=b"").packed()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0) * 1000,
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 64 * 1000) + ENTRY * 1000,
        (struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 64) + ENTRY) * 1000,
        struct.pack("<IHHQ", 0xBA55ED50, 9, 9, 0) * 1000,
    ],
    ids=["empty containers", "one container", "many containers", "false starts"],
)
@pytest.mark.parametrize("walk", [containers, find_containers])
def test_a_made_up_file_ends_at_the_limit(walk: Walk, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_ENTRIES", 100)
    items = list(walk(MemorySource(data), 0, len(data)))
    assert len(items) <= 101
    assert "more than 100" in str(items[-1])


def test_a_list_of_numbers_without_end_is_searched_once() -> None:
    """The first thousand of each are weighed against each other; a pair for every mark and list would take minutes."""
    data = elf({".rodata": b"ARCHS\0" * 50_000 + bytes(5000) + b"860\0" * 50_000, ".nv_fatbin": fatbin(Piece("cubin", 75))})
    assert read_code(MemorySource(data), "x").engine_archs is None
