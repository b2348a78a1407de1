"""From what the user calls a model to files the engine can open.

The store is `<cache>/models/<name>/<revision>/`; the revision is taken from the pinned hashes, so that two versions of sdrun
with different pins do not overwrite each other's files. A file there is whole and has its pinned sha256, or it is made again.
"""

from __future__ import annotations

import errno
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from sdrun.core.model import ROLES, Model, ModelFile, ModelFiles
from sdrun.errors import NotEnoughMemory, UsageProblem, VerificationFailed

Say = Callable[[str], None]

_SUFFIXES = (".gguf", ".safetensors", ".ckpt", ".pt", ".pth", ".sft")
_ROLE = re.compile(r"([A-Za-z0-9_-]+)=(.*)", re.DOTALL)
_NEXT_ROLE = re.compile(r",(?=[A-Za-z0-9_-]+=)")  # a comma within a path is not followed by a word and "="


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def resolve_model(text: str, models: Mapping[str, Model], cache_dir: Path, say: Say = _on_stderr) -> ModelFiles:
    """The files of the model that `text` names: a catalogue name, the path of an all-in-one file, or `role=PATH,role=PATH`.

    A catalogue model is made in `cache_dir`/models on first use (resources.cache_root() is the user's), which is said through
    `say`. Raises UsageProblem (`unknown-model`, `model-file-missing`, `model-file-unreadable`, `bad-option`,
    `cache-not-writable`), VerificationFailed (`model-file-damaged`, `hash-mismatch`), NotEnoughMemory (`disk-full`).
    """
    if text in models:
        return _from_catalogue(models[text], cache_dir, say)
    if _ROLE.match(text) and not _is_file(text):
        return ModelFiles(text, MappingProxyType(_by_role(text)), None)
    if "/" in text or text.lower().endswith(_SUFFIXES) or _is_file(text):
        return ModelFiles(Path(text).name, MappingProxyType({"model": _usable(text)}), None)
    raise _unknown(text, models)


def model_folder(model: Model, cache_dir: Path) -> Path:
    """Where the files of a catalogue model are kept."""
    pins = "".join(file.sha256 for file in model.files.values())
    return cache_dir / "models" / model.name / hashlib.sha256(pins.encode()).hexdigest()[:12]


def _unknown(text: str, models: Mapping[str, Model]) -> UsageProblem:
    import difflib

    near = difflib.get_close_matches(text.lower(), models, n=3, cutoff=0.5)
    remedy = f"Did you mean {' or '.join(near)}?" if near else f"The catalogue has {', '.join(models)}."
    return UsageProblem(
        f"no model is called {text[:80]!r}", f"{remedy} A file is named by its path, such as ./model.gguf.", id="unknown-model"
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def _by_role(text: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for part in _NEXT_ROLE.split(text):
        match = _ROLE.fullmatch(part)
        role, path = (match[1], match[2]) if match else ("", part)
        if role not in ROLES:
            raise UsageProblem(
                f"{role[:40]!r} is no part of a model",
                f"Parts are {', '.join(ROLES)}. A file whose name has a = in it is named by its path, such as ./a=b.gguf.",
            )
        if role in files:
            raise UsageProblem(f"the model's part {role} is named twice", "Name each part once.")
        files[role] = _usable(path)
    if not {"model", "diffusion"} & files.keys():
        raise UsageProblem(
            "the model has neither a part model nor a part diffusion",
            "Name the diffusion model too: diffusion=PATH, or model=PATH for an all-in-one file.",
        )
    return files


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


def _from_catalogue(model: Model, cache_dir: Path, say: Say) -> ModelFiles:
    folder = model_folder(model, cache_dir.expanduser().absolute())
    with _store_errors(folder):
        if _faults(model, folder):
            _make(model, folder, say)
    paths = {role: folder / file.name for role, file in model.files.items()}
    return ModelFiles(model.name, MappingProxyType(paths), model.defaults)


def _make(model: Model, folder: Path, say: Say) -> None:
    """Makes what is missing or damaged. Of several processes one does, the others wait for it."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        faults = _faults(model, folder)
        if not all(faults.values()):
            say(f"making the model {model.name} in {folder}")
        for role, damaged in faults.items():
            if damaged:
                say(f"{folder / model.files[role].name} is damaged; making it again")
            _make_file(model, role, folder)


def _make_file(model: Model, role: str, folder: Path) -> None:
    from sdrun.models import tiny
    from sdrun.models.gguf import write_atomically

    data = {"tiny": tiny.build}[model.made_by.generator](role, model.made_by.seed)
    file = model.files[role]
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise VerificationFailed(
            f"{file.name} of the model {model.name} came out different from the one that is pinned",
            "Reinstall sdrun: its catalogue and its program do not belong together.",
            id="hash-mismatch",
        )
    write_atomically(folder / file.name, data)


def _faults(model: Model, folder: Path) -> dict[str, bool]:
    """The roles whose file is not as pinned: True where there is a file, False where there is none."""
    return {role: (folder / file.name).exists() for role, file in model.files.items() if not _as_pinned(folder, file)}


def _as_pinned(folder: Path, file: ModelFile) -> bool:
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


@contextmanager
def _store_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughMemory(
                f"no space left for the model in {folder}",
                "Free some space there, or set SDRUN_CACHE_DIR to a folder on another disk.",
                id="disk-full",
            ) from None
        raise UsageProblem(
            f"the model store {folder} cannot be used: {fault.strerror or fault}",
            "Set SDRUN_CACHE_DIR to a folder that can be written.",
            id="cache-not-writable",
        ) from None
