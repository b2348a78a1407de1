"""What the user may call a model, the errors for everything else, and the store: made once, whole, checked."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.catalog.models import models
from sdrun.core.model import Model, ModelFile
from sdrun.errors import NotEnoughMemory, SdrunError, UsageProblem, VerificationFailed
from sdrun.models import gguf
from sdrun.models.blobs import Blobs
from sdrun.models.names import Names
from sdrun.models.naming import resolve_model
from sdrun.models.store import store_root
from sdrun.models.tiny import build

CATALOGUE = models()
TINY = CATALOGUE["tiny"]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The files of tiny as the user's own."""
    folder = tmp_path_factory.mktemp("own")
    paths = {role: folder / f"{role}.gguf" for role in TINY.files}
    for role, path in paths.items():
        path.write_bytes(build(role))
    return paths


def test_a_catalogue_model_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    found = resolve_model("tiny", CATALOGUE, tmp_path, said.append)
    assert found.name == "tiny:q4_0"
    assert dict(found.sha256) == {role: file.sha256 for role, file in TINY.files.items()}
    assert found.defaults == TINY.defaults
    assert list(found.files) == ["diffusion", "llm", "tae"]
    assert all(path.is_absolute() and path.is_file() for path in found.files.values())
    assert [path.name for path in found.files.values()] == ["tiny-diffusion.gguf", "tiny-llm.gguf", "tiny-tae.gguf"]
    assert all(path.resolve().parent == tmp_path / "models" / "blobs" for path in found.files.values())
    assert said == [f"making the model tiny:q4_0 in {tmp_path / 'models'}"]
    before = {path: path.stat().st_mtime_ns for path in found.files.values()}
    assert resolve_model("tiny", CATALOGUE, tmp_path, said.append) == found
    assert len(said) == 1
    assert {path: path.stat().st_mtime_ns for path in found.files.values()} == before


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_file_is_made_again_and_that_is_said(tmp_path: Path, harm: str) -> None:
    path = resolve_model("tiny", CATALOGUE, tmp_path, lambda text: None).files["diffusion"]
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.chmod(0o644)
    path.write_bytes({"flip": flipped, "cut": whole[:-1], "empty": b""}[harm])
    said: list[str] = []
    resolve_model("tiny", CATALOGUE, tmp_path, said.append)
    assert path.read_bytes() == whole
    assert said == ["tiny-diffusion.gguf of the model tiny:q4_0 is damaged; making it again"]


def test_processes_that_start_together_make_it_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sdrun.catalog.models import models;"
        "from sdrun.models.naming import resolve_model; resolve_model('tiny', models(), Path(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(map(len, said))[:3] == [0, 0, 0]
    assert "making the model tiny" in "".join(said)
    assert Blobs(store_root(tmp_path, {})).present() == sorted(str(file.sha256) for file in TINY.files.values())


def test_a_file_that_was_only_touched_is_hashed_and_kept(tmp_path: Path) -> None:
    path = resolve_model("tiny", CATALOGUE, tmp_path, lambda text: None).files["llm"]
    path.resolve().touch()
    said: list[str] = []
    assert resolve_model("tiny", CATALOGUE, tmp_path, said.append).files["llm"] == path
    assert said == []


def test_what_is_whole_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve_model("tiny", CATALOGUE, tmp_path, lambda text: None)
    monkeypatch.setattr("sdrun.models.blobs.digest_of", lambda *args: pytest.fail("a file was read"))
    assert resolve_model("tiny", CATALOGUE, tmp_path) == found


def test_the_place_of_the_store(tmp_path: Path) -> None:
    assert store_root(tmp_path, {}) == tmp_path / "models"
    assert store_root(tmp_path, {"SDRUN_MODELS_DIR": "/srv/models"}) == Path("/srv/models")


def test_what_differs_from_its_pin_is_refused_and_not_kept(tmp_path: Path) -> None:
    wrong: Mapping[str, ModelFile] = {**TINY.files, "llm": replace(TINY.files["llm"], sha256="0" * 64)}
    model: Model = replace(TINY, files=wrong)
    fault = refusal("tiny", {"tiny": model}, tmp_path)
    assert (type(fault), fault.id, fault.exit_code) == (VerificationFailed, "hash-mismatch", 7)
    assert Blobs(store_root(tmp_path, {})).present() == [TINY.files["diffusion"].sha256]
    assert Names(store_root(tmp_path, {})).all() == []


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fault = refusal("tiny", CATALOGUE, tmp_path / "file")
    assert (type(fault), fault.id) == (UsageProblem, "cache-not-writable")
    assert "SDRUN_CACHE_DIR" in fault.remedy


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf, "write_atomically", full)
    fault = refusal("tiny", CATALOGUE, tmp_path)
    assert (type(fault), fault.id, fault.exit_code) == (NotEnoughMemory, "disk-full", 10)


