"""images/models.yaml and its reader: what ships is sound, and every fault of a bad file is told with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sdrun.catalog.engines import engines
from sdrun.catalog.models import models
from sdrun.core.model import Defaults, MadeBy, Model
from sdrun.errors import BadConfiguration

ROW = """\
models:
  - name: small
    family: flux
    quantisation: q4_0
    licence: MIT
    made_by:
      generator: tiny
      seed: 3
    memory_mib: 300
    files:
      diffusion:
        file: d.gguf
        bytes: 100
        sha256: "{sha256}"
    defaults:
      width: 512
      height: 256
      steps: 4
      cfg_scale: 1
      sampler: euler
      seed: 0
""".format(sha256="ab" * 32)


def test_what_ships() -> None:
    for name, model in models().items():
        assert model.name == name
        assert model.defaults.sampler in next(iter(engines().values())).samplers
    assert "tiny" in models()


def test_a_good_row(tmp_path: Path) -> None:
    model = read(tmp_path, ROW)["small"]
    assert model.made_by == MadeBy("tiny", 3)
    assert model.defaults == Defaults(512, 256, 4, 1.0, "euler", 0)
    assert (model.files["diffusion"].name, model.files["diffusion"].bytes) == ("d.gguf", 100)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("small", "Small Model", 2, "models[0].name: must consist of"),
        ("generator: tiny", "generator: huge", 7, "must be one of tiny"),
        ("seed: 3", "seed: -3", 8, "must be at least 0"),
        ("memory_mib: 300", "memory_mib: 300.5", 9, "must be a whole number"),
        ("diffusion:", "unet:", 11, "is not a key here"),
        ("diffusion:", "llm:", 10, 'needs a "model" or a "diffusion" file'),
        ("file: d.gguf", "file: ../d.gguf", 12, "must consist of"),
        ("bytes: 100", "bytes: 0", 13, "must be at least 1"),
        ("abab", "AB", 14, "must consist of 64"),
        ("width: 512", "width: 500", 16, "must be a multiple of 64"),
        ("cfg_scale: 1", "cfg_scale: yes", 19, "must be a number"),
        ("cfg_scale: 1", "cfg_scale: .nan", 19, "must be a number"),
        ("sampler: euler", "sampler: 1", 20, "must be a string"),
        ("family: flux", "familly: flux", 3, "is not a key here"),
        ("    family: flux\n", "", 2, "family: is missing"),
    ],
)
def test_a_bad_row(tmp_path: Path, old: str, new: str, line: int, reason: str) -> None:
    assert old in ROW
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, ROW.replace(old, new, 1))
    assert f"{tmp_path / 'models.yaml'}:{line}: " in caught.value.message
    assert reason in caught.value.message


def test_every_bad_row_is_told(tmp_path: Path) -> None:
    row = ROW.removeprefix("models:\n")
    bad = row.replace("small", "third").replace("q4_0", "4")
    text = "models:\n" + row.replace("steps: 4", "steps: 0") + row.replace("small", "other") + bad
    with pytest.raises(BadConfiguration) as caught:
        read(tmp_path, text)
    assert [fault.split(":")[1] for fault in caught.value.message.splitlines()] == ["18", "44"]


def test_a_name_twice_and_a_file_twice(tmp_path: Path) -> None:
    row = ROW.removeprefix("models:\n")
    with pytest.raises(BadConfiguration, match="small stands here a second time"):
        read(tmp_path, ROW + row)
    files = '      llm:\n        file: d.gguf\n        bytes: 1\n        sha256: "' + "cd" * 32 + '"\n    defaults:'
    (tmp_path / "again").mkdir()
    with pytest.raises(BadConfiguration, match="two roles have the same file name"):
        read(tmp_path / "again", ROW.replace("    defaults:", files))


@pytest.mark.parametrize("text", ["", "models: []\n", "models: 3\n", "- models\n", "models:\n  - 3\n"])
def test_no_catalogue_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfiguration):
        read(tmp_path, text)


def read(folder: Path, text: str) -> Mapping[str, Model]:
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    return models(path)
