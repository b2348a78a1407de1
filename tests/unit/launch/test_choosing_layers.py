"""The form of a published image that this machine's container runtime is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdrun.cli.main import main
from sdrun.core.host import RuntimeFacts
from sdrun.core.reference import Reference
from sdrun.errors import RuntimeUnavailable
from sdrun.launch.choosing import Chosen, Fetching, Wishes, choose
from sdrun.launch.sources import Sources
from sdrun.runtime.fake import FakeRuntime

ZSTD, GZIP = f"registry.example/sdrun@sha256:{'a' * 64}", f"registry.example/sdrun@sha256:{'b' * 64}"
ROW = {
    "target": "cpu", "image": ZSTD, "platform": "linux/amd64", "toolkit": None, "sass": [], "ptx": [],
    "fatbin_compression": None, "layers": "zstd", "gzip": GZIP,
}  # fmt: skip
HOST = {"schema": "sdrun.host/v1", "platform": "linux/amd64", "driver_version": None, "cuda_driver": None, "gpus": []}
OLD = "20.10.24+dfsg1"


def index(folder: Path, **changed: object) -> str:
    path = folder / "index.json"
    path.write_text(json.dumps({"schema": "sdrun.index/v1", "engine": "sdcpp-90e87bc", "images": [{**ROW, **changed}]}))
    return str(path)


def chosen(runtime: FakeRuntime, folder: Path, file: str) -> Chosen:
    (folder / "host.json").write_text(json.dumps(HOST))
    wishes = Wishes(gpu="none", allow_cpu=True, index=file)
    return choose(lambda: runtime, wishes, Fetching(), {"SDRUN_HOST_FACTS": str(folder / "host.json")})


@pytest.mark.parametrize(("version", "reference"), [(OLD, GZIP), ("28.5.2", ZSTD)])
def test_the_form_that_is_pulled(fake_runtime: FakeRuntime, tmp_path: Path, version: str, reference: str) -> None:
    image = fake_runtime.local.pop()
    fake_runtime.reported = RuntimeFacts("docker", version)
    fake_runtime.remote = {reference: image}  # the other one is not there to be pulled
    made = chosen(fake_runtime, tmp_path, index(tmp_path))
    assert (made.plan.image, made.local) == (reference, image)


def test_where_there_is_no_other_form_nothing_is_pulled(fake_runtime: FakeRuntime, tmp_path: Path) -> None:
    fake_runtime.remote = {ZSTD: fake_runtime.local.pop()}
    fake_runtime.reported = RuntimeFacts("docker", OLD)
    with pytest.raises(RuntimeUnavailable) as caught:
        chosen(fake_runtime, tmp_path, index(tmp_path, gzip=None))
    assert caught.value.id == "layers-unreadable"
    assert fake_runtime.local == []


def test_an_image_built_here_is_taken_in_its_place_where_it_is_named(fake_runtime: FakeRuntime, tmp_path: Path) -> None:
    """What the refusal advises: the index is not asked then."""
    fake_runtime.reported = RuntimeFacts("docker", OLD)
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    built = fake_runtime.local[0]
    sources = Sources((Reference.parse("registry.example/sdrun"),))
    wishes = Wishes(gpu="none", allow_cpu=True, image=built.tags[0], sources=sources)
    made = choose(lambda: fake_runtime, wishes, Fetching(), {"SDRUN_HOST_FACTS": str(tmp_path / "host.json")})
    assert made.local == built


@pytest.mark.parametrize(("version", "reference"), [(OLD, GZIP), ("28.5.2", ZSTD)])
def test_resolve_names_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str, reference: str
) -> None:
    runtime = {"name": "docker", "version": version, "cdi_devices": [], "nvidia_runtime": False}
    (tmp_path / "host.json").write_text(json.dumps({**HOST, "runtime": runtime}))
    words = ["resolve", "--host", str(tmp_path / "host.json"), "--index", index(tmp_path), "--allow-cpu", "--gpu", "none"]
    monkeypatch.setattr("sys.argv", ["sdrun", *words])
    assert main() == 0
    assert capsys.readouterr().out == f"{reference}\n"
