"""Tar members and packed streams, against the usual writers; and bytes that are passed over."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import time

import pytest
from fatbins.files import PACKINGS

from sdrun.fatbin import packed as packed_module
from sdrun.fatbin import tar
from sdrun.fatbin.packed import HEAD, PackedStream, packing
from sdrun.fatbin.stream import Broken, Part, ReadStream


def plain(data: bytes) -> ReadStream:
    return ReadStream(io.BytesIO(data).read)


def archive(format_: int, names: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as file:
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_standard_librarys_archives(format_: int) -> None:
    names = {"a": b"", "b/" + "c" * 90: b"1" * 511, "d/" * 60 + "e": b"2" * 512, "f": b"3" * 513}
    if format_ != tarfile.USTAR_FORMAT:
        names["g" * 300] = b"4" * 5000
    found = {member.path: member.body.read(1 << 20) for member in tar.members(plain(archive(format_, names)))}
    assert found == names


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_and_folders(format_: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as file:
        for name, kind, target in (
            ("a", tarfile.LNKTYPE, "x" * 200),
            ("b", tarfile.SYMTYPE, "../c"),
            ("d", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 0
            file.addfile(info)
    found = [(member.path, member.kind, member.link) for member in tar.members(plain(out.getvalue()))]
    assert found == [("a", "hardlink", "x" * 200), ("b", "symlink", "../c"), ("d", "folder", "")]


def signed(header: bytearray) -> bytes:
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_pax_size_overrides_the_header() -> None:
    pax = archive(tarfile.PAX_FORMAT, {"g" * 300: b""})
    record = b"13 size=1000\n"
    header = bytearray(pax[:512])
    header[124:136] = b"%011o\0" % len(record)
    data = signed(header) + record + bytes(512 - len(record)) + archive(tarfile.USTAR_FORMAT, {"a": b""})[:512] + b"7" * 1024
    assert [(member.path, member.body.read(2000)) for member in tar.members(plain(data))] == [("a", b"7" * 1000)]


def test_a_sparse_members_map_is_passed_over() -> None:
    header = bytearray(archive(tarfile.GNU_FORMAT, {"holes": b""})[:512])
    header[156:157], header[482] = b"S", 1
    header[124:136] = b"%011o\0" % 5
    more, last = bytes(504) + b"\1" + bytes(7), bytes(512)
    rest = archive(tarfile.GNU_FORMAT, {"b": b"2"})
    found = list(tar.members(plain(signed(header) + more + last + b"12345" + bytes(507) + rest)))
    assert [(member.path, member.kind) for member in found] == [("holes", "other"), ("b", "file")]
    with pytest.raises(Broken):
        list(tar.members(plain(signed(header) + more)))


def test_unread_bodies_are_passed_over() -> None:
    data = archive(tarfile.GNU_FORMAT, {"a": b"1" * 700, "b": b"2" * 700})
    assert [(member.path, member.body.peek(1)) for member in tar.members(plain(data))] == [("a", b"1"), ("b", b"2")]


def test_sizes_beyond_octal() -> None:
    header = bytearray(archive(tarfile.GNU_FORMAT, {"a": b""})[:512])
    header[124:136] = b"\x80" + (9 << 30).to_bytes(11, "big")
    member = next(tar.members(plain(signed(header))))
    assert member.body.left == 9 << 30


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:300],
        lambda data: data[:800],
        lambda data: b"x" + data[1:],
        lambda data: data[:512] + bytes(100),
        lambda data: data[:148] + b"99999999" + data[156:],
    ],
)
def test_damaged_archives(damage: object) -> None:
    data = archive(tarfile.GNU_FORMAT, {"a": b"1" * 700, "b": b"2"})
    with pytest.raises(Broken):
        list(tar.members(plain(damage(data))))  # type: ignore[operator]


def test_a_long_name_of_any_size_is_not_believed() -> None:
    header = bytearray(archive(tarfile.GNU_FORMAT, {"x" * 200: b""})[:512])
    header[124:136] = b"77777777777\0"
    with pytest.raises(Broken, match="header of 8589934591 bytes"):
        list(tar.members(plain(signed(header) + bytes(4096))))


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("./usr//bin/x", "usr/bin/x"), ("/x", "x"), ("../../x", "x"), ("a/../../b/", "b"), ("./", ""), (".", "")],
)
def test_paths_are_cleaned(path: str, cleaned: str) -> None:
    assert tar.clean(path) == cleaned


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
def test_several_members_and_padding(kind: str) -> None:
    pack = PACKINGS[kind]
    packed = pack(b"one" * 1000) + pack(b"") + pack(b"two") + bytes(100)
    assert packing(packed[:HEAD]) == kind
    unpacked = PackedStream(plain(packed), kind)
    unpacked.skip(2997)
    assert unpacked.read(100) == b"onetwo"
    assert unpacked.read(1) == b""


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
def test_more_than_one_step_of_input_and_output(kind: str) -> None:
    data = random.Random(5).randbytes(300_000) + bytes(5 << 20) + random.Random(6).randbytes(300_000)
    stream = PackedStream(plain(PACKINGS[kind](data)), kind)
    assert stream.read(len(data)) == data
    assert stream.read(1) == b""


def test_zstd_frames_without_content_are_passed_over() -> None:
    """pzstd and zstd:chunked put some between and behind frames (RFC 8878, skippable frames)."""
    empty = struct.pack("<II", 0x184D2A5E, 9) + b"something"
    packed = empty + PACKINGS["zstd"](b"one") + empty + PACKINGS["zstd"](b"two") + empty
    assert packing(packed[:HEAD]) == "zstd"
    assert PackedStream(plain(packed), "zstd").read(100) == b"onetwo"


def test_many_short_members_cost_no_more_than_their_number() -> None:
    """A megabyte of the shortest: what each leaves over is not copied as a whole for the next."""
    begin = time.perf_counter()
    assert PackedStream(plain(PACKINGS["gzip"](b"") * 50_000), "gzip").read(1) == b""
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
def test_damaged_streams(kind: str) -> None:
    packed = PACKINGS[kind](random.Random(7).randbytes(5000))
    for damaged in (packed[:-9], packed[:30], packed[:HEAD] + b"\xff" * 40):
        with pytest.raises(Broken, match=f"a {kind} stream"):
            PackedStream(plain(damaged), kind).read(1 << 20)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
def test_bombs_end(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(packed_module, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(Broken, match="GiB"):
        PackedStream(plain(PACKINGS[kind](bytes(3 << 20))), kind).skip(3 << 20)


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"BZh91A", bytes(6), b"\x1f\x8b"])
def test_what_is_not_packed(head: bytes) -> None:
    assert packing(head) is None


def test_parts_read_peek_and_skip() -> None:
    part = Part(plain(bytes(range(100))), 50)
    assert part.peek(3) == b"\x00\x01\x02"
    assert part.read(2) == b"\x00\x01"
    part.skip(10)
    assert part.peek(2) == b"\x0c\x0d"
    assert part.read(1000) == bytes(range(12, 50))
    assert (part.left, part.read(1), part.peek(1)) == (0, b"", b"")


def test_skipping_past_the_end_is_told() -> None:
    with pytest.raises(Broken):
        plain(b"12345").skip(6)


def test_headers_of_unreadable_sizes() -> None:
    header = bytearray(archive(tarfile.GNU_FORMAT, {"a": b""})[:512])
    header[124:136] = b"not a number"
    with pytest.raises(Broken, match="unreadable size"):
        list(tar.members(plain(signed(header))))
