"""Which models a store holds: a small manifest for each name, and links by which their files bear their own names.

`names/<name>/model.json` says what the model consists of; `names/<name>/<role>/<file>` are links into blobs/, because the
engine's messages name the file it was given. `pins.json` is the store's lock file: for every file of a hub whose sha256 the
catalogue does not know, what the first download brought; a later download must bring the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sdrun.core.model import ROLES, HubFile, Model, ModelFile
from sdrun.errors import BadConfiguration

SCHEMA = "sdrun.stored-model/v1"
PINS_SCHEMA = "sdrun.model-pins/v1"
_PLAIN = re.compile(r"[^A-Za-z0-9._-]|^[.]+")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a stored model. `repository`, `path` and `revision` (a commit) say where on a hub it came from; None for a
    file that was made or imported."""

    name: str
    bytes: int
    sha256: str
    repository: str | None = None
    path: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is in the store under `name`. `family` and `quantisation` as the catalogue or the files' headers say."""

    name: str
    family: str
    quantisation: str
    licence: str | None
    files: Mapping[str, StoredFile]

    def serves(self, model: Model) -> bool:
        """Whether these files are what the catalogue's row asks for now: a newer catalogue may pin others."""
        return self.files.keys() == model.files.keys() and all(
            _is(self.files[role], wanted) for role, wanted in model.files.items()
        )


def _is(stored: StoredFile, wanted: ModelFile) -> bool:
    if wanted.sha256 is not None:
        return stored.sha256 == wanted.sha256
    source = wanted.from_hub
    if source is None or (stored.repository, stored.path) != (source.repository, source.path):
        return False
    return source.revision is None or stored.revision == source.revision


@dataclass(frozen=True, slots=True)
class Pin:
    """What the first download of a file brought."""

    sha256: str
    bytes: int
    revision: str | None
    recorded: str


class Names:
    """The manifests and pins of one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "names"
        self.pins_file = root / "pins.json"

    def folder_of(self, name: str) -> Path:
        """The folder of a model. A colon would be taken for a separator by programs that mount paths, and the name of a hub's
        file holds slashes."""
        plain = _PLAIN.sub("-", name.replace(":", "-", 1))
        if plain != name.replace(":", "-", 1):
            plain = f"{plain[-100:]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        return self.folder / plain

    def get(self, name: str) -> StoredModel | None:
        """The model of that name, None where the store has none (or its manifest cannot be understood, which is the same)."""
        return _read_model(self.folder_of(name) / "model.json")

    def all(self) -> list[StoredModel]:
        """Every model, by name."""
        found = (_read_model(path) for path in sorted(self.folder.glob("*/model.json")))
        return [model for model in found if model is not None]

    def path(self, name: str, role: str, file: StoredFile) -> Path:
        """The file's own name in the store, a link to its content."""
        return self.folder_of(name) / role / file.name

    def put(self, model: StoredModel) -> None:
        """Enters a model whose files are all in blobs/. It can be seen when everything of it is there. The caller holds the
        store's lock."""
        from sdrun.models.gguf import write_atomically

        folder = self.folder_of(model.name)
        if self.get(model.name) == model and all(self.path(model.name, *part).exists() for part in model.files.items()):
            return
        (folder / "model.json").unlink(missing_ok=True)
        for role in ROLES:
            shutil.rmtree(folder / role, ignore_errors=True)
        for role, file in model.files.items():
            (folder / role).mkdir(parents=True)
            (folder / role / file.name).symlink_to(f"../../../blobs/sha256-{file.sha256}")
        document = {
            "schema": SCHEMA,
            "name": model.name,
            "family": model.family,
            "quantisation": model.quantisation,
            "licence": model.licence,
            "added": _today(),
            "files": {role: asdict(file) for role, file in model.files.items()},
        }
        write_atomically(folder / "model.json", json.dumps(document, indent=2).encode())

    def remove(self, name: str) -> None:
        """Forgets a model; its files stay until nobody refers to them."""
        folder = self.folder_of(name)
        (folder / "model.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def referred(self) -> set[str]:
        """The digests that some model here consists of."""
        return {file.sha256 for model in self.all() for file in model.files.values()}

    def pin(self, source: HubFile) -> Pin | None:
        """What the first download of this file brought; None where there was none."""
        return self._pins().get(source.key)

    def record(self, pins: Mapping[HubFile, Pin]) -> None:
        """Adds pins to the lock file. The caller holds the store's lock for it."""
        from sdrun.models.gguf import write_atomically

        known = {**self._pins(), **{source.key: pin for source, pin in pins.items()}}
        document = {"schema": PINS_SCHEMA, "files": {key: asdict(known[key]) for key in sorted(known)}}
        write_atomically(self.pins_file, json.dumps(document, indent=2).encode())

    def _pins(self) -> dict[str, Pin]:
        document = _read(self.pins_file)
        rows = document.get("files") if document.get("schema") == PINS_SCHEMA else None
        if isinstance(rows, dict):
            return dict(_pin_rows(rows))
        if not self.pins_file.exists():
            return {}
        raise BadConfiguration(  # going on without would accept anything
            f"{self.pins_file} is damaged: it holds what downloads without a pinned sha256 must bring",
            "Restore it, or remove it: then the next downloads record it anew, from what the hub says today.",
            id="bad-model-pins",
        )


def new_pin(sha256: str, size: int, revision: str | None) -> Pin:
    """A pin recorded today."""
    return Pin(sha256, size, revision, _today())


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _pin_rows(rows: Mapping[str, Any]) -> Iterator[tuple[str, Pin]]:
    for key, row in rows.items():
        match row:
            case {"sha256": str(sha256), "bytes": int(size), "revision": str() | None as revision, "recorded": str(recorded)}:
                yield key, Pin(sha256, size, revision, recorded)


def _read_model(path: Path) -> StoredModel | None:
    match _read(path):
        case {"schema": "sdrun.stored-model/v1", "name": str(name), "files": dict(rows), **rest}:
            files = {role: StoredFile(**row) for role, row in rows.items()}
            licence = rest.get("licence")
            return StoredModel(name, rest.get("family", ""), rest.get("quantisation", ""), licence, MappingProxyType(files))
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
