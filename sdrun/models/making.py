"""Models whose files are made by a program here instead of being downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from sdrun.core.model import MadeBy, Model, ModelFile
from sdrun.errors import VerificationFailed
from sdrun.models.blobs import Blobs
from sdrun.models.locks import store_lock
from sdrun.models.names import Names, StoredFile, StoredModel


def make(model: Model, made_by: MadeBy, root: Path, say: Callable[[str], None]) -> StoredModel:
    """Makes what is missing or damaged of the model in the store at `root`. Of several processes one does, the others wait for
    it. Raises VerificationFailed (`hash-mismatch`), OSError."""
    blobs = Blobs(root)
    with store_lock(root):
        states = {role: blobs.state(_pinned(file), file.bytes) for role, file in model.files.items()}
        if "missing" in states.values():
            say(f"making the model {model.name} in {root}")
        files: dict[str, StoredFile] = {}
        for role, file in model.files.items():
            if states[role] == "damaged":
                say(f"{file.name} of the model {model.name} is damaged; making it again")
            if states[role] != "whole":
                _make_file(model.name, role, file, made_by, blobs)
            files[role] = StoredFile(file.name, file.bytes or 0, _pinned(file))
        stored = StoredModel(model.name, model.family, model.quantisation, model.licence.name, MappingProxyType(files))
        Names(root).put(stored)
    return stored


def _pinned(file: ModelFile) -> str:
    assert file.sha256 is not None  # the catalogue's reader refuses a made file without
    return file.sha256


def _make_file(name: str, role: str, file: ModelFile, made_by: MadeBy, blobs: Blobs) -> None:
    from sdrun.models import gguf, tiny

    data = {"tiny": tiny.build}[made_by.generator](role, made_by.seed)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise VerificationFailed(
            f"{file.name} of the model {name} came out different from the one that is pinned",
            "Reinstall sdrun: its catalogue and its program do not belong together.",
            id="hash-mismatch",
        )
    blobs.folder.mkdir(parents=True, exist_ok=True)
    gguf.write_atomically(blobs.folder / file.name, data)
    blobs.adopt(blobs.folder / file.name, file.sha256)
