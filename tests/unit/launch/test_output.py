"""The picture's way to its place: whole or not at all."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sdrun.errors import EngineFailed, SdrunError, UsageProblem
from sdrun.launch.output import destination, private_folder, publish
from sdrun.launch.png import BadPicture, pixels_of, size_of


def picture(width: int = 64, height: int = 48, kind: str = "PNG", mode: str = "RGB") -> bytes:
    image = Image.effect_noise((width, height), 90).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_sizes() -> None:
    assert size_of(picture(64, 48)) == (64, 48)
    assert size_of(picture(80, 56, "JPEG")) == (80, 56)
    assert size_of(picture(8, 8, mode="RGBA")) == (8, 8)
    filled = picture(80, 56, "JPEG").replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1)
    assert size_of(filled) == (80, 56)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_cut_is_noticed(kind: str) -> None:
    data = picture(kind=kind)
    for length in (0, 1, 8, 20, 40, len(data) // 2, len(data) - 13, len(data) - 1):
        with pytest.raises(BadPicture):
            size_of(data[:length])


def test_damage_is_noticed() -> None:
    data = bytearray(picture())
    data[len(data) // 2] ^= 1
    with pytest.raises(BadPicture):
        size_of(bytes(data))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_bomb_is_not_unpacked() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 50_000_000)) + chunk(b"IEND", b"")
    with pytest.raises(BadPicture):
        size_of(bomb)
    huge = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    with pytest.raises(BadPicture):
        size_of(b"\x89PNG\r\n\x1a\n" + huge + chunk(b"IEND", b""))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("filtering", [0, 1, 2, 3, 4])
def test_pixels_with_every_filter(mode: str, filtering: int) -> None:
    image = Image.effect_noise((9, 7), 90).convert(mode)
    channels = len(image.getbands())
    raw = image.tobytes()
    line = 9 * channels
    rows = [raw[i : i + line] for i in range(0, len(raw), line)]
    packed = b""
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else bytes(line)
        packed += bytes([filtering]) + bytes(
            (
                value
                - predicted(
                    filtering,
                    row[i - channels] if i >= channels else 0,
                    above[i],
                    above[i - channels] if i >= channels else 0,
                )
            )
            & 255
            for i, value in enumerate(row)
        )
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", 9, 7, 8, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(data)).tobytes() == raw  # the oracle reads it as it was meant
    assert b"".join(pixels_of(data).rows) == image.convert("RGB").tobytes()


def predicted(filtering: int, left: int, up: int, corner: int) -> int:
    if filtering < 4:
        return (0, left, up, (left + up) // 2)[filtering]
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def test_names(tmp_path: Path) -> None:
    assert destination(tmp_path / "fox.png", 1, tmp_path).names == ("fox.png",)
    two = destination(tmp_path / "fox.jpg", 2, tmp_path)
    assert (two.names, two.engine_name, two.direct_name) == (("fox_1.jpg", "fox_2.jpg"), "image_%d.jpg", "fox_%d.jpg")
    assert two.written == ("image_1.jpg", "image_2.jpg")
    assert destination(tmp_path, 1, Path("/")).paths == (tmp_path / "output.png",)
    (tmp_path / "output.png").touch()
    (tmp_path / "output-2_1.png").touch()
    assert destination(None, 1, tmp_path).names == ("output-2.png",)
    assert destination(None, 2, tmp_path).names == ("output_1.png", "output_2.png")


@pytest.mark.parametrize("name", ["x", "x.gif", "x_%d.png", "a%03d.png", ".png"])
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem):
        destination(tmp_path / name, 1, tmp_path)


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for output in (tmp_path / "file" / "x.png", Path("a\0.png")):
        with pytest.raises(UsageProblem):
            destination(output, 1, tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    for output, why in (
        (tmp_path / "pipe.png", "no ordinary file"),
        (tmp_path / f"{'x' * 300}.png", "too long"),
        (tmp_path / ("d" * 300) / "x.png", "too long"),
    ):
        with pytest.raises(UsageProblem, match=why):
            destination(output, 1, tmp_path)
    with pytest.raises(UsageProblem, match="too long"):
        destination(tmp_path / f"{'y' * 250}.png", 2, tmp_path)
    two = tmp_path / "two.png"
    (tmp_path / "two_2.png").mkdir()
    with pytest.raises(UsageProblem):
        destination(two, 2, tmp_path)


def test_a_tilde_without_a_user_is_a_name(tmp_path: Path) -> None:
    assert destination(Path("~no-such-user.png"), 1, tmp_path).paths == (tmp_path / "~no-such-user.png",)


def test_published_whole_with_the_callers_mask(tmp_path: Path) -> None:
    place = destination(tmp_path / "new" / "deep" / "fox.png", 2, tmp_path)
    before = os.umask(0o027)
    try:
        with private_folder(place) as folder:
            assert folder.parent == tmp_path / "new" / "deep"
            assert folder.stat().st_mode & 0o077 == 0
            for name in place.written:
                (folder / name).write_bytes(picture())
                (folder / name).chmod(0o600)
            assert publish(place, folder, (64, 48)) == place.paths
    finally:
        os.umask(before)
    assert sorted(path.name for path in place.folder.iterdir()) == ["fox_1.png", "fox_2.png"]
    assert {path.stat().st_mode & 0o777 for path in place.paths} == {0o640}


@pytest.mark.parametrize("content", [None, b"", picture()[:-20], picture(32, 32)])
def test_nothing_is_left_of_a_failure(tmp_path: Path, content: bytes | None) -> None:
    place = destination(tmp_path / "new" / "fox.png", 2, tmp_path)

    def run() -> None:
        with private_folder(place) as folder:
            (folder / place.written[0]).write_bytes(picture())
            if content is not None:
                (folder / place.written[1]).write_bytes(content)
            publish(place, folder, (64, 48))

    with pytest.raises(EngineFailed):
        run()
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(b"old")
    place = destination(tmp_path / "fox.png", 1, tmp_path)
    with private_folder(place) as folder:
        (folder / "image.png").write_bytes(picture())
        publish(place, folder, None)
    assert size_of((tmp_path / "fox.png").read_bytes()) == (64, 48)


def test_what_another_run_took_meanwhile_is_not(tmp_path: Path) -> None:
    place = destination(None, 1, tmp_path)
    (tmp_path / "output.png").write_bytes(b"of another run")
    with private_folder(place) as folder:
        (folder / "image.png").write_bytes(picture())
        assert publish(place, folder, None) == (tmp_path / "output-2.png",)
    assert (tmp_path / "output.png").read_bytes() == b"of another run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output-2.png", "output.png"]


def test_a_folder_that_goes_away_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    place = destination(tmp_path / "fox.png", 1, tmp_path)

    def run() -> None:
        with private_folder(place) as folder:
            (folder / "image.png").write_bytes(picture())
            (tmp_path / "fox.png").mkdir()  # in the way
            publish(place, folder, None)

    with pytest.raises(SdrunError):
        run()
