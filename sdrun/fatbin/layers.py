"""The GPU code in an image's layers: files by path, later layers winning, whiteouts respected (OCI image spec, layer.md)."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sdrun.fatbin import tar
from sdrun.fatbin.carried import FileCode, can_hold_code, read_code
from sdrun.fatbin.packed import unpacked
from sdrun.fatbin.source import FileSource, MemorySource
from sdrun.fatbin.stream import Broken, Stream

_IN_MEMORY = 16 << 20
_MAX_FILE = 16 << 30  # a file of a layer that has to be put on disk to be read
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

    def add(self, member: tar.Member) -> None:
        """Takes in one member, reading what GPU code it holds."""
        folder, name = posixpath.split(member.path)
        if name == _OPAQUE:
            self.opaque.add(folder)
            return
        if name.startswith(_WHITEOUT):
            self.gone.add(posixpath.join(folder, name[len(_WHITEOUT) :]))
            return
        for known in (self.code, self.links):
            known.pop(member.path, None)
        if member.kind == "hardlink":
            self.links[member.path] = tar.clean(member.link)
        elif member.kind == "file" and can_hold_code(member.body.peek(8)):
            code = _read_member(member)
            if code.counts or code.stored or code.faults:
                self.code[member.path] = code
        if member.path not in self.code and member.kind != "folder":
            self.others.add(member.path)


def read_layer(stream: Stream) -> Layer:
    """A layer's tar, packed or not. Never raises for damage: that is told in `fault`, since a layer may be in an archive and in
    no image."""
    layer = Layer()
    try:
        for member in tar.members(unpacked(stream)):
            layer.add(member)
    except Broken as fault:
        layer.fault = str(fault)
    return layer


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
