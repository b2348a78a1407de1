"""Images that come as a tar: what `docker save`, `podman save`, buildx and `docker export` write, packed or not.

`docker save` writes manifest.json and, from 25 on, an OCI layout too; `podman save` and buildx write either. The order of
members is anybody's choice, so every layer is read when it comes by, and put in order at the end (OCI image spec, layer.md and
image-layout.md; moby's image spec v1.2). A tar that is no image counts as one layer: `docker export`, a packed root folder.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sdrun.fatbin import tar
from sdrun.fatbin.carried import FileCode, NotInspectable
from sdrun.fatbin.layers import Layer, merged, read_layer
from sdrun.fatbin.packed import HEAD, packing, unpacked
from sdrun.fatbin.stream import Broken, Stream

_MAX_JSON = 16 << 20
_INDEXES = frozenset({"manifest.json", "index.json", "oci-layout"})


@dataclass(slots=True)
class _Archive:
    """The outer tar: blobs that may be layers, documents, links between them, and its own files as if it were a layer."""

    layers: dict[str, Layer] = field(default_factory=dict)
    documents: dict[str, object] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    itself: Layer = field(default_factory=Layer)


def read_archive(stream: Stream) -> tuple[FileCode, ...]:
    """Files with GPU code in the images of a tar, packed or not, by path; with several images in it, each path begins with
    the image's platform or name. Raises NotInspectable where it is no tar, or damaged, or a layer cannot be read."""
    archive = _Archive()
    try:
        for member in tar.members(_tar(stream)):
            if member.kind == "file":
                _outer_file(member, archive)
            elif member.kind in ("symlink", "hardlink"):
                folder = posixpath.dirname(member.path) if member.kind == "symlink" else ""
                archive.aliases[member.path] = tar.clean(posixpath.join(folder, member.link))
            if member.kind != "file":
                archive.itself.add(member)
    except Broken as fault:
        raise NotInspectable(f"it cannot be read to its end: {fault}") from None
    images = list(_images(archive.documents))
    if not images:
        if archive.itself.others & _INDEXES:
            raise NotInspectable("it is a saved image whose manifest cannot be read")
        return _sorted(merged([archive.itself]))
    found: list[FileCode] = []
    for name, paths in images:
        files = merged(_layer(archive, path) for path in paths)
        found += [replace(file, path=f"{name}:{file.path}") for file in files] if len(images) > 1 else files
    return _sorted(found)


def _sorted(files: Iterable[FileCode]) -> tuple[FileCode, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _tar(stream: Stream) -> Stream:
    part = unpacked(stream)
    if not tar.is_tar(part.peek(tar.BLOCK)):
        raise NotInspectable("it is neither an ELF file nor a tar archive")
    return part


def _outer_file(member: tar.Member, archive: _Archive) -> None:
    head = member.body.peek(tar.BLOCK)
    if _is_document(member.path) and head[:1] in (b"{", b"[") and member.body.left <= _MAX_JSON:
        try:
            archive.documents[member.path] = json.loads(member.body.read(member.body.left))
        except (ValueError, RecursionError):
            archive.documents.pop(member.path, None)
        archive.itself.others.add(member.path)
    elif packing(head[:HEAD]) is not None or tar.is_tar(head) or head == bytes(tar.BLOCK):  # zeros: a layer without files
        archive.layers[member.path] = read_layer(member.body)
    else:
        archive.itself.add(member)


def _is_document(path: str) -> bool:
    return path in ("manifest.json", "index.json") or path.startswith("blobs/")


def _layer(archive: _Archive, path: str) -> Layer:
    path = tar.clean(path)
    for _ in range(8):  # docker save of 20.10 links repeated layers to their first copy
        if path in archive.layers or path not in archive.aliases:
            break
        path = archive.aliases[path]
    layer = archive.layers.get(path)
    if layer is None:
        raise NotInspectable(f"its layer {path} is missing or no tar archive")
    if layer.fault is not None:
        raise NotInspectable(f"its layer {path} cannot be read: {layer.fault}")
    return layer


def _images(documents: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    """Name and layer paths of every image in the archive, each image once."""
    manifest = documents.get("manifest.json")
    if isinstance(manifest, list):
        for number, row in enumerate(manifest):
            if isinstance(row, dict) and isinstance(row.get("Layers"), list):
                tags = row.get("RepoTags")
                name = tags[0] if isinstance(tags, list) and tags else f"image {number + 1}"
                yield str(name), [str(path) for path in row["Layers"]]
        return
    index = documents.get("index.json")
    if isinstance(index, dict):
        seen: set[str] = set()
        yield from _oci_images(index, documents, seen, depth=0)


def _oci_images(
    index: Mapping[str, object], documents: Mapping[str, object], seen: set[str], depth: int
) -> Iterator[tuple[str, list[str]]]:
    rows = index.get("manifests")
    for row in rows if isinstance(rows, list) and depth < 4 else ():
        path = _blob(row)
        document = documents.get(path)
        if path in seen or not isinstance(document, dict):
            continue
        seen.add(path)
        platform = row.get("platform")
        known = platform if isinstance(platform, dict) else {}
        if known.get("os") == "unknown":  # buildx keeps attestations beside the images
            continue
        layers = document.get("layers")
        if isinstance(layers, list):
            name = f"{known['os']}/{known.get('architecture')}" if "os" in known else f"image {len(seen)}"
            yield name, [_blob(layer) for layer in layers]
        else:
            yield from _oci_images(document, documents, seen, depth + 1)


def _blob(descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    algorithm, _, value = str(digest).partition(":")
    return f"blobs/{algorithm}/{value}"
