"""How a picture came about, schema `sdrun.picture/v1`: what stands in its file, and what is enough to draw it again.

No time of day and no folder of the writer's machine is kept: the same request gives the same bytes everywhere, and a picture
that is passed on tells nothing about where it was made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdrun.core.decode import Fields, Malformed, check

SCHEMA = "sdrun.picture/v1"
_SIZE_MAX = 1 << 20  # pixels on a side; also bounds steps
_SEED_MAX = 2**63 - 1
_FILES_MAX = 32


@dataclass(frozen=True, slots=True)
class UsedFile:
    """A file of the model: its `role`, `name` and size. `sha256` is None where it was not known without reading the file."""

    role: str
    name: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class UsedModel:
    """`name` is the catalogue's or hub's; None for the user's own files, which are known by role and name."""

    name: str | None
    files: tuple[UsedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class UsedImage:
    """The engine image. `digest`: its content id, or a reference by digest; `revision`: the engine's commit."""

    target: str
    digest: str
    engine: str
    revision: str


@dataclass(frozen=True, slots=True)
class Init:
    """The first picture: its file name and sha256."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """One picture. What is None was left to the model and the engine. `seed` is this picture's own, also in a batch."""

    prompt: str
    negative: str = ""
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    strength: float | None = None
    init: Init | None = None
    engine_args: tuple[str, ...] = ()
    model: UsedModel | None = None
    image: UsedImage | None = None
    device: str | None = None
    version: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The document; what is not known is left out."""
        document: dict[str, object] = {
            "schema": SCHEMA,
            "sdrun": self.version,
            "prompt": self.prompt,
            "negative_prompt": self.negative or None,
            "seed": self.seed,
            "width": self.width,
            "height": self.height,
            "steps": self.steps,
            "cfg_scale": self.cfg_scale,
            "guidance": self.guidance,
            "sampler": self.sampler,
            "scheduler": self.scheduler,
            "strength": self.strength,
            "init": self.init and {"name": self.init.name, "sha256": self.init.sha256},
            "engine_args": list(self.engine_args) or None,
            "model": self.model and {"name": self.model.name, "files": [_file(file) for file in self.model.files]},
            "image": self.image and {name: getattr(self.image, name) for name in ("target", "digest", "engine", "revision")},
            "device": self.device,
            "notes": dict(self.notes) or None,
        }
        return {name: value for name, value in document.items() if value is not None}


def _file(file: UsedFile) -> dict[str, object]:
    return {"role": file.role, "name": file.name, "bytes": file.bytes, "sha256": file.sha256}


def parse(text: str) -> Record:
    """The record in a picture's text. Raises Malformed, whatever the text is."""
    try:
        document = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Malformed("(document)", "is not JSON") from None
    return from_json(document)


def _integer(digits: str) -> int:
    """A number; Python takes time in the square of the digits to read a long one."""
    if len(digits) > 20:
        raise ValueError("too long")
    return int(digits)


def from_json(document: object) -> Record:
    """The record of a parsed document. Raises Malformed naming the key."""
    top = Fields(document)
    if (schema := top.get("schema", str)) != SCHEMA:
        raise Malformed("schema", f"must be {SCHEMA!r}, not {schema[:40]!r}")
    init, image = top.find("init", dict), top.find("image", dict)
    words = tuple(check(value, str, path) for path, value in top.items("engine_args", optional=True))
    return Record(
        prompt=top.get("prompt", str),
        negative=top.find("negative_prompt", str) or "",
        seed=_natural(top, "seed", _SEED_MAX),
        width=_natural(top, "width", _SIZE_MAX),
        height=_natural(top, "height", _SIZE_MAX),
        steps=_natural(top, "steps", _SIZE_MAX),
        cfg_scale=_real(top, "cfg_scale"),
        guidance=_real(top, "guidance"),
        sampler=top.find("sampler", str),
        scheduler=top.find("scheduler", str),
        strength=_real(top, "strength"),
        init=None if init is None else Init(*_texts(Fields(init, "init"), "name", "sha256")),
        engine_args=words,
        model=_model(top),
        image=None if image is None else UsedImage(*_texts(Fields(image, "image"), "target", "digest", "engine", "revision")),
        device=top.find("device", str),
        version=top.find("sdrun", str),
        notes={str(name): check(value, str, f"notes.{name}") for name, value in (top.find("notes", dict) or {}).items()},
    )


def _texts(row: Fields, *names: str) -> tuple[str, ...]:
    return tuple(row.get(name, str) for name in names)


def _natural(row: Fields, name: str, most: int) -> int | None:
    value = row.find(name, int)
    if value is not None and not 0 <= value <= most:
        raise Malformed(row.key(name), f"must be from 0 to {most}")
    return value


def _real(row: Fields, name: str) -> float | None:
    value = row.find(name, object)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Malformed(row.key(name), "must be a number")
    return float(value)


def _model(top: Fields) -> UsedModel | None:
    document = top.find("model", dict)
    if document is None:
        return None
    row = Fields(document, "model")
    files = tuple(_used(Fields(value, path)) for path, value in row.items("files", optional=True)[:_FILES_MAX])
    return UsedModel(row.find("name", str), files)


def _used(row: Fields) -> UsedFile:
    size = _natural(row, "bytes", _SEED_MAX) or 0
    return UsedFile(row.get("role", str), row.get("name", str), size, row.find("sha256", str))
