"""What zstd's level and window make of an image's layers: bytes, and processor seconds to pack and to unpack.

    python bench/layers.py IMAGE... [--record]

IMAGE is in the local Docker. A setting is LEVEL or LEVEL/WINDOW, the window as a power of two (27: 128 MiB), then with
long-distance matching. `published` is what sdrun publishes (sdrun.registry.archive). gzip's figures for comparison are those of
level 6.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from pathlib import Path

import record

from sdrun.registry.archive import ZSTD_LEVEL, ZSTD_WINDOW_LOG, compressor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SETTINGS = ("3", "3/27", "10", "10/27", "12/27", "15/27", "19/27")
SLOW = ("15/27", "19/27")  # for small images only
SMALL = 100 << 20
PIECE = 1 << 20


def packed(data: bytes, setting: str) -> bytes:
    """A layer, packed."""
    if setting == "published":
        squeeze = compressor("zstd", len(data))
    elif setting == "gzip":
        squeeze = zlib.compressobj(6, wbits=31)
    else:
        level, _, window = setting.partition("/")
        options = {zstd.CompressionParameter.compression_level: int(level)}
        if window:
            options |= {zstd.CompressionParameter.window_log: int(window)}
            options |= {zstd.CompressionParameter.enable_long_distance_matching: 1}
        squeeze = zstd.ZstdCompressor(options=options)
    return b"".join([*(squeeze.compress(data[at : at + PIECE]) for at in range(0, len(data), PIECE)), squeeze.flush()])


def measured(layers: list[bytes], setting: str) -> dict[str, object]:
    """Of all layers of an image."""
    begin = time.process_time()
    small = [packed(data, setting) for data in layers]
    between = time.process_time()
    for data in small:
        _ = zlib.decompress(data, wbits=31) if setting == "gzip" else zstd.decompress(data)
    return {
        "bytes": sum(map(len, small)),
        "layers": [len(data) for data in small],
        "pack_cpu_seconds": round(between - begin, 1),
        "unpack_cpu_seconds": round(time.process_time() - between, 2),
    }


def layers_of(image: str, folder: Path) -> list[bytes]:
    """The layers of an image, unpacked."""
    archive = folder / "image.tar"
    subprocess.run(["docker", "save", "-o", archive, image], check=True)
    with tarfile.open(archive) as tar:
        files = [tar.extractfile(member) for member in tar if member.isreg() and member.name.endswith("layer.tar")]
        return [file.read() for file in files if file is not None]


def main() -> None:
    """Every image with every setting; --record merges into the results."""
    images = [word for word in sys.argv[1:] if not word.startswith("-")]
    rows: dict[str, object] = {}
    for image in images:
        with tempfile.TemporaryDirectory(prefix="sdrun-bench-") as folder:
            layers = layers_of(image, Path(folder))
        large = sum(map(len, layers)) > SMALL
        found: dict[str, object] = {"unpacked_bytes": sum(map(len, layers))}
        for setting in ("gzip", *SETTINGS, "published"):
            if not (large and setting in SLOW):
                found[setting] = measured(layers, setting)
                print(image, setting, found[setting], flush=True)
        rows[image.rpartition(":")[2]] = found
    figures = {"zstd": zstd.zstd_version, "published": f"{ZSTD_LEVEL}/{ZSTD_WINDOW_LOG}", "images": rows}
    if "--record" in sys.argv:
        record.write("layers", figures)


if __name__ == "__main__":
    main()
