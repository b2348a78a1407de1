"""Fatbins, ELF files, static libraries and saved images, built from bytes; and damage done to them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import random
import struct
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "fatbins"
SUFFIXES = {"": 0, "a": 0x100000, "f": 0x200000}
COMPRESSIONS = {"none": 0, "lz4": 0x2000, "zstd": 0x8000}
KINDS = {"ptx": 1, "cubin": 2, "lto": 8}


def fixture(name: str) -> bytes:
    """A fatbin that NVIDIA's tools made."""
    return (FIXTURES / name).read_bytes()


@dataclass(frozen=True)
class Piece:
    """One entry to be put into a fatbin; `version` is the PTX ISA, or the cubin's ABI."""

    kind: str
    sm: int
    suffix: str = ""
    compression: str = "none"
    version: tuple[int, int] = (1, 7)
    payload: bytes = bytes(64)

    def packed(self) -> bytes:
        """Header and payload."""
        flags = 0x11 | SUFFIXES[self.suffix] | COMPRESSIONS[self.compression]
        padded = self.payload + bytes(-len(self.payload) % 8)
        stored = len(self.payload) if self.compression != "none" else 0
        head = (KINDS[self.kind], 257, 64, len(padded), stored, 0, self.version[1], self.version[0], self.sm, 0, 0)
        return struct.pack("<HHIQIIHHIIIQQQ", *head, flags, 0, 0) + padded


def fatbin(*pieces: Piece) -> bytes:
    """One container."""
    body = b"".join(piece.packed() for piece in pieces)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def cubin_head(toolkit: int) -> bytes:
    """The first 64 bytes of a cubin whose header names its toolkit (124 is 12.4)."""
    return struct.pack("<16sHHI", b"\x7fELF\x02\x01\x01\x33\x07", 2, 190, toolkit) + bytes(40)


def elf(sections: Mapping[str, bytes], *, stripped: bool = False, kind: int = 1) -> bytes:
    """A 64-bit ELF file of these sections (8-byte aligned), all in one loadable segment. `stripped`: without section headers;
    `kind`: the sections' type (1 PROGBITS, 8 NOBITS)."""
    names, body, headers = b"\0", bytearray(), [bytes(64)]
    start = 64 + 56
    for name, data in {**sections, ".shstrtab": b""}.items():
        at = len(names)
        names += name.encode() + b"\0"
        content = names if name == ".shstrtab" else data
        own = 3 if name == ".shstrtab" else kind
        headers.append(struct.pack("<IIQQQQIIQQ", at, own, 2, 0, start + len(body), len(content), 0, 0, 8, 0))
        body += content + bytes(-len(content) % 8)
    end = start + len(body)
    table = b"" if stripped else b"".join(headers)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, 0 if stripped else end, 0, 64, 56, 1, 64,
        0 if stripped else len(headers), 0 if stripped else len(headers) - 1,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 4096)
    return head + segment + bytes(body) + table


def engine(fatbin: bytes, archs: str = "", *, stripped: bool = False) -> bytes:
    """An ELF file with a fatbin, and ggml's arch list (`750,860`) among its constants if one is given."""
    words = b"hello\0NO_VMM\0" + (b"ARCHS\0" + archs.encode() + b"\0" if archs else b"") + b"1\0bye\0"
    return elf({".text": bytes(range(256)), ".rodata": words, ".nv_fatbin": fatbin}, stripped=stripped)


def library(*members: bytes) -> bytes:
    """A static library."""
    out = b"!<arch>\n"
    for number, data in enumerate(members):
        name = f"m{number}.o/"
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


Content = bytes | str | None  # of a file; of a symbolic link where it points, with ">" in front; None: a folder


