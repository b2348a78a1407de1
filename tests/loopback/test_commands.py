"""The verbs of `sdrun models` and the names that lead to files, on a store of their own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from loopback.hub import COMMIT, Fault, Hub
from loopback.pulling import Pulling
from loopback.store import environment
from sdrun.catalog.models import models
from sdrun.cli.main import main
from sdrun.errors import SdrunError, VerificationFailed
from sdrun.models.naming import resolve_model
from sdrun.models.pull import Wishes
from sdrun.models.tiny import build

HERE = "them/small/llm.gguf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulling: Pulling) -> Path:
    """The cache of the program in this process."""
    for key, value in environment(pulling.hub).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SDRUN_MODELS_DIR", raising=False)
    return tmp_path / "cache"


class Program:
    """The command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr("sys.argv", ["sdrun", "models", *words])
        code = main()
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *words: str, code: int = 0) -> dict[str, object]:
        done, out, err = self(*words, "--json")
        assert done == code, err
        return dict(json.loads(out))


@pytest.fixture
def sdrun(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    return Program(monkeypatch, capsys)


def test_show_has_what_the_contract_says(sdrun: Program) -> None:
    document = sdrun.json("show", "flux")
    wanted = {"name", "family", "quantisation", "files", "licence", "gated", "defaults", "memory_mib"}
    assert wanted <= document.keys()
    assert (document["name"], document["licence"], document["gated"]) == ("flux1-schnell:q4_0", "Apache-2.0", False)
    files = document["files"]
    assert isinstance(files, list)
    assert {"repository", "file", "revision", "bytes", "sha256"} <= files[0].keys()
    assert document["defaults"] == {
        "width": 1024,
        "height": 1024,
        "steps": 4,
        "cfg_scale": 1.0,
        "sampler": "euler",
        "seed": 42,
        "guidance": None,
    }


def test_ls_lists_everything(sdrun: Program) -> None:
    code, out, _ = sdrun("ls")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", *models()]
    listed = sdrun.json("ls")["models"]
    assert isinstance(listed, list)
    assert [row["name"] for row in listed] == list(models())
    assert sdrun("ls", "--here")[1].splitlines()[1:] == []


def test_an_unknown_name(sdrun: Program) -> None:
    document = sdrun.json("show", "flix", code=2)
    assert (document["schema"], document["id"]) == ("sdrun.error/v1", "unknown-model")
    assert sdrun("pull", "tiny", "flix")[0] == 2
    assert sdrun("rm", "tiny")[0] == 2
    assert sdrun("rm")[0] == 2


def test_pull_verify_rm(sdrun: Program, cache: Path) -> None:
    assert sdrun("pull", "tiny")[:2] == (0, "tiny:q4_0\n")
    assert "yes" in sdrun("ls", "--here")[1]
    rows = sdrun.json("verify")["models"]
    assert isinstance(rows, list)
    assert {file["status"] for file in rows[0]["files"]} == {"whole"}
    blob = cache / "models" / "blobs" / f"sha256-{models()['tiny'].files['tae'].sha256}"
    stamp = blob.stat()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    os.utime(blob, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # what a failing disk does leaves no trace but the bytes
    code, out, err = sdrun("verify", "tiny")
    assert code == 7
    assert "tiny-tae.gguf  damaged" in out
    assert "remedy" in err
    assert sdrun("rm", "tiny")[:2] == (0, "tiny:q4_0\n")
    assert not list((cache / "models" / "blobs").iterdir())
    assert sdrun("verify")[:2] == (0, "")


def test_import_a_whole_model(sdrun: Program, tmp_path: Path, cache: Path) -> None:
    files = own_files(tmp_path)
    text = ",".join(f"{role}={path}" for role, path in files.items())
    document = sdrun.json("import", text, "--name", "mine")
    assert (document["name"], document["family"], document["quantisation"]) == ("mine", "ovis-image", "q4_0")
    found = resolve_model("mine", models(), cache, lambda said: None)
    assert {role: path.resolve().stat().st_ino for role, path in found.files.items()} == {
        role: path.stat().st_ino for role, path in files.items()
    }
    assert [path.name for path in found.files.values()] == [path.name for path in files.values()]
    files["tae"].write_bytes(b"something else")  # through the user's own name: the store notices
    with pytest.raises(VerificationFailed) as caught:
        resolve_model("mine", models(), cache, lambda said: None)
    assert caught.value.id == "model-file-damaged"
    assert sdrun("rm", "mine")[:2] == (0, "mine\n")
    assert files["llm"].is_file()


def test_import_of_a_part_says_what_is_missing(sdrun: Program, tmp_path: Path) -> None:
    files = own_files(tmp_path)
    code, out, err = sdrun("import", str(files["diffusion"]))
    assert (code, out) == (0, "diffusion\n")
    assert "ovis-image, q4_0, linked" in err
    assert "not a whole model yet" in err


@pytest.mark.parametrize("words", [["--name", "flux"], ["--name", "Ü"], ["--name", "../x"]])
def test_import_under_a_name_that_cannot_be(sdrun: Program, tmp_path: Path, words: list[str]) -> None:
    assert sdrun("import", str(own_files(tmp_path)["llm"]), *words)[0] == 2


def test_import_of_what_is_no_model(sdrun: Program, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert sdrun.json("import", str(tmp_path / "x.gguf"), code=7)["id"] == "model-file-damaged"
    assert sdrun.json("import", str(tmp_path / "y.gguf"), code=2)["id"] == "model-file-missing"


def test_import_across_file_systems_copies(sdrun: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = own_files(tmp_path)["llm"]
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == path.stat().st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        monkeypatch.setenv("SDRUN_MODELS_DIR", folder)
        code, _, err = sdrun("import", str(path), "--name", "copied")
        assert code == 0, err
        assert "copied" in err
        (blob,) = (blob for blob in (Path(folder) / "blobs").iterdir() if not blob.suffix)
        assert blob.read_bytes() == path.read_bytes()


def test_a_file_of_a_hub(hub: Hub, cache: Path) -> None:
    hub.put(HERE, build("llm"))
    said: list[str] = []
    found = resolve_model(f"hf://{HERE}", models(), cache, said.append)
    assert [path.read_bytes() for path in found.files.values()] == [build("llm")]
    assert any("recorded in" in line for line in said)
    before = len(hub.requests)
    assert resolve_model(f"hf://{HERE}", models(), cache, said.append) == found
    assert len(hub.requests) == before
    pinned = resolve_model(f"hf://{HERE}@{COMMIT}", models(), cache, said.append)
    assert [path.resolve() for path in pinned.files.values()] == [path.resolve() for path in found.files.values()]


def test_files_of_a_hub_by_role(hub: Hub, cache: Path, tmp_path: Path) -> None:
    hub.put("them/small/d.gguf", build("diffusion"))
    hub.put(HERE, build("llm"))
    tae = own_files(tmp_path)["tae"]
    found = resolve_model(f"diffusion=hf://them/small/d.gguf,llm=hf://{HERE},tae={tae}", models(), cache, lambda said: None)
    assert list(found.files) == ["diffusion", "llm", "tae"]
    assert set(found.sha256) == {"diffusion", "llm"}
    alone = resolve_model("hf://them/small/d.gguf", models(), cache, lambda said: None)
    assert list(alone.files) == ["diffusion"]  # its header shows that it is no all-in-one file


def test_what_is_fetched_but_no_model(hub: Hub, cache: Path) -> None:
    hub.put(HERE, b"<html>not here</html>")
    with pytest.raises(VerificationFailed) as caught:
        resolve_model(f"hf://{HERE}", models(), cache, lambda said: None)
    assert caught.value.id == "model-file-damaged"


def test_a_model_of_the_catalogue_is_fetched_on_first_use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with pytest.raises(SdrunError) as caught:
        resolve_model("sd-turbo", models(), cache, said.append)
    assert caught.value.id == "download-failed"  # this hub does not have it, and says so
    assert hub.got("hub", "HEAD")[0].path == "/Green-Sky/SD-Turbo-GGUF/resolve/main/sd_turbo-f16-q8_0.gguf"
    before = len(hub.requests)
    with pytest.raises(SdrunError) as caught:
        resolve_model("sd-turbo", models(), cache, said.append, wishes=Wishes(offline=True))
    assert caught.value.id == "model-not-fetched"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SdrunError) as caught:
        resolve_model("sd-turbo", models(), cache, said.append)
    assert caught.value.id == "model-not-fetched"
    assert len(hub.requests) == before


def test_pull_as_json_and_rm_unused(hub: Hub, sdrun: Program, cache: Path) -> None:
    hub.put(HERE, build("llm"))
    document = sdrun.json("pull", f"hf://{HERE}")
    rows = document["models"]
    assert isinstance(rows, list)
    assert rows[0]["files"][0]["revision"] == COMMIT
    hub.put("them/small/cut.gguf", build("tae"))
    hub.script("them/small/cut.gguf", Fault(status=403))
    assert sdrun.json("pull", "hf://them/small/cut.gguf", code=7)["id"] == "download-failed"
    (cache / "models" / "partial" / "left").write_bytes(b"12345")
    assert sdrun.json("rm", "--unused")["freed_bytes"] == 5
    assert sdrun.json("rm", f"hf://{HERE}")["freed_bytes"] == len(build("llm"))


def own_files(folder: Path) -> Mapping[str, Path]:
    """The files of tiny as the user's own."""
    files = {role: folder / f"{role}.gguf" for role in ("diffusion", "llm", "tae")}
    for role, path in files.items():
        path.write_bytes(build(role))
    return files
