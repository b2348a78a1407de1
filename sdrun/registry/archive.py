"""An image as a container runtime saves it (`docker save`, `podman save`), made ready for a registry: compressed layers, the
configuration byte for byte, a manifest. The same image gives the same manifest."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sdrun.core.index import Layers
from sdrun.core.oci import IMAGE_CONFIG, IMAGE_MANIFEST, Published, annotations_of
from sdrun.core.platform import parse_platform
from sdrun.errors import VerificationFailed
from sdrun.registry.gzipping import GzipCompressor
from sdrun.registry.upload import LocalBlob

Compression = Layers
LAYER_TYPES: Mapping[Compression, str] = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
ZSTD_LEVEL = 10  # docs/publishing.md has the measurements
# The largest window that every decoder takes without being asked (libzstd's limit; Go's takes 512 MiB): programs of one image
# are nearly the same bytes, megabytes apart. A smaller layer has a smaller one, which is what unpacking takes of memory.
ZSTD_WINDOW_LOG, _SMALLEST_WINDOW_LOG = 27, 20
_PIECE = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Packed:
    """An image ready to be pushed. `diff_ids` are the digests of the layers unpacked, in order; `gzip`: digest and bytes to
    pull of the same image with gzip layers, where this one has others and that is published, too."""

    config: LocalBlob
    layers: tuple[LocalBlob, ...]
    labels: Mapping[str, str]
    platform: str
    diff_ids: tuple[str, ...] = ()
    compression: Compression = "gzip"
    gzip: tuple[str, int] | None = None

    @property
    def pull_bytes(self) -> int:
        """What a pull transfers."""
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def manifest(self) -> bytes:
        """The manifest, with the image's facts as annotations."""
        document = {
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "config": self.config.descriptor(),
            "layers": [layer.descriptor() for layer in self.layers],
            "annotations": self._annotations,
        }
        return as_bytes(document)

    @property
    def _annotations(self) -> dict[str, str]:
        return annotations_of(self.labels, self.pull_bytes, self.compression, self.gzip)

    @property
    def published(self) -> Published:
        """What an index says of it."""
        body = self.manifest
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        return Published(digest, len(body), self.platform, self._annotations)


def as_bytes(document: Mapping[str, object]) -> bytes:
    """A document as it is stored: one form, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pack(
    archive: Path,
    folder: Path,
    compression: Compression,
    known: Callable[[str], LocalBlob | None] = lambda diff_id: None,
    told: Callable[[int], None] = lambda count: None,
) -> Packed:
    """The one image in `archive`; compressed layers are written into `folder`. `known` names the compressed form of a layer
    that need not be made again; `told` hears of the bytes read. Raises VerificationFailed (`image-differs`) where the archive
    is not what its configuration says."""
    try:
        with tarfile.open(archive) as tar:
            config, paths = _documents(tar)
            document = json.loads(config)
            diff_ids = [str(digest) for digest in document["rootfs"]["diff_ids"]]
            if len(diff_ids) != len(paths):
                raise _damaged(f"{len(paths)} layers where its configuration names {len(diff_ids)}")
            layers = [
                known(diff_id) or _compressed(tar, path, diff_id, folder, compression, told)
                for path, diff_id in zip(paths, diff_ids, strict=True)
            ]
            platform = parse_platform(f"{document['os']}/{document['architecture']}{_variant(document)}")
            labels = dict((document.get("config") or {}).get("Labels") or {})
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error) as fault:
        raise _damaged(str(fault)) from None
    return Packed(LocalBlob.of(config, IMAGE_CONFIG), tuple(layers), labels, platform, tuple(diff_ids), compression)


def content_of(archive: Path) -> str:
    """The digest of the configuration of the image in `archive`: what it is, however its layers will be compressed. Raises
    VerificationFailed (`image-differs`) where it is no image."""
    try:
        with tarfile.open(archive) as tar:
            return LocalBlob.of(_documents(tar)[0], IMAGE_CONFIG).digest
    except (tarfile.TarError, ValueError, KeyError, TypeError) as fault:
        raise _damaged(str(fault)) from None


def _variant(document: Mapping[str, Any]) -> str:
    return f"/{document['variant']}" if document.get("variant") else ""


def _damaged(why: str) -> VerificationFailed:
    return VerificationFailed(
        f"what the container runtime saved is no whole image: {why}", "Build the image again.", id="image-differs"
    )


def _documents(tar: tarfile.TarFile) -> tuple[bytes, list[str]]:
    """The configuration and the members that are layers, by manifest.json, which Docker and Podman both write."""
    (row,) = json.loads(_member(tar, "manifest.json"))
    return _member(tar, row["Config"]), [str(path) for path in row["Layers"]]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    with _opened(tar, name) as file:
        return file.read(_PIECE * 8)


@contextmanager
def _opened(tar: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    file = tar.extractfile(name)  # follows the links that older versions of Docker write for equal layers
    if file is None:
        raise _damaged(f"{name} is no file")
    with file:
        yield file


def _compressed(
    tar: tarfile.TarFile, path: str, diff_id: str, folder: Path, compression: Compression, told: Callable[[int], None]
) -> LocalBlob:
    out = folder / f"layer-{diff_id.removeprefix('sha256:')[:32]}"
    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    with _opened(tar, path) as file, out.open("wb") as target:
        squeeze = compressor(compression, _plain_size(file))
        for piece in _plain(file):
            plain.update(piece)
            told(len(piece))
            size += _write(target, packed, squeeze.compress(piece))
        size += _write(target, packed, squeeze.flush())
    if f"sha256:{plain.hexdigest()}" != diff_id:
        out.unlink()
        raise _damaged(f"a layer is not the one that its configuration names ({diff_id[:19]})")
    return LocalBlob(f"sha256:{packed.hexdigest()}", size, LAYER_TYPES[compression], out)


def _write(target: IO[bytes], digest: Any, data: bytes) -> int:
    digest.update(data)
    target.write(data)
    return len(data)


def _plain(file: IO[bytes]) -> Iterator[bytes]:
    """The layer unpacked: runtimes that keep images as they were pulled save them compressed."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(_GZIP):
        unpack = zlib.decompressobj(31)
        while piece := file.read(_PIECE):
            yield unpack.decompress(piece)
        yield unpack.flush()
        return
    if head == _ZSTD:
        with _zstd().open(file) as unpacked:
            while piece := unpacked.read(_PIECE):
                yield piece
        return
    while piece := file.read(_PIECE):
        yield piece


def _plain_size(file: IO[bytes]) -> int | None:
    """Bytes of the layer unpacked, None where the runtime keeps it packed."""
    head = file.read(4)
    size = file.seek(0, 2)
    file.seek(0)
    return None if head.startswith((_GZIP, _ZSTD)) else size


def compressor(compression: Compression, size: int | None = None) -> Any:
    """An object with `compress` and `flush` for `size` bytes (None: not known). Neither form carries a date or a name: the same
    bytes give the same blob."""
    if compression == "gzip":
        return GzipCompressor()
    zstd = _zstd()
    window = ZSTD_WINDOW_LOG if size is None else min(ZSTD_WINDOW_LOG, max(_SMALLEST_WINDOW_LOG, size.bit_length()))
    parameters = zstd.CompressionParameter
    return zstd.ZstdCompressor(
        options={
            parameters.compression_level: ZSTD_LEVEL,
            parameters.window_log: window,
            parameters.enable_long_distance_matching: 1,
        }
    )


def _zstd() -> Any:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
