"""The arch list of the engine, found among the constants of the host program."""

from __future__ import annotations

import pytest
from fatbins.files import Piece, elf, engine, fatbin

from sdrun.fatbin.carried import read_code
from sdrun.fatbin.source import MemorySource

CODE = fatbin(Piece("cubin", 75))


def found(constants: bytes) -> list[str] | None:
    data = elf({".rodata": constants, ".nv_fatbin": CODE})
    archs = read_code(MemorySource(data), "x").engine_archs
    return None if archs is None else [*map(str, archs)]


@pytest.mark.parametrize(
    ("text", "archs"),
    [("900", ["90"]), ("750,860", ["75", "86"]), ("1200", ["120"]), ("750,890,1200,1210", ["75", "89", "120", "121"])],
)
def test_a_list_beside_its_name(text: str, archs: list[str]) -> None:
    code = read_code(MemorySource(engine(CODE, text)), "x")
    assert [*map(str, code.engine_archs or ())] == archs


def test_a_long_list_stands_elsewhere() -> None:
    text = b"500,520,600,610,700,750,800,860,890,900"
    assert found(b"a\0ARCHS\0NO_VMM\0" + bytes(5000) + text + b"\0tail\0") == text.replace(b"0,", b" ").decode()[:-1].split()


def test_a_single_arch_within_reach_of_the_name() -> None:
    assert found(b"x\x00860\0ARCHS\0NO_VMM\0") == ["86"]


@pytest.mark.parametrize(
    "constants",
    [
        b"x\x00750,860\0y\0",  # no name: numbers of something else
        b"x\0ARCHS\0NO_VMM\0",
        b"x\0ARCHS\0" + bytes(5000) + b"\x00860\0",  # a lone number far away
        b"x\0ARCHS\0y\x00750,860\0z\x00800,900\0",  # two lists, neither beside the name
        b"x\0ARCHS\0y\x00860,750\0",  # no list of nvcc's: it sorts
        b"x\0ARCHS\0y\x00755,861\0",
    ],
)
def test_no_list(constants: bytes) -> None:
    assert found(constants) is None


def test_a_file_without_gpu_code_is_not_searched() -> None:
    data = elf({".rodata": b"\0ARCHS\x00860\0"})
    assert read_code(MemorySource(data), "x").engine_archs is None


def test_a_list_across_the_step_of_the_search() -> None:
    step = 1 << 22
    for ahead in (1, 3, 6, 9):
        assert found(bytes(step - ahead) + b"\0ARCHS\x00750,860\0") == ["75", "86"]
