"""Images into the registry and out again, over connections that break."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.core.reference import Repository
from sdrun.errors import VerificationFailed
from sdrun.registry.archive import pack
from sdrun.registry.client import Registry
from sdrun.registry.patience import Patience
from sdrun.registry.pushing import push
from sdrun.registry.tagging import described, set_tag
from sdrun.registry.upload import LocalBlob, upload
from tests.registries.conftest import Place
from tests.registries.front import Fault
from tests.registries.images import packed, saved

BIG = 3_000_000


def whole(registry: Registry, digest: str) -> bytes:
    with registry.blob(digest) as stream:
        return stream.read()


def test_an_image_comes_back_as_it_went(registry: Registry, tmp_path: Path) -> None:
    image = packed(tmp_path, "cu124-sm89", size=BIG)
    done = push(registry, image)
    assert done.sent == image.pull_bytes
    assert registry.tags() == []  # by digest alone
    manifest = registry.read_manifest(done.manifest.digest)
    assert manifest.body == image.manifest
    layer = image.layers[0]
    assert layer.path is not None
    assert whole(registry, layer.digest) == layer.path.read_bytes()
    assert described(registry, manifest) == image.published
    again = push(registry, image)
    assert (again.sent, again.manifest) == (0, done.manifest)
    fresh = packed(tmp_path / "again", "cu124-sm89", size=BIG)
    assert fresh.manifest == image.manifest  # packed twice, the same bytes


def test_a_blob_is_mounted_from_a_neighbour(place: Place, tmp_path: Path) -> None:
    first, other = place.open(), place.open(f"{place.repository.path}-other")
    blob = packed(tmp_path, "cpu").layers[0]
    assert upload(first, blob) == "sent"
    assert upload(other, blob, first.repository) == "mounted"
    assert upload(other, blob) == "there"
    nowhere = LocalBlob.of(b"something else", "text/plain")
    assert upload(other, nowhere, Repository(place.repository.host, "nobody/nothing")) == "sent"


def test_an_empty_blob(registry: Registry) -> None:
    blob = LocalBlob.of(b"", "text/plain")
    assert upload(registry, blob) == "sent"
    assert registry.has_blob(blob.digest)


def test_an_upload_goes_on_where_it_broke_off(registry: Registry, place: Place, tmp_path: Path) -> None:
    layer = packed(tmp_path, "cu124-sm89", size=BIG).layers[0]
    place.front.script(Fault("PATCH", "/blobs/uploads/", part=1_000_000), Fault("PATCH", "/blobs/uploads/", part=500_000))
    told: list[int] = []
    assert upload(registry, layer, told=told.append) == "sent"
    assert sum(told) == layer.size
    assert whole(registry, layer.digest) == (layer.path and layer.path.read_bytes())
    sent = [one.received for one in place.front.seen if one.method == "PATCH"]
    assert sent == [1_000_000, 500_000, layer.size - 1_500_000]


@pytest.mark.parametrize("cuts", [(1_000_000,), (0,), (1_000_000, 500_000, 700_000)])
def test_an_upload_that_the_registry_gives_up_begins_anew(
    registry: Registry, place: Place, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    layer = packed(tmp_path, "cu124-sm89", size=BIG).layers[0]
    place.front.script(*(Fault("PATCH", "/blobs/uploads/", cut_request=cut) for cut in cuts))
    told: list[int] = []
    assert upload(registry, layer, told=told.append) == "sent"
    assert sum(told) == layer.size
    assert whole(registry, layer.digest) == (layer.path and layer.path.read_bytes())
    assert len(place.waits) == len(cuts)


def test_the_registry_is_killed_in_the_middle(place: Place, tmp_path: Path) -> None:
    layer = packed(tmp_path, "cu124-sm89", size=BIG).layers[0]
    place.front.script(Fault("PATCH", "/blobs/uploads/", cut_request=1_000_000, before=place.server.restart_soon))
    patient = place.open(attempts=30)
    patient.session.patience = Patience(attempts=30, first=0.1, most=0.5)
    try:
        assert upload(patient, layer) == "sent"
        assert whole(patient, layer.digest) == (layer.path and layer.path.read_bytes())
    finally:
        patient.close()


@pytest.mark.parametrize("status", [404, 416])
def test_an_upload_that_is_forgotten_begins_anew(registry: Registry, place: Place, tmp_path: Path, status: int) -> None:
    layer = packed(tmp_path, "cu124-sm89", size=BIG).layers[0]
    place.front.script(
        Fault("PATCH", "/blobs/uploads/", cut_request=500_000),
        Fault("GET", "/blobs/uploads/", status=status),
    )
    assert upload(registry, layer) == "sent"
    assert place.front.count("POST", "/blobs/uploads/") == 2


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_registry_that_is_busy_is_asked_again(
    registry: Registry, place: Place, tmp_path: Path, method: str, status: int
) -> None:
    image = packed(tmp_path, "cu124-sm89", size=100_000)
    place.front.script(Fault(method, "/(blobs|manifests)/", times=2, status=status, headers={"Retry-After": "3"}))
    push(registry, image)
    assert registry.read_manifest(image.published.digest).body == image.manifest
    assert place.waits == [3.0, 3.0]
    assert all("again in 3.0 s" in text for text in place.pauses)


def test_patience_ends(registry: Registry, place: Place, tmp_path: Path) -> None:
    image = packed(tmp_path, "cu124-sm89", size=100_000)
    place.front.script(Fault("P.*", "/blobs/", times=99, status=503))
    with pytest.raises(VerificationFailed, match="503") as caught:
        push(registry, image)
    assert (caught.value.id, caught.value.exit_code) == ("registry-failed", 7)
    assert len(place.waits) == 4
    place.front.faults.clear()
    assert registry.find_manifest(image.published.digest) is None  # nothing half-done can be asked for
    assert push(registry, image).sent == image.pull_bytes


def test_a_registry_that_asks_for_too_long_is_not_waited_for(registry: Registry, place: Place) -> None:
    place.front.script(Fault("GET", "/tags/", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(VerificationFailed, match="429"):
        registry.tags()
    assert place.waits == []


@pytest.mark.parametrize("cut", [0, 1, 1_000_000, 2_999_999])
def test_a_download_goes_on_where_it_broke_off(registry: Registry, place: Place, tmp_path: Path, cut: int) -> None:
    layer = packed(tmp_path, "cu124-sm89", size=BIG).layers[0]
    upload(registry, layer)
    place.front.script(Fault("GET", "/blobs/", cut_answer=cut), Fault("GET", "/blobs/", status=503))
    assert whole(registry, layer.digest) == (layer.path and layer.path.read_bytes())
    ranges = [one.headers.get("Range") for one in place.front.seen if one.method == "GET" and "/blobs/" in one.path]
    begun = int((ranges[-1] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    assert begun <= cut  # a reset takes with it what was still on its way
    assert cut < 1_000_000 or begun > 0


def test_a_server_without_ranges_is_listened_to_again(registry: Registry, place: Place, tmp_path: Path) -> None:
    layer = packed(tmp_path, "cu124-sm89", size=BIG).layers[0]
    upload(registry, layer)
    assert layer.path is not None
    body = layer.path.read_bytes()
    place.front.script(Fault("GET", "/blobs/", cut_answer=1_000_000), Fault("GET", "/blobs/", status=200, body=body))
    assert whole(registry, layer.digest) == body


def test_a_tag_is_given_once(registry: Registry, tmp_path: Path) -> None:
    image, other = packed(tmp_path, "cpu"), packed(tmp_path, "cpu", content="other")
    first, second = push(registry, image).manifest, push(registry, other).manifest
    assert set_tag(registry, "sdcpp-90e87bc-cpu", first) == (first, True)
    assert set_tag(registry, "sdcpp-90e87bc-cpu", first) == (first, False)
    with pytest.raises(VerificationFailed, match="never moved") as caught:
        set_tag(registry, "sdcpp-90e87bc-cpu", second)
    assert (caught.value.id, caught.value.exit_code) == ("tag-taken", 7)
    assert registry.digest_of("sdcpp-90e87bc-cpu") == first.digest


def test_the_same_image_compressed_otherwise_is_the_same(registry: Registry, tmp_path: Path) -> None:
    archive = saved(tmp_path, "cpu")
    (tmp_path / "z").mkdir()
    gzip, zstd = pack(archive, tmp_path, "gzip"), pack(archive, tmp_path / "z", "zstd")
    assert gzip.manifest != zstd.manifest
    first = push(registry, gzip).manifest
    set_tag(registry, "sdcpp-90e87bc-cpu", first)
    assert set_tag(registry, "sdcpp-90e87bc-cpu", push(registry, zstd).manifest) == (first, False)


def test_a_tag_that_another_publisher_sets_in_the_same_moment(registry: Registry, place: Place, tmp_path: Path) -> None:
    mine, theirs = packed(tmp_path, "cpu"), packed(tmp_path, "cpu", content="theirs")
    first, second = push(registry, mine).manifest, push(registry, theirs).manifest
    rival = place.open()
    place.front.script(
        Fault("PUT", "/manifests/sdcpp", after=lambda: rival.put_manifest(second.body, second.media_type, "sdcpp-90e87bc-cpu"))
    )
    with pytest.raises(VerificationFailed, match="never moved"):
        set_tag(registry, "sdcpp-90e87bc-cpu", first)


def test_the_condition_of_a_tag_is_sent_and_heeded(registry: Registry, place: Place, tmp_path: Path) -> None:
    """docker-registry does not know it; others do, and answer 412."""
    first = push(registry, packed(tmp_path, "cpu")).manifest
    place.front.script(Fault("PUT", "/manifests/sdcpp", status=412))
    with pytest.raises(VerificationFailed, match="is not in the registry"):
        set_tag(registry, "sdcpp-90e87bc-cpu", first)
    (put,) = [one for one in place.front.seen if one.method == "PUT" and one.path.endswith("sdcpp-90e87bc-cpu")]
    assert put.headers["If-None-Match"] == "*"
