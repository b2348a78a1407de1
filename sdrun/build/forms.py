"""The forms that one image is published in: the same configuration and content, layers packed with zstd or with gzip."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sdrun.core.decode import Fields
from sdrun.core.reference import is_digest
from sdrun.errors import VerificationFailed
from sdrun.registry.archive import LAYER_TYPES, Compression, Packed, pack
from sdrun.registry.client import Manifest, Registry
from sdrun.registry.pushing import push
from sdrun.registry.upload import LocalBlob
from sdrun.resources import cache_root


def push_forms(
    archive: Path,
    folder: Path,
    registry: Registry,
    forms: Sequence[Compression],
    told: Callable[[int], None] = lambda count: None,
    lap: Callable[[str], None] = lambda name: None,
) -> tuple[Manifest, int]:
    """Pushes every form, the one that an index names last, for its manifest names the other; that manifest, and the bytes that
    were sent for all. Compressed layers are written into `folder`; `told` hears of bytes that were sent, `lap` of each step."""
    gzip: tuple[str, int] | None = None
    sent = 0
    for form in reversed(forms):
        memory = _Layers(registry, form)
        with tempfile.TemporaryDirectory(dir=folder) as layers:
            packed = replace(pack(archive, Path(layers), form, memory.known), gzip=gzip)
            memory.keep(packed)
            lap(f"compress_{form}")
            pushed = push(registry, packed, told=told)
            lap(f"push_{form}")
        gzip, sent = (pushed.manifest.digest, packed.pull_bytes), sent + pushed.sent
    return pushed.manifest, sent


def push_again(
    archive: Path,
    folder: Path,
    registry: Registry,
    digest: str,
    told: Callable[[int], None] = lambda count: None,
    lap: Callable[[str], None] = lambda name: None,
) -> int:
    """Pushes the gzip form, which a published manifest names by `digest`, where the registry has lost it; the bytes that were
    sent. Raises VerificationFailed (`image-differs`) where packing the same layers now gives another."""
    manifest, sent = push_forms(archive, folder, registry, ("gzip",), told, lap)
    if manifest.digest != digest:
        raise VerificationFailed(
            f"{registry.repository.at(digest)}, the gzip form of an image that is published, is gone, and packed anew it is "
            f"another ({manifest.digest[:19]}...)",
            "Remove the image's tag from the registry and publish it again.",
            id="image-differs",
        )
    return sent


class _Layers:
    """Which compressed layer stands for which unpacked one, from earlier pushes: a layer that the registry has is not
    compressed again only to find that out."""

    def __init__(self, registry: Registry, compression: Compression) -> None:
        self._registry = registry
        self._compression = compression
        self._folder = cache_root() / "registry" / "layers"

    def known(self, diff_id: str) -> LocalBlob | None:
        """The compressed layer, if the registry has it."""
        try:
            row = Fields(json.loads(self._path(diff_id).read_text(encoding="utf-8")))
            blob = LocalBlob(row.get("digest", str), row.get("size", int), LAYER_TYPES[self._compression])
        except (OSError, ValueError):
            return None
        return blob if is_digest(blob.digest) and self._registry.has_blob(blob.digest) else None

    def keep(self, image: Packed) -> None:
        """Remembers the layers of an image."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for diff_id, blob in zip(image.diff_ids, image.layers, strict=True):
            path = self._path(diff_id)
            temporary = path.with_name(f"{path.name}.{os.getpid()}")
            temporary.write_text(json.dumps({"digest": blob.digest, "size": blob.size}), encoding="utf-8")
            temporary.replace(path)

    def _path(self, diff_id: str) -> Path:
        return self._folder / f"{diff_id.removeprefix('sha256:')}-{self._compression}.json"
