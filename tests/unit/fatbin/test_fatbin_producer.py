"""Which toolkit made it, and which driver it needs."""

from __future__ import annotations

import pytest
from fatbins.files import Piece, cubin_head, elf, engine, fatbin, fixture

from sdrun.catalog.cuda import load_cuda_facts
from sdrun.core.version import CudaVersion
from sdrun.fatbin.carried import read_code
from sdrun.fatbin.report import Inspection, summed_up
from sdrun.fatbin.source import MemorySource


def inspected(*data: bytes) -> Inspection:
    files = [read_code(MemorySource(each), f"f{number}") for number, each in enumerate(data)]
    return summed_up("x", files, load_cuda_facts())


@pytest.mark.parametrize(
    ("name", "toolkit", "driver"),
    [
        ("cu118-sm52", "11.8", "450.80.02"),
        ("cu118-lz4", "11.8", "450.80.02"),
        ("cu124-raw", "12.4", "525.60.13"),
        ("cu130-lz4", "13.0", "580.65.06"),
        ("cu130-zstd", "13.0", "580.65.06"),
        ("cu135-concat", "13.5", "580.65.06"),
    ],
)
def test_what_nvidias_tools_wrote(name: str, toolkit: str, driver: str) -> None:
    inspection = inspected(fixture(f"{name}.fatbin"))
    assert (str(inspection.toolkit), str(inspection.min_driver)) == (toolkit, driver)


def test_zstd_raises_the_floor_of_major_12() -> None:
    packed = Piece("ptx", 90, compression="zstd", version=(8, 7), payload=b"x" * 16)
    inspection = inspected(fatbin(Piece("cubin", 90, payload=cubin_head(128)), packed))
    assert (str(inspection.toolkit), str(inspection.min_driver)) == ("12.8", "550.54.14")


def test_ptx_alone_needs_a_driver_as_new_as_its_toolkit() -> None:
    inspection = inspected(fatbin(Piece("ptx", 75, version=(8, 4))))
    assert (str(inspection.toolkit), str(inspection.min_driver)) == ("12.4", "550.54.14")


def test_the_newest_of_several_toolkits_counts() -> None:
    parts = [Piece("cubin", 75, payload=cubin_head(114)), Piece("cubin", 80, payload=cubin_head(123))]
    assert inspected(fatbin(*parts)).toolkit == CudaVersion(12, 3)


def test_a_cubin_tells_apart_toolkits_that_write_the_same_ptx() -> None:
    ptx = Piece("ptx", 75, version=(8, 5))
    assert inspected(fatbin(ptx)).toolkit == CudaVersion(12, 5)
    assert inspected(fatbin(ptx, Piece("cubin", 75, payload=cubin_head(126)))).toolkit == CudaVersion(12, 6)


def test_unknown_stays_unknown() -> None:
    silent = inspected(fatbin(Piece("cubin", 75)))
    assert (silent.toolkit, silent.min_driver) == (None, None)
    newer = inspected(fatbin(Piece("ptx", 75, version=(99, 0))))
    assert (newer.toolkit, newer.min_driver) == (None, None)


def test_damaged_compression_costs_only_the_toolkit() -> None:
    noise = Piece("cubin", 86, compression="zstd", payload=b"\x28\xb5\x2f\xfd" + b"\xff" * 60)
    inspection = inspected(fatbin(noise, Piece("cubin", 75, compression="lz4", payload=b"\xff" * 64)))
    assert [*map(str, inspection.sass)] == ["75", "86"]
    assert inspection.toolkit is None


def test_the_engine_speaks_for_the_image_and_every_file_for_the_driver() -> None:
    program = engine(fixture("cu118-lz4.fatbin"), "520,860")
    inspection = inspected(program, elf({".nv_fatbin": fixture("cu130-zstd.fatbin")}))
    assert [*map(str, inspection.sass)] == ["52", "86"]
    assert str(inspection.toolkit) == "11.8"
    assert str(inspection.min_driver) == "580.65.06"


def test_no_code_no_demands() -> None:
    assert inspected(elf({".text": b"x"})).to_json() == {
        "schema": "sdrun.inspect/v1",
        "files": [
            {"path": "f0", "sass": [], "ptx": [], "entries": 0, "fatbin_compression": None, "engine_archs": None},
        ],
        "sass": [],
        "ptx": [],
        "toolkit": None,
        "min_driver": None,
    }


def test_the_document() -> None:
    assert inspected(engine(fixture("cu124-raw.fatbin"), "890,900")).to_json() == {
        "schema": "sdrun.inspect/v1",
        "files": [
            {
                "path": "f0", "sass": ["89", "90a"], "ptx": ["89"], "entries": 3, "fatbin_compression": "lz4",
                "engine_archs": ["89", "90"],
            },
        ],
        "sass": ["89", "90a"],
        "ptx": ["89"],
        "toolkit": "12.4",
        "min_driver": "525.60.13",
    }  # fmt: skip
