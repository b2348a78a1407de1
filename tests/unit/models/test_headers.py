"""Header checks: whole files pass, every cut is seen, and no bytes at all make the reader fail otherwise than by Damaged."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.models.gguf import GgmlType, Tensor, encode
from sdrun.models.headers import Damaged, check

GGUF = encode(
    [Tensor("a", GgmlType.F16, (4, 2), bytes(16)), Tensor("b", GgmlType.Q4_0, (32, 4), bytes(72))], {"general.name": "two"}
)
GGUF_END = len(GGUF) - (-72 % 32)  # padding after the last tensor may be missing


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SAFETENSORS = safetensors(
    {"__metadata__": {"format": "pt"}, "a": {"dtype": "F16", "shape": [2, 4], "data_offsets": [0, 16]}}, bytes(16)
)


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(300))
    return buffer.getvalue()


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def gguf(*entries: bytes, version: int = 3, kind: int = 0, dimensions: tuple[int, ...] = (4,), data: int = 16) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, 1, len(entries)) + b"".join(entries)
    head += struct.pack("<Q", 1) + b"t" + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    head += struct.pack("<IQ", kind, 0)
    return head + bytes(-len(head) % 32) + bytes(data)


def verdict(data: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return check(Path(file.name))


def test_whole_files() -> None:
    assert verdict(GGUF) == "gguf"
    assert verdict(GGUF[:GGUF_END]) == "gguf"
    assert verdict(SAFETENSORS) == "safetensors"
    assert verdict(checkpoint()) == "checkpoint"
    assert verdict(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.more") == "checkpoint"


def test_metadata_of_every_type() -> None:
    strings = struct.pack("<IQ", 8, 2) + struct.pack("<Q", 3) + b"abc" + struct.pack("<Q", 0)
    nested = struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 5) + bytes(5)
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    entries = [entry(b"k", kind, bytes(size)) for kind, size in sizes.items()]
    assert verdict(gguf(*entries, entry(b"s", 9, strings), entry(b"n", 9, nested))) == "gguf"


def test_alignment_moves_the_data() -> None:
    aligned = entry(b"general.alignment", 4, struct.pack("<I", 4096))
    with pytest.raises(Damaged, match="4112"):
        verdict(gguf(aligned))
    assert verdict(gguf(aligned).ljust(4112, b"\0")) == "gguf"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "starts like no"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n  <html><body>", "web page"),
        (b"GGUF", "ends within its header"),
        (gguf(version=1), "version is 1"),
        (gguf(version=0x03000000), "version is 50331648"),  # big-endian
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "can hold"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**63), "can hold"),
        (gguf(entry(b"k", 8, struct.pack("<Q", 2**64 - 1))), "can hold"),
        (gguf(entry(b"k", 9, struct.pack("<IQ", 0, 2**62))), "can hold"),
        (gguf(entry(b"k", 9, struct.pack("<IQ", 9, 1) * 9)), "unknown type 9"),
        (gguf(entry(b"k", 77, b"")), "unknown type 77"),
        (gguf(entry(b"general.alignment", 4, struct.pack("<I", 0))), "alignment is 0"),
        (gguf(entry(b"general.alignment", 4, struct.pack("<I", 48))), "alignment is 48"),
        (gguf(dimensions=(1,) * 9), "9 dimensions"),
        (gguf(dimensions=(2**32, 2**32)), "its header tells of"),
        (safetensors({}), "no tensors"),
        (safetensors({"__metadata__": {}}), "no tensors"),
        (safetensors({"a": {"dtype": "F16", "shape": [8], "data_offsets": [0, 16]}}, bytes(15)), "bytes of the"),
        (safetensors({"a": {"data_offsets": [0, "16"]}}), "cannot be read"),
        (safetensors({"a": {"data_offsets": [16, 0]}}), "cannot be read"),
        (safetensors({"a": []}), "cannot be read"),
        (safetensors(b'{"a":' + b"[" * 100_000), "cannot be read"),
        (safetensors(b"{\xff}"), "cannot be read"),
        (struct.pack("<Q", 1000) + b"{}", "ends within its header"),
        (struct.pack("<Q", 2**40) + b"{}", "starts like no"),
        (checkpoint()[:200], "end is missing"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(Damaged, match=reason):
        verdict(data)


@given(st.integers(0, GGUF_END - 1))
def test_a_cut_gguf_is_seen(length: int) -> None:
    with pytest.raises(Damaged):
        verdict(GGUF[:length])


@given(st.integers(0, len(SAFETENSORS) - 1))
def test_a_cut_safetensors_is_seen(length: int) -> None:
    with pytest.raises(Damaged):
        verdict(SAFETENSORS[:length])


@given(st.integers(0, len(checkpoint()) - 1))
def test_a_cut_checkpoint_is_seen(length: int) -> None:
    with pytest.raises(Damaged):
        verdict(checkpoint()[:length])


STARTS = st.sampled_from([b"", b"GGUF", GGUF[:24], GGUF[:60], b"PK\x03\x04", struct.pack("<Q", 40) + b"{", SAFETENSORS[:20]])


@given(STARTS, st.binary(max_size=300))
def test_arbitrary_bytes_are_judged(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(Damaged):
        assert verdict(start + rest) in ("gguf", "safetensors", "checkpoint")


@given(st.sampled_from([GGUF, SAFETENSORS, checkpoint()]), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_overwritten_bytes_are_judged(data: bytes, place: int, patch: bytes) -> None:
    place %= len(data)
    with contextlib.suppress(Damaged):
        assert verdict(data[:place] + patch + data[place + len(patch) :]) in ("gguf", "safetensors", "checkpoint")


def test_a_lying_length_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            verdict(b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**40) + bytes(64))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
