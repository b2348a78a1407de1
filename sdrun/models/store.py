"""From what the user calls a model to files the engine can open.

The store is a folder (`SDRUN_MODELS_DIR`, else `models` in the cache) with the files by content (sdrun.models.blobs) and the
models that consist of them by name (sdrun.models.names). What is in it is whole and has its sha256, or is made or fetched
again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sdrun.core.model import ROLES, Catalogue, HubFile, Licence, MadeBy, Model, ModelFile, ModelFiles
from sdrun.errors import NotEnoughMemory, SdrunError, UsageProblem, VerificationFailed

if TYPE_CHECKING:
    from sdrun.models.meter import Show
    from sdrun.models.names import Names, StoredModel
    from sdrun.models.pull import Wishes

Say = Callable[[str], None]

HUB_PREFIX = "hf://"
_SUFFIXES = (".gguf", ".safetensors", ".ckpt", ".pt", ".pth", ".sft")
_ROLE = re.compile(r"([A-Za-z0-9_-]+)=(.*)", re.DOTALL)
_NEXT_ROLE = re.compile(r",(?=[A-Za-z0-9_-]+=)")  # a comma within a path is not followed by a word and "="
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HUB_FILE = re.compile(rf"hf://({_WORD}/{_WORD})/({_WORD}(?:/{_WORD})*)(?:@([A-Za-z0-9_][A-Za-z0-9_./-]*))?")


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def store_root(cache_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the store: `SDRUN_MODELS_DIR` if that is set, else `models` in the cache."""
    if override := environ.get("SDRUN_MODELS_DIR"):
        return Path(override).expanduser().absolute()
    return cache_dir.expanduser().absolute() / "models"


def resolve_model(
    text: str,
    models: Mapping[str, Model],
    cache_dir: Path,
    say: Say = _on_stderr,
    show: Show | None = None,
    wishes: Wishes | None = None,
) -> ModelFiles:
    """The files of the model that `text` names: a name of the catalogue or of the store, the path of an all-in-one file,
    `hf://owner/repository/file[@revision]`, or `role=FILE,role=FILE` with a path or hf:// for each FILE.

    What the store lacks is made or fetched on first use, unless `wishes` or HF_HUB_OFFLINE forbid it: said through `say`, its
    progress told to `show` (to `say` in a few lines where that is None). Raises UsageProblem (`unknown-model`,
    `model-file-missing`, `model-file-unreadable`, `bad-option`, `cache-not-writable`, `licence-not-accepted`,
    `video-model`), VerificationFailed (`model-file-damaged`, `hash-mismatch`, `model-gated`, `download-failed`,
    `model-not-fetched`, `token-refused`), NotEnoughMemory (`disk-full`), Interrupted.
    """
    store = Store(store_root(cache_dir), say, show, wishes)
    if text in models:
        model = models[text]
        if model.output == "video":
            raise UsageProblem(
                f"{model.name} makes videos, which sdrun does not do yet",
                f"Fetch its files with: sdrun models pull {model.name}, and give them to the engine yourself.",
                id="video-model",
            )
        return store.have(model)
    if text.startswith(HUB_PREFIX):
        return store.from_hub(text)
    if (named := store.stored(text)) is not None:
        return named
    if _ROLE.match(text) and not _is_file(text):
        return _by_role(text, store)
    if "/" in text or text.lower().endswith(_SUFFIXES) or _is_file(text):
        return ModelFiles(Path(text).name, MappingProxyType({"model": _usable(text)}), None)
    raise unknown(text, models)


