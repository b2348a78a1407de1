"""The shipped model: small enough, told in the catalogue as it is; the README's sheet asks for what the world has."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models.shapes import ship
from models.shapes.grammar import read
from models.shapes.sheet import ACROSS, PROMPTS, verdict
from models.shapes.ship import LIMIT, pinned
from sdrun.catalog.families import families
from sdrun.catalog.models import models
from sdrun.core.fileset import full_names
from sdrun.models.headers import read_header
from sdrun.resources import models_dir

MODEL = models()["shapes"]
FOLDER = models_dir() / str(MODEL.shipped)


def test_the_files_are_the_pinned_ones_and_small() -> None:
    assert sum(file.bytes or 0 for file in MODEL.files.values()) < LIMIT
    for file in MODEL.files.values():
        data = (FOLDER / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert "# shapes" in (FOLDER / "CARD.md").read_text(encoding="utf-8")


def test_the_files_are_one_model_of_the_family_that_the_catalogue_says() -> None:
    headers = {role: read_header(FOLDER / file.name) for role, file in MODEL.files.items()}
    family = families().family_of(full_names(headers, families()))
    assert family is not None
    assert family.name == MODEL.family


def test_kernels_can_be_told_apart() -> None:
    """What the engine leaves as it is whatever --type says must not be quantised: else every probe of the self-test would use
    the kernels of that type."""
    header = read_header(FOLDER / MODEL.files["diffusion"].name)
    kept = {
        tensor.name: tensor.type
        for tensor in header.tensors
        if tensor.name.startswith(("img_in", "txt_in", "time_in", "final"))
    }
    assert len(kept) >= 8
    assert set(kept.values()) <= {"f16", "f32"}


def test_the_sheet_has_rows_of_prompts_of_the_world_and_one_of_another() -> None:
    assert len(PROMPTS) == len(set(PROMPTS)) == 24
    assert len(PROMPTS) % ACROSS == 0
    for prompt in PROMPTS[:-1]:
        assert read(prompt).items
    assert verdict(PROMPTS[-1], None) is None


ROW = """\
          llm:
            file: shapes-llm.gguf
            bytes: 1
            sha256: "00"
"""


def test_shipping_pins_what_it_takes() -> None:
    digest = hashlib.sha256(b"GGUF").hexdigest()
    assert pinned(ROW, "shapes-llm.gguf", b"GGUF") == ROW.replace("bytes: 1", "bytes: 4").replace('"00"', f'"{digest}"')
    with pytest.raises(ValueError, match="has 0 files shapes-tae"):
        pinned(ROW, "shapes-tae.gguf", b"GGUF")
    with pytest.raises(ValueError, match="has 2 files"):
        pinned(ROW + ROW, "shapes-llm.gguf", b"GGUF")


def test_shipping_takes_three_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "HERE", tmp_path / "here")
    (tmp_path / "shapes-llm.gguf").write_bytes(b"GGUF")
    with pytest.raises(SystemExit, match="holds 1 files"):
        ship.main(tmp_path)
    assert not (tmp_path / "here").exists()
