"""Small images as `docker save` writes them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

from sdrun.core.oci import Published
from sdrun.registry.archive import Packed, pack

ENGINE = "sdcpp-90e87bc"
FACTS = {
    "cpu": ("", "", ""),
    "cu124-sm89": ("12.4", "89", "lz4"),
    "cu124-sm90": ("12.4", "90", "lz4"),
    "cu130-sm120": ("13.0", "120", "zstd"),
}


def labels(target: str, engine: str = ENGINE, created: str = "2026-05-06T00:00:00Z") -> dict[str, str]:
    """The labels of an image for `target`."""
    toolkit, sass, compression = FACTS[target] if target in FACTS else (f"12.{target[4]}", target.rpartition("sm")[2], "lz4")
    return {
        "io.sdrun.target": target,
        "io.sdrun.engine": engine,
        "io.sdrun.platform": "linux/amd64",
        "io.sdrun.toolkit": toolkit,
        "io.sdrun.sass": sass,
        "io.sdrun.ptx": "",
        "io.sdrun.fatbin-compression": compression,
        "io.sdrun.recipe": f"sha256:{hashlib.sha256(target.encode()).hexdigest()}",
        "org.opencontainers.image.created": created,
    }


def saved(
    folder: Path,
    target: str,
    *,
    content: str = "",
    size: int = 3000,
    engine: str = ENGINE,
    created: str = "2026-05-06T00:00:00Z",
    twice: bool = False,
) -> Path:
    """An image archive whose one layer holds a file of about `size` bytes that do not compress, or two that are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    program = random.Random(f"{target}{content}").randbytes(size)
    layer = _tar({"usr/bin/sd-cli": program, **({"usr/bin/sd-server": program} if twice else {})})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "65532:65532", "Labels": labels(target, engine, created)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    body = json.dumps(config).encode()
    name = f"{hashlib.sha256(body).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": None, "Layers": ["layer/layer.tar"]}]
    path = folder / f"{target}{content}.tar"
    path.write_bytes(_tar({name: body, "layer/layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}))
    return path


def packed(folder: Path, target: str, **more: object) -> Packed:
    """The same, made ready for a registry."""
    return pack(saved(folder, target, **more), folder, "gzip")  # type: ignore[arg-type]


def described(image: Packed) -> Published:
    """What an index says of it."""
    return image.published


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()
