"""The two decompressors, against what the real compressors wrote."""

from __future__ import annotations

import random

import pytest
from fatbins.files import FIXTURES, fixture

from sdrun.fatbin import lz4, zstd
from sdrun.fatbin.container import Entry, containers
from sdrun.fatbin.source import MemorySource

SHEEP = b"".join(b"%d sheep, %d goats\n" % (i * i, i % 7) for i in range(400))


@pytest.mark.parametrize("level", [1, 3, 19])
def test_zstd_frames(level: int) -> None:
    assert zstd.decompress((FIXTURES / f"zstd-{level}.zst").read_bytes(), 1 << 20) == SHEEP


def test_a_zstd_frame_of_stored_bytes() -> None:
    assert zstd.decompress((FIXTURES / "zstd-stored.zst").read_bytes(), 1 << 20) == random.Random(1).randbytes(1000)


def test_zstd_blocks_that_use_each_others_tables() -> None:
    assert zstd.decompress((FIXTURES / "zstd-ab.zst").read_bytes(), 1 << 20) == b"ab" * 200_000
    rare = bytes(random.Random(2).choices(b"abc", (96, 3, 1), k=200_000))
    assert zstd.decompress((FIXTURES / "zstd-rare.zst").read_bytes(), 1 << 20) == rare


@pytest.mark.parametrize("name", ["cu118-lz4", "cu124-raw", "cu130-lz4", "cu130-zstd"])
def test_nvidias_entries_unpack_to_their_stated_size(name: str) -> None:
    data = fixture(f"{name}.fatbin")
    packed = [e for e in containers(MemorySource(data), 0, len(data)) if isinstance(e, Entry) and e.compression != "none"]
    assert packed
    for entry in packed:
        unpack = lz4.decompress if entry.compression == "lz4" else zstd.decompress
        content = unpack(data[entry.offset : entry.offset + entry.stored], 1 << 20)
        assert len(content) == entry.size
        assert content.startswith(b"\x7fELF") if entry.kind == "cubin" else b".visible .entry scale(" in content


def test_every_cut_of_a_zstd_frame_is_corrupt_or_short() -> None:
    frame = (FIXTURES / "zstd-19.zst").read_bytes()
    for cut in range(len(frame)):
        with pytest.raises(lz4.Corrupt):
            zstd.decompress(frame[:cut], 1 << 20)


def test_output_is_bounded() -> None:
    block = bytes([0b010 | 0, 0, 0b10000])  # an RLE block of 131,072 bytes, not the last
    bomb = zstd.MAGIC + bytes([0x00, 0x58]) + (block + b"a") * 1000
    assert len(zstd.decompress(bomb, 1 << 18)) <= (1 << 18) + (1 << 17)
    assert len(lz4.decompress(b"\x1fa\x01\x00" + b"\xff" * 100_000 + b"\x00", 5000)) == 5000


@pytest.mark.parametrize("block", [b"\x10a\x05\x00", b"\x10a\x00\x00"])
def test_lz4_matches_must_point_at_what_was_written(block: bytes) -> None:
    with pytest.raises(lz4.Corrupt):
        lz4.decompress(block, 100)


def test_lz4_matches_may_overlap_themselves() -> None:
    assert lz4.decompress(b"\x36abc\x03\x00\x10d", 100) == b"abcabcabcabcad"[:13] + b"d"
