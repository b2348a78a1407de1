"""Models whose files are on the loopback hub, and the environment that leads there."""

from __future__ import annotations

import random
from collections.abc import Mapping

from loopback.hub import Hub
from sdrun.core.model import Defaults, HubFile, Licence, Model, ModelFile

FREE = Licence("MIT", "allowed")


def random_bytes(size: int, seed: int = 0) -> bytes:
    """The same ones for the same seed."""
    return random.Random(seed).randbytes(size)


def hub_file(
    path: str, sha256: str | None = None, size: int | None = None, gated: bool = False, revision: str | None = None
) -> ModelFile:
    """A catalogue's file `owner/repository/file`."""
    owner, repository, file = path.split("/", 2)
    return ModelFile(file.rpartition("/")[2], size, sha256, HubFile(f"{owner}/{repository}", file, revision), gated)


def model(name: str, files: Mapping[str, ModelFile], licence: Licence = FREE) -> Model:
    """A catalogue's model."""
    defaults = Defaults(512, 512, 4, 1.0, "euler", 42)
    return Model(name, "flux", "q4_0", licence, None, 100, files, defaults, title=name)


def environment(hub: Hub, **more: str) -> dict[str, str]:
    """What leads sdrun to this hub; connections that are silent are given up soon."""
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DOWNLOAD_TIMEOUT": "5", **more}
