"""Small ELF files, image archives and stand-in programs for the tests of the build side."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.engine import Engine
from sdrun.core.target import Base, Target
from sdrun.errors import BadConfiguration
from sdrun.resources import images_dir

LOADER = "/lib64/ld-linux-x86-64.so.2"
MakeElf = Callable[..., bytes]


@pytest.fixture
def target() -> Target:
    """The cpu row."""
    return next(row for row in targets().rows if str(row.id) == "cpu")


@pytest.fixture
def engine(target: Target) -> Engine:
    """The engine of the cpu row."""
    return engines()[target.engine]


@pytest.fixture
def base(target: Target) -> Base:
    """The base of the cpu row."""
    return targets().bases[target.base]


@pytest.fixture
def refused_engines(tmp_path: Path) -> Callable[[str, str, str], None]:
    """Checks that engines.yaml, with `old` replaced by `new` once, is refused for `fault` and the line is named."""

    def check(old: str, new: str, fault: str) -> None:
        shutil.copytree(images_dir() / "patches", tmp_path / "patches")
        text = (images_dir() / "engines.yaml").read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "engines.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(BadConfiguration, match=rf"engines.yaml:\d+: .*{fault}"):
            engines(tmp_path / "engines.yaml")

    return check


def elf(
    needed: tuple[str, ...] = (), interpreter: str | None = None, soname: str | None = None, runpath: str | None = None
) -> bytes:
    """A 64-bit little-endian ELF file: right in everything that a dynamic loader reads, and empty otherwise."""
    strings, entries = b"\0", []
    for tag, text in [*((1, name) for name in needed), (14, soname), (29, runpath)]:
        if text is not None:
            entries.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    count = (interpreter is not None) + 2 * bool(entries)
    at = 64 + 56 * count
    blob, rows = b"", []
    if interpreter is not None:
        path = interpreter.encode() + b"\0"
        rows.append((3, at, at, len(path)))
        blob += path
    if entries:
        entries += [(5, 0x400000 + at + len(blob)), (0, 0)]
        blob += strings
        section = b"".join(struct.pack("<QQ", *entry) for entry in entries)
        rows += [(2, at + len(blob), 0, len(section)), (1, 0, 0x400000, at + len(blob))]
        blob += section
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    for kind, offset, address, size in rows:
        header += struct.pack("<IIQQQQQQ", kind, 4, offset, address, address, size, size, 8)
    return header + blob


@pytest.fixture(scope="session")
def make_elf() -> MakeElf:
    """`elf`, for tests."""
    return elf


@pytest.fixture
def good_layer() -> dict[str, bytes | str | int]:
    """The tree of a proper image: both programs, what they need, and a user."""
    program = elf(("libc.so.6",), LOADER)
    return {
        "usr/bin/sd-cli": program,
        "usr/bin/sd-server": elf(("libstdc++.so.6", "libc.so.6"), LOADER),
        "usr/lib/x86_64-linux-gnu/libc.so.6": elf(("ld-linux-x86-64.so.2",), soname="libc.so.6"),
        "usr/lib/x86_64-linux-gnu/libstdc++.so.6": elf(("libc.so.6",), soname="libstdc++.so.6"),
        "lib64/ld-linux-x86-64.so.2": elf(soname="ld-linux-x86-64.so.2"),
        "etc/passwd": b"sdrun:x:65532:65532:sdrun:/:/nonexistent\n",
    }


@pytest.fixture
def save_image(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image archive as `docker save` does. A layer is path -> bytes, or text for a symbolic link's target;
    `modes` overrides 0755 (below bin/ and lib64/) and 0644."""

    def save(*layers: dict[str, bytes | str], modes: dict[str, int] | None = None, user: str = "65532:65532") -> Path:
        archive = tmp_path / "image.tar"
        with tarfile.open(archive, "w") as outer:
            names = []
            for i, layer in enumerate(layers):
                names.append(f"{i}/layer.tar")
                _add(outer, names[-1], _layer(layer, modes or {}))
            _add(outer, "config.json", json.dumps({"config": {"User": user}}).encode())
            _add(outer, "manifest.json", json.dumps([{"Config": "config.json", "Layers": names}]).encode())
        return archive

    return save


def _layer(tree: dict[str, bytes | str], modes: dict[str, int]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in tree.items():
            member = tarfile.TarInfo(path)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                program = "bin/" in path or path.startswith("lib64/")
                member.mode, member.size = modes.get(path, 0o755 if program else 0o644), len(content)
                tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _add(outer: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    outer.addfile(member, io.BytesIO(content))


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes an executable shell script into a folder of its own; returns the script."""

    def write(name: str, body: str) -> Path:
        folder = tmp_path / f"bin{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        script = folder / name
        script.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        script.chmod(0o755)
        return script

    return write
