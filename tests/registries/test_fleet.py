"""A fleet against a real registry: locked from its index, checked when images go, when newer ones come, when it is down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fleets.samples import gfd, node, write

from sdrun.cli import main as front
from sdrun.registry.indexing import write_index
from sdrun.registry.pushing import push
from sdrun.registry.tagging import set_tag
from tests.registries.conftest import Place
from tests.registries.images import ENGINE, packed

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sdrun(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDRUN_REGISTRY", str(place.repository))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sdrun", *arguments])
        code = front.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def publish(place: Place, folder: Path, engine: str, *targets: str) -> dict[str, str]:
    """The images of `targets` with their index; target -> digest."""
    client, digests, images = place.open(), {}, []
    for target in targets:
        image = packed(folder / engine, target, engine=engine)
        manifest = push(client, image).manifest
        digests[target] = manifest.digest
        set_tag(client, f"{engine}-{target}", manifest)
        images.append(image.published)
    write_index(client, engine, images, place.said.append)
    client.close()
    return digests


def found(answer: str) -> dict[str, int]:
    return {finding["id"]: finding["exit_code"] for finding in json.loads(answer)["findings"]}


def test_a_fleet_is_pinned_and_told_when_the_pins_no_longer_fit(place: Place, sdrun: Program, tmp_path: Path) -> None:
    digests = publish(place, tmp_path / "images", ENGINE, "cu124-sm89", "cu124-sm90")
    write(tmp_path, node("l4", gfd()), node("h100", gfd("NVIDIA-H100-80GB-HBM3", "9.0")))
    code, _, said = sdrun("fleet", "lock", "--nodes", "nodes.json", "-o", "fleet.lock.yaml")
    assert code == 0, said
    text = (tmp_path / "fleet.lock.yaml").read_text()
    for digest in digests.values():
        assert f"{place.repository}@{digest}" in text
    check = ("fleet", "check", "fleet.lock.yaml", "--nodes", "nodes.json", "--json")
    assert sdrun(*check)[:2] == (0, json.dumps(json.loads(sdrun(*check)[1]), indent=2) + "\n")
    assert found(sdrun(*check)[1]) == {}

    publish(place, tmp_path / "images", "sdcpp-newer", "cu124-sm89")
    (tmp_path / "cache").rename(tmp_path / "gone")
    newest = ("--registry", f"{place.repository}:sdcpp-newer")
    code, answer, _ = sdrun(*check, *newest)
    assert (code, found(answer)) == (0, {"engine-newer": 0})

    client = place.open()
    with client.session.asked("DELETE", client.session.path("manifests", digests["cu124-sm90"]), {}, "the image") as reply:
        assert reply.status == 202
        reply.whole()
    code, answer, _ = sdrun(*check)
    assert (code, found(answer)["digest-gone"]) == (7, 7)
    assert digests["cu124-sm90"] in answer
    assert digests["cu124-sm89"] not in answer
    assert sdrun(*check, "--offline")[0] == 0

    write(tmp_path, node("l4", gfd(driver="515.65.01", cuda="11.7")), node("h100", gfd("NVIDIA-H100-80GB-HBM3", "9.0")))
    code, answer, _ = sdrun(*check)
    assert (code, found(answer)["driver-too-old"]) == (7, 5)
    assert sdrun(*check, "--offline")[0] == 5


def test_a_registry_that_is_down_is_a_finding(place: Place, sdrun: Program, tmp_path: Path) -> None:
    publish(place, tmp_path / "images", ENGINE, "cu124-sm89")
    write(tmp_path, node("l4", gfd()))
    assert sdrun("fleet", "lock", "--nodes", "nodes.json", "-o", "fleet.lock.yaml")[0] == 0
    lock = (tmp_path / "fleet.lock.yaml").read_text()
    (tmp_path / "fleet.lock.yaml").write_text(lock.replace(str(place.repository.host), "127.0.0.1:9"))
    code, answer, _ = sdrun(
        "fleet", "check", "fleet.lock.yaml", "--nodes", "nodes.json", "--registry", "127.0.0.1:9/x/y", "--json"
    )
    assert code == 7
    assert set(found(answer)) == {"registry-unreachable"}


def test_signatures_are_demanded_wherever_the_index_came_from(place: Place, sdrun: Program, tmp_path: Path) -> None:
    publish(place, tmp_path / "images", ENGINE, "cu124-sm89")
    write(tmp_path, node("l4", gfd()))
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "cosign.pub").write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    (tmp_path / "strict.yaml").write_text("verify:\n  key: cosign.pub\n")
    (tmp_path / "index.json").write_text(sdrun("index", "--json")[1])
    lock = ("--config", "strict.yaml", "fleet", "lock", "--nodes", "nodes.json", "-o", "fleet.lock.yaml", "--json")
    for source in ((), ("--index", "index.json")):
        code, answer, _ = sdrun(*lock, *source)
        assert (code, json.loads(answer)["id"]) == (7, "image-unsigned")
        assert not (tmp_path / "fleet.lock.yaml").exists()
