"""Models: what a catalogue row says of one, and which files the engine is handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The parts of a model by what the engine does with them. `model` is an all-in-one file.
ROLES = ("model", "diffusion", "llm", "tae", "vae", "clip_l", "clip_g", "t5xxl")
GENERATORS = ("tiny",)  # programs in sdrun that make a model's files


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is asked of a model when the user does not say. `width` and `height` in pixels."""

    width: int
    height: int
    steps: int
    cfg_scale: float
    sampler: str
    seed: int


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One pinned file: its `name` in the store, its size in bytes and its sha256 (64 hexadecimal digits)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The program in sdrun that makes the files (one of GENERATORS) and the seed it is given."""

    generator: str
    seed: int


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the catalogue. `files` by role; `memory_mib` is the engine's peak at the default size."""

    name: str
    family: str
    quantisation: str
    licence: str
    made_by: MadeBy
    memory_mib: int
    files: Mapping[str, ModelFile]
    defaults: Defaults


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model ready to run: absolute paths by role. `defaults` is None for the user's own files."""

    name: str
    files: Mapping[str, Path]
    defaults: Defaults | None
