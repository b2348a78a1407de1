"""The store: models that are on this machine, and how what is missing gets there.

It is a folder (`SDRUN_MODELS_DIR`, else `models` in the cache) with the files by content (sdrun.models.blobs) and the
models that consist of them by name (sdrun.models.names). What is in it is whole and has its sha256, or is made or fetched
again.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sdrun.core.model import HubFile, Licence, MadeBy, Model, ModelFile, ModelFiles
from sdrun.errors import NotEnoughMemory, SdrunError, UsageProblem, VerificationFailed
from sdrun.resources import at_home

if TYPE_CHECKING:
    from sdrun.models.blobs import State
    from sdrun.models.meter import Show
    from sdrun.models.names import Names, StoredModel
    from sdrun.models.pull import Wishes

Say = Callable[[str], None]

HUB_PREFIX = "hf://"
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HUB_FILE = re.compile(rf"hf://({_WORD}/{_WORD})/({_WORD}(?:/{_WORD})*)(?:@([A-Za-z0-9_][A-Za-z0-9_./-]*))?")


def on_stderr(text: str) -> None:
    """Says something where no one else was named to say it."""
    print(text, file=sys.stderr)


def store_root(cache_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the store: `SDRUN_MODELS_DIR` if that is set, else `models` in the cache."""
    if override := environ.get("SDRUN_MODELS_DIR"):
        return at_home(override).absolute()
    return at_home(cache_dir).absolute() / "models"


def usable(text: str) -> Path:
    """The absolute path of a file of the user's own that can be read and is whole."""
    from sdrun.models.headers import Damaged, check

    path = at_home(text).absolute()
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

    def __init__(self, root: Path, say: Say = on_stderr, show: Show | None = None, wishes: Wishes | None = None) -> None:
        self.root = root
        self._say = say
        self._show = show
        self._wishes = wishes

    @property
    def names(self) -> Names:
        """Its manifests."""
        from sdrun.models.names import Names

        return Names(self.root)

    def have(self, model: Model, again: bool = False) -> ModelFiles:
        """The model's files; made, fetched or taken from what came with sdrun where they are not there or not whole. `again`:
        asks the hub in any case."""
        with store_errors(self.root):
            stored = self.names.get(model.name)
            if again or stored is None or not stored.serves(model) or self._faults(stored):
                stored = self._get(model)
        return self._files(stored, model)

    def _get(self, model: Model) -> StoredModel:
        if model.shipped is not None:
            from sdrun.models.shipping import take_in
            from sdrun.resources import models_dir

            return take_in(model, models_dir() / model.shipped, self.root)
        return self.pull(model) if model.made_by is None else self._make(model, model.made_by)

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
        return replace(files, files=MappingProxyType({part_of(files.files["model"]): usable(str(files.files["model"]))}))

    def pull(self, model: Model) -> StoredModel:
        """Fetches what is missing of a model whose files come from a hub."""
        from sdrun.models.meter import Lines
        from sdrun.models.pull import Puller

        return Puller(self.root, self._say, self._show or Lines(self._say), self._wishes).pull(model)

    def verify(self, models: Sequence[StoredModel], say: Say) -> dict[str, State]:
        """Reads every file of these models, each once; the state of each by sha256."""
        from sdrun.core.size import size_text
        from sdrun.models.blobs import Blobs

        blobs = Blobs(self.root)
        states: dict[str, State] = {}
        for file in {file.sha256: file for model in models for file in model.files.values()}.values():
            say(f"reading {file.name} ({size_text(file.bytes)})")
            states[file.sha256] = blobs.verify(file.sha256)
        return states

    def remove(self, names: Sequence[str], unused: bool = False) -> int:
        """Forgets models and removes what only they referred to; `unused`: also everything else that no model refers to, and
        unfinished downloads. The bytes that frees. Raises UsageProblem (`store-in-use`) where that is asked while something is
        fetched."""
        from sdrun.models.blobs import Blobs
        from sdrun.models.locks import nobody_filling, store_lock

        blobs, held = Blobs(self.root), self.names
        with nobody_filling(self.root) if unused else nullcontext(), store_lock(self.root):
            gone = {file.sha256 for name in names if (model := held.get(name)) for file in model.files.values()}
            for name in names:
                held.remove(name)
            gone = (gone | set(blobs.present() if unused else ())) - held.referred()
            freed = sum(blobs.discard(sha256) for sha256 in gone)
            for path in (self.root / "partial").glob("*") if unused else ():
                freed += path.stat().st_size
                path.unlink()
        return freed

    def _make(self, model: Model, made_by: MadeBy) -> StoredModel:
        from sdrun.models.making import make

        return make(model, made_by, self.root, self._say)

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


_WORDS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_UNKNOWN_LICENCE = Licence("unknown", "conditional")


def part_of(path: Path) -> str:
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
