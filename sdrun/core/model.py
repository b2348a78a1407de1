"""Models: what a catalogue row says of one, what people call it, and which files the engine is handed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

# The parts of a model by what the engine does with them. `model` is an all-in-one file.
ROLES = ("model", "diffusion", "llm", "tae", "vae", "clip_l", "clip_g", "t5xxl")
GENERATORS = ("tiny",)  # programs in sdrun that make a model's files
Commerce = Literal["allowed", "conditional", "forbidden"]
COMMERCE: tuple[str, ...] = get_args(Commerce)
Output = Literal["picture", "video"]
OUTPUTS: tuple[str, ...] = get_args(Output)
DEFAULT_REVISION = "main"
_QUANTISATION = re.compile(r"(.+)[:-]([a-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is asked of a model when the user does not say. `width` and `height` in pixels; `guidance` is the distilled
    guidance of models that take it as an input, None for all others."""

    width: int
    height: int
    steps: int
    cfg_scale: float
    sampler: str
    seed: int
    guidance: float | None = None


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on a model hub. `revision` is a commit, or None where none is pinned: then it is the repository's main branch, and
    the commit met at the first download is recorded."""

    repository: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}/{self.path}" + (f"@{self.revision}" if self.revision else "")

    @property
    def page(self) -> str:
        """The path of the repository's page on the hub."""
        return f"/{self.repository}"

    @property
    def key(self) -> str:
        """What a recorded pin belongs to."""
        return str(self).removeprefix("hf://")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file: its plain `name`, its size in bytes and its sha256 (64 hexadecimal digits), None where the catalogue does not
    know them, and where it comes `from_hub`; None for a file that is made here, ships with sdrun or is the user's own."""

    name: str
    bytes: int | None
    sha256: str | None
    from_hub: HubFile | None = None
    gated: bool = False


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The program in sdrun that makes the files (one of GENERATORS) and the seed it is given."""

    generator: str
    seed: int


@dataclass(frozen=True, slots=True)
class Licence:
    """`commercial` says whether commercial use is allowed; `accept` that the user must say yes before the first download;
    `page` where it can be read."""

    name: str
    commercial: Commerce
    page: str | None = None
    accept: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """One quantisation of one row of the catalogue. `name` is `row:quantisation`; `files` by role; `memory_mib` is what the
    engine needs at the default size with all files loaded; `engine_args` are what this model needs beyond its files; only a
    file outside the catalogue has no `defaults`. `shipped`: the folder below models/ in which the files come with sdrun, None
    for every other model."""

    name: str
    family: str
    quantisation: str
    licence: Licence
    made_by: MadeBy | None
    memory_mib: int
    files: Mapping[str, ModelFile]
    defaults: Defaults | None
    title: str = ""
    engine_args: tuple[str, ...] = ()
    output: Output = "picture"
    shipped: str | None = None

    @property
    def row(self) -> str:
        """The name without its quantisation."""
        return self.name.rpartition(":")[0] or self.name

    @property
    def gated(self) -> bool:
        """Whether the hub hands out one of its files only to accounts that have agreed to terms."""
        return any(file.gated for file in self.files.values())

    @property
    def bytes(self) -> int | None:
        """All files together; None where the size of one is not known."""
        sizes = [file.bytes for file in self.files.values()]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def pinned(self) -> int:
        """How many of its files the catalogue pins by sha256."""
        return sum(file.sha256 is not None for file in self.files.values())


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model ready to run: absolute paths by role. `defaults` is None for the user's own files; `sha256` has the digests that
    are known without reading the files, which are those of the store."""

    name: str
    files: Mapping[str, Path]
    defaults: Defaults | None
    engine_args: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    model: Model | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What people call the models of one catalogue row: its name, its other names, its quantisations in file order."""

    name: str
    aliases: tuple[str, ...]
    default: str
    quantisations: tuple[str, ...]

    def quantisation(self, text: str) -> str | None:
        """The quantisation that `text` names: itself, or the first that begins with it (`q4` is `q4_0` or `q4_k_m`)."""
        if text in self.quantisations:
            return text
        return next((known for known in self.quantisations if known.startswith(f"{text}_")), None)


class Catalogue(Mapping[str, Model]):
    """Models by every name people type. Iterating gives full names (`flux1-schnell:q4_0`) in file order; looking up also takes
    a row's name or alias alone (its default quantisation) and with a quantisation after a hyphen or a colon, in full or by
    its beginning: `flux`, `flux-q4`, `flux1-schnell:q4_0`. `default` is the name taken where the user names none."""

    __slots__ = ("_models", "_names", "default", "rows")

    def __init__(self, rows: Mapping[str, Row], models: Mapping[str, Model], default: str = "") -> None:
        self.default = default
        self.rows = MappingProxyType(dict(rows))
        self._models = dict(models)
        self._names = {name: row for row in rows.values() for name in (row.name, *row.aliases)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, text: str) -> Model:
        name = self.full_name(text)
        if name is None:
            raise KeyError(text)
        return self._models[name]

    def full_name(self, text: str) -> str | None:
        """The full name that `text` stands for, None where it is no name of this catalogue."""
        text = text.lower()
        if text in self._models:
            return text
        if text in self._names:
            row = self._names[text]
            return f"{row.name}:{row.default}"
        match = _QUANTISATION.fullmatch(text)
        if match is None or match[1] not in self._names:
            return None
        row = self._names[match[1]]
        quantisation = row.quantisation(match[2])
        return None if quantisation is None else f"{row.name}:{quantisation}"

    def names(self) -> tuple[str, ...]:
        """Every row name and alias, without quantisations: what a mistyped name is compared with."""
        return tuple(self._names)

    def row_of(self, text: str) -> Row | None:
        """The row whose name `text` begins with, where a quantisation that is not known stands behind it."""
        match = _QUANTISATION.fullmatch(text.lower())
        return None if match is None else self._names.get(match[1])