def test_a_file_of_the_users_own(files: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve_model(str(files["tae"]), CATALOGUE, tmp_path)
    assert dict(found.files) == {"model": files["tae"]}
    assert found.defaults is None
    monkeypatch.chdir(files["tae"].parent)
    assert resolve_model("tae.gguf", CATALOGUE, tmp_path).files == found.files
    assert resolve_model("./tae.gguf", CATALOGUE, tmp_path).files == found.files
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_name_wins_over_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").write_bytes(build("llm"))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("tiny", CATALOGUE, tmp_path / "cache").name == "tiny:q4_0"
    assert dict(resolve_model("./tiny", CATALOGUE, tmp_path).files) == {"model": tmp_path / "tiny"}


def test_files_by_role(files: Mapping[str, Path], tmp_path: Path) -> None:
    odd = tmp_path / "a,b = c.gguf"
    odd.write_bytes(files["tae"].read_bytes())
    found = resolve_model(f"diffusion={files['diffusion']},llm={files['llm']},tae={odd}", CATALOGUE, tmp_path)
    assert dict(found.files) == {"diffusion": files["diffusion"], "llm": files["llm"], "tae": odd}


@pytest.mark.parametrize(
    ("text", "id", "words"),
    [
        ("tinny", "unknown-model", "Did you mean tiny?"),
        ("TINNY", "unknown-model", "Did you mean tiny?"),
        ("stable-diffision", "unknown-model", "Did you mean stable-diffusion"),
        ("flux-q5", "unknown-model", "flux1-schnell comes as flux1-schnell:q4_0 and flux1-schnell:q8_0."),
        ("tiny:q9", "unknown-model", "tiny comes as tiny:q4_0."),
        ("zzzzzz", "unknown-model", "The catalogue has shapes, tiny"),
        ("hf://owner/file.gguf", "bad-option", "hf://owner/repository/path"),
        ("hf://owner/repository/../x.gguf", "bad-option", "hf://owner/repository/path"),
        ("wan2.1", "video-model", "makes videos"),
        ("", "unknown-model", "The catalogue has"),
        ("x" * 5000, "unknown-model", "The catalogue has"),
        ("a\0b", "unknown-model", "The catalogue has"),
        ("tests", "unknown-model", "The catalogue has"),  # a folder's name is no path without a slash
        ("./missing.gguf", "model-file-missing", "does not exist"),
        ("missing.safetensors", "model-file-missing", "does not exist"),
        ("/", "model-file-missing", "is a folder"),
        ("/dev/null", "model-file-missing", "is no regular file"),
        ("/" + "x" * 5000, "model-file-unreadable", "too long"),
        ("unet=a.gguf", "bad-option", "'unet' is no part of a model"),
        ("diffusion=", "model-file-missing", "is a folder"),
        ("diffusion=/nowhere.gguf", "model-file-missing", "/nowhere.gguf"),
    ],
)
def test_usage_problems(text: str, id: str, words: str, tmp_path: Path) -> None:
    fault = refusal(text, CATALOGUE, tmp_path)
    assert (type(fault), fault.id, fault.exit_code) == (UsageProblem, id, 2)
    assert words in f"{fault.message} {fault.remedy}"
    assert list(tmp_path.iterdir()) == []


def test_roles_that_do_not_make_a_model(files: Mapping[str, Path], tmp_path: Path) -> None:
    assert "neither" in refusal(f"llm={files['llm']}", CATALOGUE, tmp_path).message
    assert "twice" in refusal(f"llm={files['llm']},llm={files['llm']}", CATALOGUE, tmp_path).message


@pytest.mark.parametrize("text", ["{}", "diffusion={}"])
def test_damaged_files(text: str, files: Mapping[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(files["diffusion"].read_bytes()[:-1000])
    fault = refusal(text.format(path), CATALOGUE, tmp_path)
    assert (type(fault), fault.id, fault.exit_code) == (VerificationFailed, "model-file-damaged", 7)
    assert "703768 bytes of the 704768" in fault.message


def test_importing_the_store_is_cheap() -> None:
    heavy = "yaml, filelock, json, zipfile, difflib, tempfile, platformdirs"
    program = f"import sys, sdrun.models.naming; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_model_that_is_there_costs_no_download_code(tmp_path: Path) -> None:
    resolve_model("tiny", CATALOGUE, tmp_path, lambda said: None)
    program = (
        "import sys; from pathlib import Path; from sdrun.catalog.models import models;"
        "from sdrun.models.naming import resolve_model; resolve_model('tiny', models(), Path(sys.argv[1]));"
        "print([m for m in ('huggingface_hub', 'httpx2', 'filelock', 'rich', 'sdrun.models.pull') if m in sys.modules])"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_making_is_said_on_stderr_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resolve_model("tiny", CATALOGUE, tmp_path)
    assert capsys.readouterr() == ("", f"making the model tiny:q4_0 in {tmp_path / 'models'}\n")
    assert resolve_model("tiny", CATALOGUE, tmp_path)
    assert capsys.readouterr() == ("", "")


def refusal(text: str, catalogue: Mapping[str, Model], cache: Path) -> SdrunError:
    with pytest.raises(SdrunError) as caught:
        resolve_model(text, catalogue, cache, lambda said: None)
    return caught.value
