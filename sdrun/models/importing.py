"""The user's own files into the store: looked at, hashed, and kept as hard links, which cost no room."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sdrun.core.family import Families
from sdrun.core.fileset import divide, full_names
from sdrun.core.header import Header
from sdrun.core.model import ROLES, Model, ModelFiles
from sdrun.errors import UsageProblem
from sdrun.models.blobs import Blobs, digest_of
from sdrun.models.locks import store_lock
from sdrun.models.names import Names, StoredFile, StoredModel
from sdrun.models.store import part_of

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that was taken in. `linked` says of each role whether its file is a hard link (else it was copied); `incomplete`
    tells what the engine would still need beside these files, None for a whole model."""

    model: StoredModel
    linked: Mapping[str, bool]
    parameters: int
    incomplete: UsageProblem | None


def import_model(
    own: ModelFiles,
    name: str | None,
    root: Path,
    catalogue: Mapping[str, Model],
    advance: Callable[[int], None] = lambda count: None,
) -> Imported:
    """Enters the user's files under `name` (else the first file's name without its suffix). `advance` is told the bytes that
    are read. Raises UsageProblem (`bad-option`, `model-files-mismatched`), VerificationFailed
    (`model-file-damaged`), OSError."""
    from sdrun.catalog.families import families
    from sdrun.models.family import file_set
    from sdrun.models.headers import read_header

    first = next(iter(own.files.values()))
    called = _checked_name(name if name is not None else _name_of(first), catalogue)
    paths = {_part(path, families()) if role == "model" else role: path for role, path in own.files.items()}
    headers = {role: read_header(path) for role, path in paths.items()}
    missing = None
    try:
        found = file_set(headers, families(), called)
        family, quantisation = found.family.name if found.family else "", found.quantisation
    except UsageProblem as fault:
        if fault.id != "model-files-incomplete":
            raise
        missing = fault  # a part alone is worth keeping: what is missing is named when the model is run
        family, quantisation = _look_at(headers, families())
    digests = {role: digest_of(path, advance) for role, path in paths.items()}
    blobs, linked = Blobs(root), {}
    with store_lock(root):
        for role, path in paths.items():
            linked[role] = True if blobs.state(digests[role]) == "whole" else blobs.link(path, digests[role])
        files = {role: StoredFile(path.name, path.stat().st_size, digests[role]) for role, path in paths.items()}
        model = StoredModel(called, family, quantisation, None, MappingProxyType(files))
        Names(root).put(model)
    return Imported(model, linked, sum(header.parameters for header in headers.values()), missing)


def _part(path: Path, known: Families) -> str:
    """The part that a file is when the user does not say: a text encoder or an autoencoder alone is told by its tensors."""
    from sdrun.models.headers import read_header

    kind = known.kind_of(read_header(path).tensors)
    return kind.parts[0] if kind is not None and kind.parts and kind.parts[0] in ROLES else part_of(path)


def _look_at(headers: Mapping[str, Header], known: Families) -> tuple[str, str]:
    """Family and quantisation of files that are not a whole model."""
    family = known.family_of(full_names(headers, known))
    parts = divide(headers, known)
    return family.name if family else "", parts["diffusion"].quantisation if "diffusion" in parts else ""


def _name_of(path: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")


def _checked_name(name: str, catalogue: Mapping[str, Model]) -> str:
    if not _NAME.fullmatch(name):
        raise UsageProblem(
            f"{name[:80]!r} cannot be the name of a model",
            "Name it with --name: lower-case letters, digits, dots, hyphens and underscores, 64 at most.",
        )
    if name in catalogue:
        raise UsageProblem(f"{name} is a name of the catalogue", "Choose another name with --name.")
    return name
