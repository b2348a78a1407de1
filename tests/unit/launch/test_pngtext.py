"""Text in PNG files: pixels untouched, read back by others, and no file at all makes the reader fail."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sdrun.launch.png import SIGNATURE, BadPicture, pixels_of
from sdrun.launch.pngtext import TEXT_MAX, insert_text, read_texts

TEXT = 'a fox\n"quoted" — 🦊 \x1b[31m'


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(extra: bytes) -> bytes:
    data = png()
    return data[:33] + extra + data[33:]


def texts_of(data: bytes, folder: Path) -> dict[str, str]:
    path = folder / "p.png"
    path.write_bytes(data)
    return dict(read_texts(path))


def test_a_text_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    before = png(parameters="steps")
    path = tmp_path / "a.png"
    path.write_bytes(before)
    insert_text(path, "sdrun", TEXT)
    after = path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert after[:33] == before[:33]
    assert after.endswith(before[33:])
    assert pixels_of(after) == pixels_of(before)
    assert dict(read_texts(path)) == {"sdrun": TEXT, "parameters": "steps"}
    with Image.open(path) as picture:  # another program reads the same
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        assert picture.text == {"sdrun": TEXT, "parameters": "steps"}


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", SIGNATURE, SIGNATURE + bytes(25), png()[:20]])
def test_what_is_no_png_stays_as_it_is(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(BadPicture):
        insert_text(path, "sdrun", "x")
    assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (chunk(b"tEXt", b"k\0caf\xe9"), {"k": "café"}),
        (chunk(b"tEXt", b"k\0" + "é".encode()), {"k": "é"}),
        (chunk(b"zTXt", b"k\0\0" + zlib.compress(b"packed")), {"k": "packed"}),
        (chunk(b"iTXt", b"k\0\1\0en\0k\0" + zlib.compress("é".encode())), {"k": "é"}),
        (chunk(b"iTXt", b"k\0\0\0\0\0\xff"), {"k": "\ufffd"}),
        (chunk(b"tEXt", b"k\0one") + chunk(b"tEXt", b"k\0two"), {"k": "one"}),
        (chunk(b"tEXt", b"no zero"), {}),
        (chunk(b"tEXt", b"\0empty keyword"), {}),
        (chunk(b"tEXt", b"k" * 80 + b"\0long"), {}),
        (chunk(b"zTXt", b"k\0\0" + zlib.compress(b"packed")[:-3]), {}),
        (chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(TEXT_MAX + 1))), {}),  # a bomb
        (chunk(b"zTXt", b"k\0\7rest"), {}),
        (chunk(b"iTXt", b"k\0\2\0\0\0x"), {}),
        (chunk(b"iTXt", b"k\0"), {}),
        (chunk(b"tEXt", b"k\0v")[:-1] + b"?", {}),  # checksum
    ],
)
def test_every_kind_of_text(extra: bytes, expected: dict[str, str], tmp_path: Path) -> None:
    assert texts_of(with_chunk(extra), tmp_path) == expected


def test_many_texts_and_chunks_end(tmp_path: Path) -> None:
    many = b"".join(chunk(b"tEXt", b"%d\0v" % number) for number in range(1000))
    assert len(texts_of(with_chunk(many), tmp_path)) == 64
    assert texts_of(png()[:33] + struct.pack(">I4s", 2**31, b"tEXt"), tmp_path) == {}


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(min_size=1, max_size=6))
def test_any_bytes_are_read(tmp_path_factory: pytest.TempPathFactory, rest: bytes, place: int, patch: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    texts_of(SIGNATURE + rest, folder)
    data = with_chunk(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"packed" * 9)) + chunk(b"iTXt", b"k\0\0\0\0\0x"))
    place %= 150
    mutated = data[:place] + patch + data[place + len(patch) :]
    if mutated.startswith(SIGNATURE):
        texts_of(mutated, folder)
