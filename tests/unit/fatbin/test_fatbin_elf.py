"""Where GPU code stands in ELF files of every make."""

from __future__ import annotations

import struct

import pytest
from fatbins.files import Piece, elf, engine, fatbin, fixture, library

from sdrun.fatbin.carried import FileCode, NotInspectable, read_code
from sdrun.fatbin.source import MemorySource

CODE = fatbin(Piece("cubin", 75), Piece("ptx", 86, version=(7, 8)))


def read(data: bytes) -> FileCode:
    return read_code(MemorySource(data), "x")


@pytest.mark.parametrize("section", [".nv_fatbin", "__nv_relfatbin"])
def test_both_sections_are_read(section: str) -> None:
    code = read(elf({".text": bytes(99), section: CODE}))
    assert ([*map(str, code.sass)], [*map(str, code.ptx)], code.entries, code.faults) == (["75"], ["86"], 2, ())


def test_other_sections_are_not() -> None:
    code = read(elf({".data": CODE, ".nv_fatbin_not": CODE}))
    assert code.entries == 0
    assert code.compression is None
    assert code.engine_archs is None


def test_stripped_section_headers_are_no_hindrance() -> None:
    code = read(engine(CODE, "750,860", stripped=True))
    assert [*map(str, code.sass)] == ["75"]
    assert [*map(str, code.engine_archs or ())] == ["75", "86"]
    assert code.faults == ()


def test_a_file_of_debug_symbols_holds_no_code() -> None:
    assert read(elf({".nv_fatbin": CODE}, kind=8)) == FileCode("x")


@pytest.mark.parametrize("ident", [b"\x7fELF\x01\x01\x01", b"\x7fELF\x02\x02\x01"])
def test_32_bit_and_big_endian_files_hold_no_code(ident: bytes) -> None:
    assert read(ident + elf({".nv_fatbin": CODE})[7:]) == FileCode("x")


def test_sections_that_name_the_same_bytes_count_once() -> None:
    data = bytearray(elf({".nv_fatbin": CODE, "__nv_relfatbin": b""}))
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    first = data[table + 64 : table + 128]
    for number in range(2, count - 1):
        data[table + 64 * number : table + 64 * number + 64] = first
    assert read(bytes(data)).entries == 2


def test_section_numbers_beyond_16_bits() -> None:
    data = bytearray(elf({".nv_fatbin": CODE}))
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    struct.pack_into("<Q", data, table + 32, count)  # gABI: sh_size and sh_link of the first header
    struct.pack_into("<I", data, table + 40, count - 1)
    assert read(bytes(data)).entries == 2


def test_every_cut_of_a_program_is_told() -> None:
    whole = elf({".nv_fatbin": fixture("cu118-sm52.fatbin")})
    assert read(whole).faults == ()
    for cut in range(8, len(whole)):
        assert read(whole[:cut]).faults, f"a cut at byte {cut} went unnoticed"


def test_members_of_a_static_library() -> None:
    odd = elf({".nv_fatbin": fatbin(Piece("cubin", 90, "a"))}) + b"x"
    code = read(library(b"/  1", elf({"__nv_relfatbin": CODE}), odd, b"no elf", engine(CODE, "750,860")))
    assert ([*map(str, code.sass)], code.entries, code.faults) == (["75", "90a"], 5, ())
    assert [*map(str, code.engine_archs or ())] == ["75", "86"]


def test_a_cut_static_library_is_told() -> None:
    whole = library(elf({".nv_fatbin": CODE}), b"12345")
    for cut in (20, 67, 100, len(whole) - 3):
        assert read(whole[:cut]).faults


def test_a_bare_fatbin() -> None:
    code = read(fixture("cu118-lz4.fatbin"))
    assert ([*map(str, code.sass)], code.entries) == (["52", "86"], 3)


def test_a_bare_cubin_is_refused_because_its_letter_is_not_known() -> None:
    assert "cubin" in read(fixture("cu118-sm52.fatbin")[80:]).faults[0]


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"#!/bin/sh\n", b"PK\x03\x04", bytes(4096)])
def test_anything_else_is_not_inspectable(data: bytes) -> None:
    with pytest.raises(NotInspectable):
        read(data)