def unknown(text: str, models: Mapping[str, Model]) -> UsageProblem:
    """The error for a name nobody knows, with the names that are like it."""
    import difflib

    names, rows = (models.names(), models.rows) if isinstance(models, Catalogue) else (tuple(models), models)
    row = models.row_of(text) if isinstance(models, Catalogue) else None
    near = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    if row is not None:
        remedy = f"{row.name} comes as {' and '.join(f'{row.name}:{known}' for known in row.quantisations)}."
    else:
        remedy = f"Did you mean {' or '.join(near)}?" if near else f"The catalogue has {', '.join(rows)}."
    return UsageProblem(
        f"no model is called {text[:80]!r}", f"{remedy} A file is named by its path, such as ./model.gguf.", id="unknown-model"
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def _by_role(text: str, store: Store) -> ModelFiles:
    named: dict[str, str] = {}
    for part in _NEXT_ROLE.split(text):
        match = _ROLE.fullmatch(part)
        role, place = (match[1], match[2]) if match else ("", part)
        if role not in ROLES:
            raise UsageProblem(
                f"{role[:40]!r} is no part of a model",
                f"Parts are {', '.join(ROLES)}. A file whose name has a = in it is named by its path, such as ./a=b.gguf.",
            )
        if role in named:
            raise UsageProblem(f"the model's part {role} is named twice", "Name each part once.")
        named[role] = place
    if not {"model", "diffusion"} & named.keys():
        raise UsageProblem(
            "the model has neither a part model nor a part diffusion",
            "Name the diffusion model too: diffusion=PATH, or model=PATH for an all-in-one file.",
        )
    paths: dict[str, Path] = {}
    digests: dict[str, str] = {}
    for role, place in named.items():
        if place.startswith(HUB_PREFIX):
            fetched = store.from_hub(place)
            paths[role], digests[role] = next(iter(fetched.files.values())), next(iter(fetched.sha256.values()))
        else:
            paths[role] = _usable(place)
    return ModelFiles(text, MappingProxyType(paths), None, sha256=digests)


def _usable(text: str) -> Path:
    """The absolute path of a file of the user's own that can be read and is whole."""
    from sdrun.models.headers import Damaged, check

    path = Path(text).expanduser().absolute()
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist" if not path.exists() else "is no regular file"
            raise UsageProblem(f"the model file {path} {what}", "Check the path given to --model.", id="model-file-missing")
        check(path)
    except Damaged as fault:
        raise VerificationFailed(
            f"{path} is not a whole model file: {fault}",
            "Fetch the file again and compare its size and sha256 with its source.",
            id="model-file-damaged",
        ) from None
    except (OSError, ValueError) as fault:  # ValueError: a zero byte in the path
        raise UsageProblem(
            f"the model file {str(path)!r} cannot be read: {getattr(fault, 'strerror', None) or fault}",
            "Check the path and its permissions.",
            id="model-file-unreadable",
        ) from None
    return path


class Store:
    """The models of one folder, and how what is missing gets there."""

    def __init__(self, root: Path, say: Say = _on_stderr, show: Show | None = None, wishes: Wishes | None = None) -> None:
        self.root = root
        self._say = say
        self._show = show
        self._wishes = wishes

    @property
    def names(self) -> Names:
        """Its manifests."""
        from sdrun.models.names import Names

        return Names(self.root)

    def have(self, model: Model) -> ModelFiles:
        """The model's files, made or fetched where they are not there or not whole."""
        with store_errors(self.root):
            stored = self.names.get(model.name)
            if stored is None or not stored.serves(model) or self._faults(stored):
                stored = self._make(model, model.made_by) if model.made_by is not None else self.pull(model)
        return self._files(stored, model)

    def stored(self, name: str) -> ModelFiles | None:
        """The files of a model that was imported under this name. Raises VerificationFailed (`model-file-damaged`)."""
        if not _WORDS.fullmatch(name):
            return None
        stored = self.names.get(name)
        if stored is None:
            return None
        with store_errors(self.root):
            for role, state in self._faults(stored).items():
                raise VerificationFailed(
                    f"{stored.files[role].name}, a file of the model {name}, is {state}",
                    "Import it again: sdrun models import.",
                    id="model-file-damaged",
                )
        return self._files(stored, None)

    def from_hub(self, text: str) -> ModelFiles:
        """One file of a hub by its address, recorded and pinned like any other."""
        match = _HUB_FILE.fullmatch(text)
        if match is None:
            raise UsageProblem(
                f"{text[:200]!r} is no file of a hub",
                "Write hf://owner/repository/path/to/file.gguf, with @revision behind it.",
            )
        source = HubFile(match[1], match[2], match[3])
        file = ModelFile(source.path.rpartition("/")[2], None, None, source)
        model = Model(str(source), "", "", _UNKNOWN_LICENCE, None, 0, {"model": file}, None)
        with store_errors(self.root):
            stored = self.names.get(model.name)
            if stored is None or self._faults(stored):
                stored = self.pull(model)
        files = self._files(stored, None)
        return replace(files, files=MappingProxyType({_role(files.files["model"]): _usable(str(files.files["model"]))}))

    def pull(self, model: Model) -> StoredModel:
        """Fetches what is missing of a model whose files come from a hub."""
        from sdrun.models.meter import Lines
        from sdrun.models.pull import Puller

        return Puller(self.root, self._say, self._show or Lines(self._say), self._wishes).pull(model)

    def _files(self, stored: StoredModel, model: Model | None) -> ModelFiles:
        names = self.names
        return ModelFiles(
            stored.name,
            MappingProxyType({role: names.path(stored.name, role, file) for role, file in stored.files.items()}),
            model.defaults if model else None,
            model.engine_args if model else (),
            MappingProxyType({role: file.sha256 for role, file in stored.files.items()}),
            model,
        )

    def _faults(self, stored: StoredModel) -> dict[str, str]:
        """Roles whose file is `missing` or `damaged`."""
        from sdrun.models.blobs import Blobs

        blobs, names = Blobs(self.root), self.names
        states = {role: blobs.state(file.sha256, file.bytes) for role, file in stored.files.items()}
        links = {role: names.path(stored.name, role, file).is_file() for role, file in stored.files.items()}
        return {
            role: state if links[role] else "missing" for role, state in states.items() if state != "whole" or not links[role]
        }

    def _make(self, model: Model, made_by: MadeBy) -> StoredModel:
        """Makes what is missing or damaged. Of several processes one does, the others wait for it."""
        from sdrun.models.blobs import Blobs
        from sdrun.models.names import StoredFile, StoredModel
        from sdrun.models.pull import store_lock

        blobs = Blobs(self.root)
        with store_lock(self.root):
            states = {role: blobs.state(file.sha256 or "", file.bytes) for role, file in model.files.items()}
            if "missing" in states.values():
                self._say(f"making the model {model.name} in {self.root}")
            files: dict[str, StoredFile] = {}
            for role, file in model.files.items():
                if states[role] == "damaged":
                    self._say(f"{file.name} of the model {model.name} is damaged; making it again")
                if states[role] != "whole":
                    _make_file(model.name, role, file, made_by, blobs.folder)
                    blobs.adopt(blobs.folder / file.name, file.sha256 or "")
                files[role] = StoredFile(file.name, file.bytes or 0, file.sha256 or "")
            stored = StoredModel(model.name, model.family, model.quantisation, model.licence.name, MappingProxyType(files))
            self.names.put(stored)
        return stored


_WORDS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_UNKNOWN_LICENCE = Licence("unknown", "conditional")


def _make_file(name: str, role: str, file: ModelFile, made_by: MadeBy, folder: Path) -> None:
    from sdrun.models import gguf, tiny

    data = {"tiny": tiny.build}[made_by.generator](role, made_by.seed)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise VerificationFailed(
            f"{file.name} of the model {name} came out different from the one that is pinned",
            "Reinstall sdrun: its catalogue and its program do not belong together.",
            id="hash-mismatch",
        )
    folder.mkdir(parents=True, exist_ok=True)
    gguf.write_atomically(folder / file.name, data)


def _role(path: Path) -> str:
    """The part that one file is when nothing more is said of it: `model`, or `diffusion` where its header shows the diffusion
    model alone, which the engine must be told."""
    from sdrun.catalog.families import families
    from sdrun.core.fileset import full_names
    from sdrun.models.headers import Damaged, read_header

    try:
        header = read_header(path)
    except (Damaged, OSError):
        return "model"  # what is wrong with it is told when it is looked at
    known = families()
    alone = not known.family_of(full_names({"model": header}, known)) and known.family_of(
        full_names({"diffusion": header}, known)
    )
    return "diffusion" if alone else "model"


@contextmanager
def store_errors(root: Path) -> Iterator[None]:
    """Turns what the file system refuses into the error that says what to change."""
    try:
        yield
    except SdrunError:
        raise
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughMemory(
                f"no space left for the model in {root}",
                "Free some space there, or set SDRUN_MODELS_DIR to a folder on another disk.",
                id="disk-full",
            ) from None
        raise UsageProblem(
            f"the model store {root} cannot be used: {fault.strerror or fault}",
            "Set SDRUN_MODELS_DIR, or SDRUN_CACHE_DIR, to a folder that can be written.",
            id="cache-not-writable",
        ) from None
