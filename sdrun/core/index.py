"""The index, schema `sdrun.index/v1`: the published images with what each one really contains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

from sdrun.core.capability import Arch
from sdrun.core.decode import Fields, Malformed, check, describe, parse_at, printable
from sdrun.core.platform import parse_platform
from sdrun.core.version import CudaVersion

SCHEMA = "sdrun.index/v1"
Compression = Literal["none", "lz4", "zstd"]
Layers = Literal["gzip", "zstd"]
LAYERS = ("gzip", "zstd")
COMPRESSIONS = ("none", "lz4", "zstd")  # from the weakest demand on the driver to the strictest


@dataclass(frozen=True, slots=True)
class IndexImage:
    """One published image. `sass` and `ptx` were read from the finished binary and are sorted by number, then suffix;
    `toolkit` is None for an image without CUDA code; `size_bytes` is what a pull transfers, where known. `layers`: how its
    layers are packed, where known; `gzip`: the same image with layers packed by gzip, for container runtimes that read no zstd,
    and `gzip_bytes` the size of its pull. These say how an image travels, not what it is, so they make no rows different."""

    target: str
    image: str
    platform: str
    toolkit: CudaVersion | None
    sass: tuple[Arch, ...] = ()
    ptx: tuple[Arch, ...] = ()
    fatbin_compression: Compression | None = None
    tag: str | None = None
    size_bytes: int | None = None
    layers: Layers | None = field(default=None, compare=False)
    gzip: str | None = field(default=None, compare=False)
    gzip_bytes: int | None = field(default=None, compare=False)

    @property
    def is_cpu(self) -> bool:
        """True for an image that holds no CUDA code at all."""
        return self.toolkit is None


@dataclass(frozen=True, slots=True)
class Index:
    """The images of one engine revision. `published`: others can pull them; False for those of this machine's own store."""

    engine: str
    images: tuple[IndexImage, ...]
    published: bool = True

    def __hash__(self) -> int:
        """Cheap, so that answers can be remembered by index; equal indexes have equal hashes."""
        return hash((self.engine, len(self.images)))


def from_json(document: object) -> Index:
    """Index from a parsed JSON document; raises Malformed naming the key."""
    top = Fields(document)
    if (schema := top.get("schema", str)) != SCHEMA:
        raise Malformed("schema", f"must be {SCHEMA!r}, not {schema[:40]!r}")
    return Index(top.text("engine"), tuple(_image(Fields(value, path)) for path, value in top.items("images")))


def _image(row: Fields) -> IndexImage:
    compression = row.find("fatbin_compression", str)
    if compression is not None and compression not in COMPRESSIONS:
        raise Malformed(row.key("fatbin_compression"), f"must be one of {', '.join(COMPRESSIONS)}, not {compression[:40]!r}")
    toolkit = row.find_parsed("toolkit", CudaVersion.parse)
    sass, ptx = _archs(row, "sass"), _archs(row, "ptx")
    if toolkit is None and (sass or ptx):
        raise Malformed(row.key("toolkit"), "is null although the image holds CUDA code")
    layers = row.find("layers", str)
    if layers is not None and layers not in LAYERS:
        raise Malformed(row.key("layers"), f"must be one of {', '.join(LAYERS)}, not {layers[:40]!r}")
    return IndexImage(
        target=row.text("target"),
        image=row.text("image"),
        platform=row.parse("platform", parse_platform),
        toolkit=toolkit,
        sass=sass,
        ptx=ptx,
        fatbin_compression=cast("Compression | None", compression),
        tag=row.find_parsed("tag", printable),
        size_bytes=_size(row, "size_bytes"),
        layers=cast("Layers | None", layers),
        gzip=row.find_parsed("gzip", printable),
        gzip_bytes=_size(row, "gzip_bytes"),
    )


def _size(row: Fields, name: str) -> int | None:
    size = row.find(name, int)
    if size is not None and size < 0:
        raise Malformed(row.key(name), f"must not be negative, is {describe(size)}")
    return size


def _archs(row: Fields, name: str) -> tuple[Arch, ...]:
    texts = [(path, check(value, str, path)) for path, value in row.items(name, optional=True)]
    return tuple(sorted({parse_at(Arch.parse, text, path) for path, text in texts}))


def image_to_json(image: IndexImage) -> dict[str, object]:
    """One row as it stands in the index document."""
    row: dict[str, object] = {
        "target": image.target,
        "image": image.image,
        "tag": image.tag,
        "platform": image.platform,
        "toolkit": str(image.toolkit) if image.toolkit else None,
        "sass": [str(arch) for arch in image.sass],
        "ptx": [str(arch) for arch in image.ptx],
        "fatbin_compression": image.fatbin_compression,
        "size_bytes": image.size_bytes,
        "layers": image.layers,
        "gzip": image.gzip,
        "gzip_bytes": image.gzip_bytes,
    }
    return {key: value for key, value in row.items() if value is not None or key in ("toolkit", "fatbin_compression")}


def to_json(index: Index) -> dict[str, object]:
    """The document that `from_json` reads back to an equal value."""
    return {"schema": SCHEMA, "engine": index.engine, "images": [image_to_json(image) for image in index.images]}
