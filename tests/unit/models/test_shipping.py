"""Models that come with sdrun: into the store without a network, checked, and told when they are not what they should be."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from sdrun.catalog.models import models
from sdrun.cli.modeltext import description, model_document, table
from sdrun.core.model import Catalogue, Model, ModelFile
from sdrun.errors import VerificationFailed
from sdrun.models.blobs import Blobs
from sdrun.models.names import Names
from sdrun.models.pull import Wishes
from sdrun.models.store import Store
from sdrun.models.tiny import write
from sdrun.resources import models_dir


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder models/ as an installed package has one, with the files of one model."""
    folder = tmp_path / "package" / "models"
    (folder / "own" / "weights").mkdir(parents=True)
    write(folder / "own" / "weights")
    monkeypatch.setattr("sdrun.resources.models_dir", lambda: folder)
    return folder


@pytest.fixture
def model(package: Path) -> Model:
    files = {}
    for role, file in models()["tiny"].files.items():
        data = (package / "own" / "weights" / file.name).read_bytes()
        files[role] = ModelFile(file.name, len(data), hashlib.sha256(data).hexdigest())
    return replace(models()["tiny"], name="own:q4_0", made_by=None, shipped="own/weights", files=MappingProxyType(files))


def test_is_taken_in_on_first_use_without_a_network(
    model: Model, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    root = tmp_path / "store"
    files = Store(root, wishes=Wishes(offline=True)).have(model)
    for role, path in files.files.items():
        assert path.name == model.files[role].name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == model.files[role].sha256 == files.sha256[role]
        assert path.resolve().stat().st_ino == (package / "own/weights" / path.name).stat().st_ino, "it costs no room"
    assert Names(root).get("own:q4_0") is not None


def test_is_copied_to_another_file_system(model: Model, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crossing(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", crossing)
    root = tmp_path / "store"
    before = {path: path.read_bytes() for path in (package / "own/weights").iterdir()}
    Store(root).have(model)
    assert Blobs(root).present() == sorted(file.sha256 or "" for file in model.files.values())
    assert {path: path.read_bytes() for path in before} == before
    for path in (root / "blobs").glob("sha256-*[0-9a-f]"):
        assert path.stat().st_nlink == 1


def test_a_store_that_lost_a_file_has_it_again(model: Model, tmp_path: Path) -> None:
    root = tmp_path / "store"
    files = Store(root).have(model)
    files.files["llm"].resolve().unlink()
    again = Store(root).have(model)
    assert again.files["llm"].stat().st_size == model.files["llm"].bytes


def test_removing_it_from_the_store_leaves_what_is_shipped(model: Model, package: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    Store(root).have(model)
    assert Store(root).remove(["own:q4_0"]) == 0, "the package's own link stays"
    assert len(list((package / "own/weights").iterdir())) == 3
    assert Store(root).have(model).files["llm"].exists()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_bytes(b"GGUF" + bytes(path.stat().st_size - 4)), "not the one that is pinned"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_what_is_not_what_is_pinned_is_refused(model: Model, package: Path, tmp_path: Path, harm: object, words: str) -> None:
    path = package / "own" / "weights" / "tiny-llm.gguf"
    assert callable(harm)
    harm(path)
    with pytest.raises(VerificationFailed, match=words) as caught:
        Store(tmp_path / "store").have(model)
    assert (caught.value.id, caught.value.exit_code) == ("hash-mismatch", 7)
    assert "Reinstall sdrun" in caught.value.remedy
    assert str(path) in caught.value.message
    assert Names(tmp_path / "store").get("own:q4_0") is None


def test_what_is_said_of_it(model: Model, tmp_path: Path) -> None:
    catalogue = Catalogue({"own": replace(models().rows["tiny"], name="own")}, {"own:q4_0": model}, "own")
    names = Names(tmp_path / "store")
    document = model_document(model, catalogue, names)
    assert (document["shipped"], document["here"]) == (True, True)
    assert "shipped with sdrun" in description(document)
    row = next(line for line in table(catalogue, names, here=False).splitlines() if line.startswith("own:q4_0"))
    assert " yes " in row
    other = model_document(models()["tiny"], models(), names)
    assert (other["shipped"], other["here"]) == (False, False)


def test_what_the_catalogue_ships_is_there() -> None:
    shipped = [model for model in models().values() if model.shipped is not None]
    for model in shipped:
        for file in model.files.values():
            assert (models_dir() / str(model.shipped) / file.name).stat().st_size == file.bytes