def layer(content: Mapping[str, Content], hardlinks: Mapping[str, str] | None = None) -> bytes:
    """A layer's tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in content.items():
            info = tarfile.TarInfo(path)
            if data is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
        for path, target in (hardlinks or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    return out.getvalue()


def docker_archive(layers: Sequence[bytes], *, tags: Sequence[str] = ("t:1",), manifest_last: bool = True) -> bytes:
    """What `docker save` of an engine before 25 writes, loadable by `docker load`."""
    diffs = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    paths = [f"{number}-{digest[7:19]}/layer.tar" for number, digest in enumerate(diffs)]
    manifest = json.dumps([{"Config": config_name, "RepoTags": list(tags), "Layers": paths}]).encode()
    content: dict[str, Content] = dict(zip(paths, layers, strict=True))
    if manifest_last:
        return layer({**content, config_name: text, "manifest.json": manifest})
    return layer({"manifest.json": manifest, config_name: text, **content})


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: zstd.compress(data, 3),
    "xz": lambda data: lzma.compress(data, preset=0),
}


def oci_archive(images: Mapping[str, Sequence[bytes]], *, packing: str = "gzip", attested: bool = False) -> bytes:
    """An OCI layout in a tar; `images` are layers by platform (`linux/amd64`), below an index of their own."""
    blobs: dict[str, Content] = {}

    def blob(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return f"sha256:{digest}"

    rows: list[dict[str, object]] = []
    for platform, layers in images.items():
        digests = [blob(PACKINGS[packing](data)) for data in layers]
        manifest = {"schemaVersion": 2, "config": {"digest": blob(b"{}")}, "layers": [{"digest": one} for one in digests]}
        system, machine = platform.split("/")
        digest = blob(json.dumps(manifest).encode())
        rows.append({"digest": digest, "platform": {"os": system, "architecture": machine}})
    if attested:
        manifest = {"schemaVersion": 2, "layers": [{"digest": blob(b'{"predicate": 1}')}]}
        digest = blob(json.dumps(manifest).encode())
        rows.append({"digest": digest, "platform": {"os": "unknown", "architecture": "unknown"}})
    inner = blob(json.dumps({"schemaVersion": 2, "manifests": rows}).encode())
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": inner}]}).encode()
    return layer({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index, **blobs})


def every_form() -> dict[str, bytes]:
    """A sample of every format the inspector reads, by name."""
    made = fatbin(Piece("cubin", 86, payload=cubin_head(118)), Piece("ptx", 75, "", "lz4", (7, 8), b"\x50hello"))
    real = {path.name: path.read_bytes() for path in sorted(FIXTURES.glob("*.fatbin"))}
    whole = b"".join(real.values())
    program = engine(whole, "520,750,860,890")
    layers = [layer({"usr": None, "usr/bin/sd": program, "lib/x.so": elf({".nv_fatbin": made})}), layer({"lib/.wh.x.so": b""})]
    return {
        **real,
        "made.fatbin": made,
        "nvcc program": (FIXTURES / "cu118-program").read_bytes(),
        "program": program,
        "stripped program": engine(whole, "520", stripped=True),
        "object": elf({"__nv_relfatbin": made}),
        "library": library(elf({".nv_fatbin": made}), program),
        "docker archive": docker_archive(layers),
        "oci archive": oci_archive({"linux/amd64": layers, "linux/arm64": layers[:1]}),
        "unpacked oci archive": oci_archive({"linux/amd64": layers}, packing="none"),
        "zstd oci archive": oci_archive({"linux/amd64": layers}, packing="zstd"),
        "packed archive": gzip.compress(docker_archive(layers), mtime=0),
        "zstd archive": PACKINGS["zstd"](docker_archive(layers)),
        "xz archive": PACKINGS["xz"](docker_archive(layers)),
    }


def mutated(data: bytes, draw: random.Random) -> bytes:
    """The data with one to eight injuries: bytes flipped, cut off, cut out, doubled, or overwritten by telling numbers."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at = draw.randrange(len(out) + 1)
        match draw.randrange(6):
            case 0:
                del out[at:]
            case 1:
                del out[at : at + draw.choice((1, 4, 8, 64, 512))]
            case 2:
                out[at:at] = out[at : at + draw.choice((8, 64, 512))]
            case 3:
                number = draw.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xBA55ED50, len(out), len(out) - at))
                out[at : at + 4] = struct.pack("<I", number)
            case 4:
                out[at : at + 8] = struct.pack("<Q", draw.choice((0, (1 << 64) - 1, 1 << 63, len(out), 1 << 32)))
            case _:
                for _ in range(draw.choice((1, 2, 16))):
                    if out:
                        out[draw.randrange(len(out))] = draw.randrange(256)
    return bytes(out)
