"""A picture carries how it was made: written into it before it appears, read back by `sdrun show`.

sdrun's own text stands under the keyword `sdrun`; the engine's `parameters` stays as it is. Of other programs' pictures the
line that AUTOMATIC1111's web UI introduced, also under `parameters`, is understood as far as it goes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdrun.core.decode import Malformed
from sdrun.core.labels import ENGINE, ENGINE_REVISION
from sdrun.core.picture import Init, Record, UsedFile, UsedImage, UsedModel, parse
from sdrun.errors import BadConfiguration
from sdrun.launch.png import BadPicture
from sdrun.launch.pngtext import insert_text, read_texts

if TYPE_CHECKING:
    from sdrun.core.model import ModelFiles
    from sdrun.launch.generate import Prepared

KEYWORD = "sdrun"
FOREIGN_KEYWORD = "parameters"
_NEGATIVE = "\nNegative prompt: "
_SETTINGS = re.compile(r"Steps: [0-9]+(, |\Z)")
_SETTING = re.compile(r"([A-Z][A-Za-z ]{0,40}): ([^,\n]{0,200})")
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


def embed(prepared: Prepared, pictures: Sequence[Path], device: str) -> None:
    """Writes into each PNG how it was made; `pictures` are the engine's files, in order. A JPEG is left as it is, and so is a
    file that is no PNG at all: that is told later, when it is checked."""
    for number, path in enumerate(pictures):
        if path.suffix.lower() != ".png" or not path.exists():
            continue
        document = record_of(prepared, number, device).to_json()
        try:
            insert_text(path, KEYWORD, json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        except BadPicture:
            return


def record_of(prepared: Prepared, number: int, device: str) -> Record:
    """How picture `number` (from 0) of the run is made."""
    from sdrun import __version__

    decided = prepared.decided
    request, chosen = decided.request, decided.chosen
    labels = chosen.local.labels if chosen.local is not None else {}
    init = request.init
    return Record(
        prompt=request.prompt,
        negative=request.negative,
        seed=None if request.seed is None else request.seed + number,  # the engine counts up within a batch
        width=request.width,
        height=request.height,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        guidance=request.guidance,
        sampler=request.sampler,
        scheduler=request.scheduler,
        strength=request.strength,
        init=None if init is None else Init(init.name, _sha256(init)),
        engine_args=(*decided.fitted.options, *request.engine_args),  # what saves memory changes pixels a little
        model=_model(decided.model),
        image=UsedImage(chosen.plan.target, chosen.image, labels.get(ENGINE, ""), labels.get(ENGINE_REVISION, "")),
        device=device,
        version=__version__,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _model(model: ModelFiles) -> UsedModel:
    own = model.defaults is None and not model.sha256
    files = (UsedFile(role, path.name, path.stat().st_size, model.sha256.get(role)) for role, path in model.files.items())
    return UsedModel(None if own else model.name, tuple(files))


def read_record(path: Path) -> tuple[Record, str]:
    """The record in a picture and the keyword it stood under. Raises BadConfiguration `bad-picture` where the file is no PNG or
    cannot be read, `no-metadata` where nothing in it says how it was made."""
    try:
        texts = read_texts(path)
    except BadPicture as fault:
        raise BadConfiguration(f"{path}: {fault}", "Name a PNG file.", id="bad-picture") from None
    except (OSError, ValueError) as fault:
        why = getattr(fault, "strerror", None) or fault
        raise BadConfiguration(f"{str(path)!r} cannot be read: {why}", "Check the path.", id="bad-picture") from None
    fault_text = "nothing in it says how it was made"
    if KEYWORD in texts:
        try:
            return parse(texts[KEYWORD]), KEYWORD
        except Malformed as fault:
            fault_text = f"its record is damaged: {fault}"
    if FOREIGN_KEYWORD in texts:
        return foreign(texts[FOREIGN_KEYWORD]), FOREIGN_KEYWORD
    raise BadConfiguration(f"{path}: {fault_text}", "Pictures lose it when other programs save them.", id="no-metadata")


def foreign(text: str) -> Record:
    """The record in the text AUTOMATIC1111's web UI introduced: the prompt, a line with the negative one, a line of settings.
    What is not understood is kept among the notes."""
    head, line, settings = text.rpartition("\nSteps: ")
    if not line or not _SETTINGS.match(f"Steps: {settings}"):
        head, settings = text, ""
    prompt, _, negative = head.partition(_NEGATIVE)
    named = dict(_SETTING.findall(f"Steps: {settings}".partition(", SDCPP: ")[0])) if settings else {}
    size = _SIZE.fullmatch(named.pop("Size", ""))
    return Record(
        prompt=prompt,
        negative=negative,
        seed=_whole(named.pop("Seed", "")),
        width=int(size[1]) if size else None,
        height=int(size[2]) if size else None,
        steps=_whole(named.pop("Steps", "")),
        cfg_scale=_number(named.pop("CFG scale", "")),
        guidance=_number(named.pop("Guidance", "")),
        sampler=named.pop("Sampler", "") or None,
        notes=named,
    )


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,12})?", text) else None
