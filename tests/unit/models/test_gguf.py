"""The GGUF writer: the layout byte by byte, and files that appear whole or not at all."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from sdrun.models.gguf import GgmlType, Tensor, encode, write_atomically


def test_layout() -> None:
    data = encode(
        [Tensor("a", GgmlType.F32, (3,), struct.pack("<3f", 1, 2, 3)), Tensor("bb", GgmlType.Q4_0, (32, 2), bytes(range(36)))],
        {"general.name": "n"},
    )
    expected = b"GGUF" + struct.pack("<IQQ", 3, 2, 1)
    expected += struct.pack("<Q", 12) + b"general.name" + struct.pack("<I", 8) + struct.pack("<Q", 1) + b"n"
    expected += struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 3, 0, 0)
    expected += struct.pack("<Q", 2) + b"bb" + struct.pack("<IQQIQ", 2, 32, 2, 2, 32)  # 12 bytes of `a` take a place of 32
    expected += bytes(-len(expected) % 32)
    expected += struct.pack("<3f", 1, 2, 3) + bytes(20) + bytes(range(36)) + bytes(28)
    assert data == expected


@pytest.mark.parametrize(
    ("kind", "dimensions", "size"),
    [(GgmlType.F32, (3,), 11), (GgmlType.F16, (2, 2), 9), (GgmlType.Q4_0, (16, 2), 18), (GgmlType.Q4_0, (32,), 17)],
)
def test_data_must_be_as_long_as_the_dimensions_say(kind: GgmlType, dimensions: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match="bytes are not"):
        Tensor("t", kind, dimensions, bytes(size))


def test_a_name_that_the_engine_would_cut_is_refused() -> None:
    Tensor("n" * 63, GgmlType.F32, (1,), bytes(4))
    with pytest.raises(ValueError, match="longer than 63"):
        Tensor("n" * 64, GgmlType.F32, (1,), bytes(4))


def test_written_file_is_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"abc")
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def failing(descriptor: int) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(type(fault)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
