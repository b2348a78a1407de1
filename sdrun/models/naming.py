"""From what the user calls a model to files the engine can open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sdrun.core.model import ROLES, Catalogue, Model, ModelFiles
from sdrun.errors import UsageProblem
from sdrun.models.store import HUB_PREFIX, Say, Store, on_stderr, store_root, usable

if TYPE_CHECKING:
    from sdrun.models.meter import Show
    from sdrun.models.pull import Wishes

_SUFFIXES = (".gguf", ".safetensors", ".ckpt", ".pt", ".pth", ".sft")
_ROLE = re.compile(r"([A-Za-z0-9_-]+)=(.*)", re.DOTALL)
_NEXT_ROLE = re.compile(r",(?=[A-Za-z0-9_-]+=)")  # a comma within a path is not followed by a word and "="


def resolve_model(
    text: str,
    models: Mapping[str, Model],
    cache_dir: Path,
    say: Say = on_stderr,
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
        return ModelFiles(Path(text).name, MappingProxyType({"model": usable(text)}), None)
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


def own_files(text: str) -> ModelFiles:
    """The user's own files: the path of one, or `role=PATH,role=PATH`. Raises as resolve_model."""
    if _ROLE.match(text) and not _is_file(text):
        return ModelFiles(text, {role: usable(place) for role, place in _roles(text).items()}, None)
    return ModelFiles(Path(text).name, {"model": usable(text)}, None)


def _roles(text: str) -> dict[str, str]:
    """`role=PLACE,role=PLACE` taken apart."""
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
    return named


def _by_role(text: str, store: Store) -> ModelFiles:
    named = _roles(text)
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
            paths[role] = usable(place)
    return ModelFiles(text, MappingProxyType(paths), None, sha256=digests)
