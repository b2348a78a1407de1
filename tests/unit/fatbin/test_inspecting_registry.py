"""`sdrun inspect` of images in a registry: read as they come, without a container runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fatbins.files import docker_archive, elf, engine, fixture, layer
from fatbins.registry import Shelf, digest_of, serving

from sdrun.build import inspecting
from sdrun.build.remote import inspect_remote
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.errors import BadConfiguration, RuntimeUnavailable, SdrunError, UsageProblem, VerificationFailed
from sdrun.fatbin.report import Inspection
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

FACTS = load_cuda_facts()
SEED = {
    "usr/bin/sd-cli": engine(fixture("cu118-sm52.fatbin"), "520"),
    "usr/lib/left.so": elf({".nv_fatbin": fixture("cu130-zstd.fatbin")}),
}
ADA = {"usr/bin/sd-cli": engine(fixture("cu124-raw.fatbin"), "890,900"), "usr/lib/.wh.left.so": b""}
ANY = "linux/amd64"


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serving() as shelf:
        yield shelf


def inspect(text: str, platform: str = ANY, asked: bool = False) -> tuple[Inspection, list[str]]:
    said: list[str] = []
    return inspect_remote(text, FACTS, platform, said.append, asked=asked), said


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_layers_are_read_in_order_whatever_they_are_packed_with(shelf: Shelf, packing: str, by: str) -> None:
    digest = shelf.image([layer(SEED), layer(ADA)], "v1", packing)
    text = f"{shelf.host}/team/sd:v1" if by == "tag" else f"{shelf.host}/team/sd@{digest}"
    inspection, said = inspect(text)
    assert [(file.path, [*map(str, file.sass)]) for file in inspection.files] == [("usr/bin/sd-cli", ["89", "90a"])]
    assert (inspection.subject, str(inspection.toolkit)) == (text, "12.4")
    assert said == [f"{text}: 2 layers, {sum(map(len, shelf.blobs.values())) / 1e6:.1f} MB to read"]


def test_what_comes_out_is_what_the_saved_image_gives(shelf: Shelf, tmp_path: Path) -> None:
    layers = [layer(SEED), layer(ADA)]
    shelf.image(layers, "v1")
    (tmp_path / "image.tar").write_bytes(docker_archive(layers))
    saved = inspecting.inspect_file(tmp_path / "image.tar", FACTS)
    assert inspect(f"{shelf.host}/team/sd:v1")[0].to_json() == saved.to_json()


def test_a_layer_that_stands_twice_is_read_once(shelf: Shelf) -> None:
    shelf.image([layer(SEED), layer(ADA), layer(SEED)], "v1")
    assert [file.path for file in inspect(f"{shelf.host}/sd:v1")[0].files] == ["usr/bin/sd-cli", "usr/lib/left.so"]
    assert len([path for path in shelf.asked if "/blobs/" in path]) == 2


def test_of_a_list_the_image_for_this_platform(shelf: Shelf) -> None:
    rows = [(shelf.image([layer(ADA)]), "linux/arm64"), (shelf.image([layer(SEED)]), ANY), (digest_of(b""), "unknown/unknown")]
    shelf.index(rows, "v1")
    inspection, said = inspect(f"{shelf.host}/sd:v1")
    assert [*map(str, inspection.sass)] == ["52"]
    assert "names 2 images; this is the one for linux/amd64" in said[0]
    assert [*map(str, inspect(f"{shelf.host}/sd:v1", "linux/arm64", asked=True)[0].sass)] == ["89", "90a"]
    with pytest.raises(UsageProblem, match=r"has no image for linux/riscv64, but for linux/amd64, linux/arm64") as caught:
        inspect(f"{shelf.host}/sd:v1", "linux/riscv64")
    assert caught.value.id == "platform-mismatch"


def test_a_list_of_one_image_is_that_image(shelf: Shelf) -> None:
    """As buildx pushes it: one image and its attestation. On another machine's platform too, unless one was asked for."""
    shelf.index([(shelf.image([layer(ADA)]), ANY), (digest_of(b""), "unknown/unknown")], "v1")
    assert [*map(str, inspect(f"{shelf.host}/sd:v1", "linux/arm64")[0].sass)] == ["89", "90a"]
    with pytest.raises(UsageProblem, match="has no image for linux/arm64"):
        inspect(f"{shelf.host}/sd:v1", "linux/arm64", asked=True)


def test_a_list_within_a_list(shelf: Shelf) -> None:
    inner = shelf.index([(shelf.image([layer(ADA)]), ANY)], "")
    shelf.index([(inner, ANY)], "v1")
    assert inspect(f"{shelf.host}/sd:v1")[0].files


