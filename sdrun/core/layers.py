"""Which form of a published image a container runtime can read: its layers are packed with zstd, or, beside that, with gzip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from sdrun.core.host import RuntimeFacts
from sdrun.core.index import Index, IndexImage

RuntimeVersion = tuple[int, ...]
_VERSION = re.compile(r"([0-9]+(?:\.[0-9]+)*)(?:[^0-9.].*)?")


def version_of(text: str) -> RuntimeVersion:
    """`(20, 10, 24)` for `20.10.24+dfsg1`. Raises ValueError for what does not begin with a number."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f'must be a version such as "23.0", not {text[:40]!r}')
    return tuple(map(int, match[1].split(".")))


def reads_zstd(runtime: RuntimeFacts, zstd_from: Mapping[str, RuntimeVersion]) -> bool | None:
    """Whether the runtime reads layers packed with zstd; None where that is not known. `zstd_from`: the first version of each
    runtime that does."""
    try:
        version = version_of(runtime.version)
    except ValueError:
        return None
    first = zstd_from.get(runtime.name)
    return None if first is None else version >= first


def readable(index: Index, runtime: RuntimeFacts | None, zstd_from: Mapping[str, RuntimeVersion]) -> Index:
    """The index as that runtime should see it: it is given the gzip form of an image where it may not read the other and there
    is one. Without a runtime the index as it is."""
    if runtime is None or reads_zstd(runtime, zstd_from):
        return index
    return replace(index, images=tuple(map(_gzipped, index.images)))


def _gzipped(image: IndexImage) -> IndexImage:
    if image.layers != "zstd" or image.gzip is None:
        return image
    return replace(image, image=image.gzip, size_bytes=image.gzip_bytes, layers="gzip", gzip=None, gzip_bytes=None)
