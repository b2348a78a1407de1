"""Models whose files come with sdrun: entered in the store on first use, without a network."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from sdrun.core.model import Model, ModelFile
from sdrun.errors import VerificationFailed
from sdrun.models.blobs import Blobs, digest_of
from sdrun.models.locks import store_lock
from sdrun.models.names import Names, StoredFile, StoredModel


def take_in(model: Model, folder: Path, root: Path) -> StoredModel:
    """The model, entered in the store at `root` from its files in `folder`: as hard links where the file systems allow it, else
    as copies. Every file is read and must have the sha256 of the catalogue. Raises VerificationFailed (`hash-mismatch`),
    OSError."""
    blobs = Blobs(root)
    files: dict[str, StoredFile] = {}
    with store_lock(root):
        for role, file in model.files.items():
            files[role] = _take(model.name, file, folder / file.name, blobs)
        stored = StoredModel(model.name, model.family, model.quantisation, model.licence.name, MappingProxyType(files))
        Names(root).put(stored)
    return stored


def _take(name: str, file: ModelFile, source: Path, blobs: Blobs) -> StoredFile:
    assert file.sha256 is not None  # the catalogue's reader refuses a shipped file without
    if blobs.state(file.sha256, file.bytes) != "whole":
        try:
            found = digest_of(source)
        except FileNotFoundError:
            found = ""
        if found != file.sha256:
            raise VerificationFailed(
                f"{source}, a file of the model {name}, is {'not the one that is pinned' if found else 'missing'}",
                "Reinstall sdrun; in a git checkout: git checkout -- models",
                id="hash-mismatch",
            )
        blobs.link(source, file.sha256)
    return StoredFile(file.name, file.bytes or 0, file.sha256)
