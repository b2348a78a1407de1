"""The GPU code in an image that comes as a tar: every layer's files, later layers winning, whiteouts respected.

`docker save` writes manifest.json and, from 25 on, an OCI layout too; `podman save` and buildx write either. The order of
members is anybody's choice, so every layer is read when it comes by, and put in order at the end (OCI image spec, layer.md and
image-layout.md; moby's image spec v1.2). A tar that is no image counts as one layer: `docker export`, a packed root folder.
"""

from __future__ import annotations

import json
import posixpath
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sdrun.fatbin import tar
from sdrun.fatbin.carried import FileCode, NotInspectable, can_hold_code, read_code
from sdrun.fatbin.source import FileSource, MemorySource
from sdrun.fatbin.stream import Broken, GzipStream, Part, Stream

GZIP = b"\x1f\x8b\x08"
ZSTD = b"\x28\xb5\x2f\xfd"
_IN_MEMORY = 16 << 20
_MAX_FILE = 16 << 30  # a file of a layer that has to be put on disk to be read
_MAX_JSON = 16 << 20
_INDEXES = frozenset({"manifest.json", "index.json", "oci-layout"})
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass(slots=True)
class Layer:
    """What one layer adds and hides. `code`: files with GPU code or damage; `others`: paths that hide a lower layer's file and
    carry no code; `gone`: whiteouts; `opaque`: folders whose lower content is hidden; `fault`: it could not be read."""

    code: dict[str, FileCode] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    fault: str | None = None


@dataclass(slots=True)
class _Archive:
    """The outer tar: blobs that may be layers, documents, links between them, and its own files as if it were a layer."""

    layers: dict[str, Layer] = field(default_factory=dict)
    documents: dict[str, object] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    itself: Layer = field(default_factory=Layer)


def read_archive(stream: Stream) -> tuple[FileCode, ...]:
    """Files with GPU code in the images of a tar, gzip-packed or not, by path; with several images in it, each path begins with
    the image's platform or name. Raises NotInspectable where it is no tar, or damaged, or a layer cannot be read."""
    archive = _Archive()
    try:
        for member in tar.members(_unpacked(stream)):
            if member.kind == "file":
                _outer_file(member, archive)
            elif member.kind in ("symlink", "hardlink"):
                folder = posixpath.dirname(member.path) if member.kind == "symlink" else ""
                archive.aliases[member.path] = tar.clean(posixpath.join(folder, member.link))
            if member.kind != "file":
                _add(archive.itself, member)
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


def _unpacked(stream: Stream) -> Stream:
    part = Part(stream, 1 << 62)
    head = part.peek(tar.BLOCK)
    if head.startswith(GZIP):
        packed: Stream = GzipStream(part)
        part = Part(packed, 1 << 62)
        head = part.peek(tar.BLOCK)
    if not tar.is_tar(head):
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
    elif head.startswith(GZIP) or tar.is_tar(head):
        archive.layers[member.path] = _read_layer(GzipStream(member.body) if head.startswith(GZIP) else member.body)
    elif head.startswith(ZSTD):
        archive.layers[member.path] = Layer(fault="it is packed with zstd, which is not supported")
    else:
        _add(archive.itself, member)


def _is_document(path: str) -> bool:
    return path in ("manifest.json", "index.json") or path.startswith("blobs/")


def _read_layer(stream: Stream) -> Layer:
    layer = Layer()
    try:
        for member in tar.members(stream):
            _add(layer, member)
    except Broken as fault:
        layer.fault = str(fault)
    return layer


def _add(layer: Layer, member: tar.Member) -> None:
    folder, name = posixpath.split(member.path)
    if name == _OPAQUE:
        layer.opaque.add(folder)
        return
    if name.startswith(_WHITEOUT):
        layer.gone.add(posixpath.join(folder, name[len(_WHITEOUT) :]))
        return
    for known in (layer.code, layer.links):
        known.pop(member.path, None)
    if member.kind == "hardlink":
        layer.links[member.path] = tar.clean(member.link)
    elif member.kind == "file" and can_hold_code(member.body.peek(8)):
        code = _read_member(member)
        if code.counts or code.faults:
            layer.code[member.path] = code
    if member.path not in layer.code and member.kind != "folder":
        layer.others.add(member.path)


def _read_member(member: tar.Member) -> FileCode:
    """Reads the file where it stands if that is a plain file; else from memory, or, above 16 MiB, from a temporary file."""
    body, size = member.body, member.body.left
    there = body.place()
    if there is not None:
        return read_code(FileSource(there[0], there[1], size), member.path)
    if size <= _IN_MEMORY:
        return read_code(MemorySource(body.read(size)), member.path)
    if size > _MAX_FILE:
        return FileCode(member.path, faults=(f"it is larger than {_MAX_FILE >> 30} GiB",))
    with tempfile.TemporaryFile() as file:
        while data := body.read(1 << 20):
            file.write(data)
        file.flush()
        return read_code(FileSource(file.fileno()), member.path)


def merged(layers: Iterable[Layer]) -> list[FileCode]:
    """The files with code that are left when the layers are put one on another, lowest first."""
    files: dict[str, FileCode] = {}
    for layer in layers:
        below = dict(files)
        hiding = layer.gone | layer.others | layer.code.keys()
        for path in below:
            if any(parent in hiding or (parent in layer.opaque and parent != path) for parent in _upwards(path)):
                del files[path]
        files.update(layer.code)
        for path, target in layer.links.items():
            linked = layer.code.get(target) or below.get(target)
            if linked is not None:
                files[path] = replace(linked, path=path)
    return list(files.values())


def _upwards(path: str) -> Iterator[str]:
    """The path itself, every folder above it, and the root."""
    yield path
    while path:
        path = posixpath.dirname(path)
        yield path


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