def test_an_index_with_an_image_for_each_gpu_asks_which(shelf: Shelf) -> None:
    digests = [shelf.image([layer(SEED)]), shelf.image([layer(ADA)])]
    shelf.index([(digest, ANY) for digest in digests], "index", **{"io.sdrun.target": "cu124-sm89"})
    with pytest.raises(UsageProblem, match="names 2 images for linux/amd64") as caught:
        inspect(f"{shelf.host}/sd:index")
    assert caught.value.id == "several-images"
    assert f"{shelf.host}/sd@{digests[0]}  cu124-sm89" in (caught.value.detail or "")


@pytest.mark.parametrize(
    "document",
    [
        {"manifests": []},
        {"manifests": [{"digest": "sha256:1", "platform": {"os": "linux", "architecture": "amd64"}}]},
        {"manifests": [{"digest": 7}]},
        {"manifests": [{"digest": "sha256:" + "1" * 64, "platform": {"os": "../..", "architecture": "amd64"}}]},
        {"manifests": 7},
    ],
)
def test_lists_that_are_none(shelf: Shelf, document: dict[str, object]) -> None:
    shelf.manifest({"mediaType": "application/vnd.oci.image.index.v1+json", **document}, "x", "v1")
    with pytest.raises(BadConfiguration) as caught:
        inspect(f"{shelf.host}/sd:v1")
    assert caught.value.id == "not-inspectable"


@pytest.mark.parametrize("layers", [None, 7, [7], [{"digest": "../../x", "size": 1}], [{"digest": "sha256:" + "1" * 64}]])
def test_manifests_that_are_none(shelf: Shelf, layers: object) -> None:
    shelf.manifest({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}, "x", "v1")
    with pytest.raises(BadConfiguration) as caught:
        inspect(f"{shelf.host}/sd:v1")
    assert caught.value.id == "not-inspectable"


def test_a_layer_that_is_no_tar(shelf: Shelf) -> None:
    """A chart, a signature, a model: registries keep much that is no image."""
    shelf.image([b"text" * 1000], "v1")
    with pytest.raises(BadConfiguration, match=r"its layer sha256:[0-9a-f]{12} cannot be read") as caught:
        inspect(f"{shelf.host}/sd:v1")
    assert caught.value.id == "not-inspectable"


def test_a_layer_that_is_not_what_its_digest_says(shelf: Shelf) -> None:
    shelf.image([layer(ADA)], "v1", packing="none")
    ((digest, data),) = shelf.blobs.items()
    shelf.blobs[digest] = data[:-1] + b"x"  # behind the end of the tar, where nobody would look
    with pytest.raises(VerificationFailed) as caught:
        inspect(f"{shelf.host}/sd:v1")
    assert caught.value.id == "hash-mismatch"


def test_an_image_that_is_not_there(shelf: Shelf) -> None:
    with pytest.raises(VerificationFailed) as caught:
        inspect(f"{shelf.host}/sd:v1")
    assert caught.value.id == "not-in-registry"


def no_runtime() -> ContainerRuntime:
    raise RuntimeUnavailable("no container runtime is installed", "Install one.")


class Asked(SdrunError):
    """The registry was asked."""


def refuse(reference: str) -> Inspection:
    raise Asked(reference, "")


@pytest.mark.parametrize("connect", [FakeRuntime, no_runtime])
@pytest.mark.parametrize(
    ("subject", "asked"),
    [
        ("registry.example/sd", True),
        ("localhost/sd", True),
        ("127.0.0.1:5000/sd:v1", True),
        ("owner/sd:v1", True),
        ("owner/sd@sha256:" + "1" * 64, True),
        ("sdrun:v1", False),
        ("sd-cli", False),
        ("build/bin/sd-cli", False),
        ("./owner/sd:v1", False),
        ("/owner/sd:v1", False),
        ("Owner/sd:v1", False),
    ],
)
def test_a_registry_is_asked_for_what_names_one(connect, subject: str, asked: bool) -> None:
    with pytest.raises((Asked, BadConfiguration, RuntimeUnavailable)) as caught:
        inspecting.inspect(subject, FACTS, connect, refuse)
    assert isinstance(caught.value, Asked) == asked


def test_what_is_here_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "registry.example/team/sd:v1"
    image = LocalImage("sha256:" + "1" * 64, (name,), (), {}, 1, ANY)
    monkeypatch.setattr(inspecting, "inspect_image", lambda *_: "here")
    assert inspecting.inspect(name, FACTS, lambda: FakeRuntime(local=[image]), refuse) == "here"


def test_from_the_command_line(shelf: Shelf, tmp_path: Path) -> None:
    shelf.image([layer(SEED), layer(ADA)], "v1")
    name = f"{shelf.host}/team/sd:v1"
    argv = [sys.executable, "-m", "sdrun", "inspect", name]
    done = subprocess.run([*argv, "--remote", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["files"][0]["engine_archs"] == ["89", "90"]
    assert "2 layers" in done.stderr
    done = subprocess.run([*argv, "--remote", "--for", "6.1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    done = subprocess.run([*argv, "--platform", "amd"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
