"""What a pull of an image would move: weighed by samples where a layer is large."""

from __future__ import annotations

import io
import random
import tarfile
import zlib
from pathlib import Path

import pytest
from fatbins.files import PACKINGS, docker_archive, layer

from sdrun.build import rootfs
from sdrun.build.rootfs import open_rootfs
from sdrun.errors import VerificationFailed


def content(megabytes: int) -> bytes:
    """Runs of noise and of words, of uneven lengths: a program's sections differ as much."""
    draw, parts, size = random.Random(3), list[bytes](), 0
    words = [draw.randbytes(4) for _ in range(500)]
    while size < megabytes << 20:
        length = draw.randrange(100_000, 1_500_000)
        parts.append(draw.randbytes(length) if draw.random() < 0.5 else b"".join(draw.choices(words, k=length // 4)))
        size += len(parts[-1])
    return b"".join(parts)


@pytest.fixture(scope="module")
def large() -> bytes:
    return content(48)


def weighed(save_image, data: bytes) -> int:
    with open_rootfs(save_image({"opt/data": data})) as opened:
        return opened.transfer_bytes


def packed(data: bytes) -> int:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("opt/data")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return len(zlib.compress(out.getvalue(), wbits=31))


def test_a_large_layer_is_sampled_and_close(save_image, large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "_SAMPLE", 64 << 10)  # as many samples as of a layer of several hundred megabytes
    monkeypatch.setattr(rootfs, "_SAMPLE_EVERY", 1 << 20)
    assert abs(weighed(save_image, large) / packed(large) - 1) < 0.1


def test_a_small_layer_is_packed_whole(save_image, large: bytes) -> None:
    assert abs(weighed(save_image, large[: 8 << 20]) / packed(large[: 8 << 20]) - 1) < 0.002


def test_a_layer_that_is_packed_counts_as_it_is(tmp_path: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with tarfile.open(tmp_path / "image.tar", "w") as outer:
        for name, data in (
            ("l.tar", layer.getvalue()),
            ("c.json", b"{}"),
            ("manifest.json", b'[{"Config": "c.json", "Layers": ["l.tar"]}]'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            outer.addfile(info, io.BytesIO(data))
    with open_rootfs(tmp_path / "image.tar") as opened:
        assert opened.transfer_bytes == len(layer.getvalue())


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
def test_layers_as_runtimes_keep_them(tmp_path: Path, packing: str) -> None:
    """Docker with containerd's image store saves layers as they were pulled."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive([PACKINGS[packing](layer({"opt/data": b"hello", "opt/more": bytes(5000)}))]))
    with open_rootfs(archive) as opened:
        assert {path for path, _ in opened.files()} == {"opt/data", "opt/more"}
        assert opened.open("opt/data").read() == b"hello"
        assert 0 < opened.transfer_bytes < 1000


def test_a_zstd_layer_that_is_cut_off(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive([PACKINGS["zstd"](layer({"opt/data": random.Random(1).randbytes(9000)}))[:-500]]))
    with pytest.raises(VerificationFailed, match="not an image archive"), open_rootfs(archive):
        pass
