"""An image out of the container runtime again: saved, read back, and what was found kept by its content id."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from sdrun.build.client import find_client
from sdrun.build.disk import disk_full, says_disk_full
from sdrun.build.proof import Proof, prove
from sdrun.core.engine import Engine
from sdrun.core.target import Target
from sdrun.errors import RuntimeUnavailable
from sdrun.resources import cache_root
from sdrun.runtime.protocol import ContainerRuntime, LocalImage


def prove_image(
    image: LocalImage,
    target: Target,
    engine: Engine,
    labels: Mapping[str, str],
    runtime: ContainerRuntime,
    cache: Path | None = None,
) -> Proof:
    """Reads `image` back from the runtime: see `prove`. Nothing is recorded."""
    root = cache or cache_root()
    with tempfile.TemporaryDirectory(dir=folder(root / "contexts"), prefix="proof-") as scratch:
        archive = Path(scratch) / "image.tar"
        save_image(image, archive, runtime)
        return prove(image, archive, target, engine, labels, runtime)


def save_image(image: LocalImage, archive: Path, runtime: ContainerRuntime) -> None:
    """The image as a tar file, written by this process: some packagings of docker may not write where they are told to."""
    client = find_client(runtime.name)
    with archive.open("wb") as file:
        argv = client.argv("save", image.id)
        done = subprocess.run(argv, stdout=file, stderr=subprocess.PIPE, timeout=600, check=False, env=client.environment())
    if done.returncode == 0:
        return
    why = done.stderr.decode("utf-8", "replace").strip()[:300]
    if says_disk_full(why):
        raise disk_full(archive.parent)
    raise RuntimeUnavailable(
        f"{client.program} could not save the image for reading back: {why}",
        "Look into the container runtime's log (journalctl -u docker).",
        id="runtime-failed",
    )


def recorded_proof(root: Path, image: LocalImage) -> Proof | None:
    """What an earlier reading of exactly this image found: a content id names its content."""
    try:
        record = json.loads(_proof_file(root, image).read_text(encoding="utf-8"))
        return Proof(tuple(record.pop("libraries")), code=tuple(record.pop("code")), **record)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_proof(root: Path, image: LocalImage, proof: Proof) -> None:
    """Keeps what was found, for `recorded_proof`."""
    file = _proof_file(root, image)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(proof)), encoding="utf-8")
    partial.replace(file)


def _proof_file(root: Path, image: LocalImage) -> Path:
    return folder(root / "proofs") / f"{image.id.replace(':', '-')}.json"


def folder(path: Path) -> Path:
    """The folder, made where it is not there."""
    path.mkdir(parents=True, exist_ok=True)
    return path
