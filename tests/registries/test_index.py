"""The index of a registry: written by several at once, cut off, altered; read by one request, offline, from mirrors."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.core.oci import IMAGE_INDEX, Published, read_index
from sdrun.core.reference import Reference
from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.registry.archive import as_bytes
from sdrun.registry.client import Registry
from sdrun.registry.indexing import LATEST, write_index
from sdrun.registry.patience import Patience
from sdrun.registry.published import Copy, find_index
from sdrun.registry.pushing import push
from sdrun.registry.tagging import set_tag
from tests.registries.conftest import Place
from tests.registries.front import Fault
from tests.registries.images import ENGINE, packed

NO_WAIT = Patience(attempts=2, wait=lambda seconds: None)


def put(
    registry: Registry, folder: Path, target: str, engine: str = ENGINE, created: str = "2026-05-06T00:00:00Z"
) -> Published:
    """Pushed and tagged, not in the index yet."""
    image = packed(folder, target, engine=engine, created=created)
    set_tag(registry, image.published.tag, push(registry, image).manifest)
    return image.published


def listed(registry: Registry, tag: str = ENGINE) -> dict[str, str]:
    """Target -> digest in the index under `tag`."""
    found = registry.find_manifest(tag)
    return {} if found is None else {one.slot[0]: one.digest for one in read_index(found.document).images}


def test_images_join_the_index_one_by_one(registry: Registry, place: Place, tmp_path: Path) -> None:
    first = put(registry, tmp_path, "cpu")
    written = write_index(registry, ENGINE, [first], place.said.append)
    assert (written.tags, written.changed) == ((ENGINE, LATEST), True)
    second = put(registry, tmp_path, "cu124-sm89")
    write_index(registry, ENGINE, [second], place.said.append)
    assert listed(registry) == listed(registry, LATEST) == {"cpu": first.digest, "cu124-sm89": second.digest}
    before = place.front.count("PUT", "/manifests/")
    again = write_index(registry, ENGINE, [second], place.said.append)
    assert (again.changed, place.front.count("PUT", "/manifests/")) == (False, before)
    assert place.said == []


def test_a_dry_run_writes_nothing(registry: Registry, place: Place, tmp_path: Path) -> None:
    first = put(registry, tmp_path, "cpu")
    before = place.front.count("P.*", "")
    assert write_index(registry, ENGINE, [first], place.said.append, dry_run=True).images == (first,)
    assert place.front.count("P.*", "") == before
    assert listed(registry) == {}


@pytest.mark.parametrize("fault", [Fault("PUT", f"/manifests/({ENGINE}|latest)$", times=99, cut_request=40), None])
def test_cut_off_half_way_the_old_index_is_whole(registry: Registry, place: Place, tmp_path: Path, fault: Fault | None) -> None:
    first = put(registry, tmp_path, "cpu")
    write_index(registry, ENGINE, [first], place.said.append)
    second = put(registry, tmp_path, "cu124-sm89")
    if fault is not None:  # else the publisher ended after it had set the tag
        place.front.script(fault)
        with pytest.raises(VerificationFailed, match="broke off"):
            write_index(registry, ENGINE, [second], place.said.append)
    assert listed(registry) == listed(registry, LATEST) == {"cpu": first.digest}
    place.front.faults.clear()
    third = put(registry, tmp_path, "cu124-sm90")
    write_index(registry, ENGINE, [third], place.said.append)  # by whomever, for whatever
    assert set(listed(registry)) == set(listed(registry, LATEST)) == {"cpu", "cu124-sm89", "cu124-sm90"}


def test_publishers_at_once_lose_nothing(place: Place, tmp_path: Path) -> None:
    targets = [f"cu12{minor}-sm{sm}" for minor in (4, 6, 8) for sm in (75, 86)]
    barrier, failures = threading.Barrier(len(targets)), []

    def publish(target: str) -> None:
        try:
            client = place.open(attempts=10)
            image = put(client, tmp_path / target, target)
            barrier.wait(60)
            write_index(client, ENGINE, [image], place.said.append)
        except Exception as fault:  # noqa: BLE001 (told by the assertion below)
            failures.append(fault)

    threads = [threading.Thread(target=publish, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    registry = place.open()
    assert sorted(listed(registry)) == sorted(targets)
    assert listed(registry, LATEST) == listed(registry)


def test_an_index_overwritten_by_one_that_was_held_up_is_mended(registry: Registry, place: Place, tmp_path: Path) -> None:
    """The worst order: A has looked and is about to write; B publishes wholly; A's older index arrives last."""
    first, second = put(registry, tmp_path, "cpu"), packed(tmp_path, "cu124-sm89")
    rival = place.open()

    def publish_meanwhile() -> None:
        set_tag(rival, second.published.tag, push(rival, second).manifest)
        write_index(rival, ENGINE, [second.published], place.said.append)

    place.front.script(Fault("PUT", f"/manifests/{ENGINE}$", before=publish_meanwhile))
    write_index(registry, ENGINE, [first], place.said.append)
    assert listed(registry) == listed(registry, LATEST) == {"cpu": first.digest, "cu124-sm89": second.published.digest}


def test_latest_stays_with_the_newer_engine(registry: Registry, place: Place, tmp_path: Path) -> None:
    new = put(registry, tmp_path / "new", "cpu", "sdcpp-new", "2026-08-01T00:00:00Z")
    write_index(registry, "sdcpp-new", [new], place.said.append)
    old = put(registry, tmp_path / "old", "cpu")
    assert write_index(registry, ENGINE, [old], place.said.append).tags == (ENGINE,)
    assert listed(registry, LATEST) == {"cpu": new.digest}
    newest = put(registry, tmp_path / "newest", "cpu", "sdcpp-newest", "2026-09-01T00:00:00Z")
    write_index(registry, "sdcpp-newest", [newest], place.said.append)
    assert listed(registry, LATEST) == {"cpu": newest.digest}


def test_a_tag_moved_behind_our_back_moves_nothing(registry: Registry, place: Place, tmp_path: Path) -> None:
    published = put(registry, tmp_path, "cpu")
    write_index(registry, ENGINE, [published], place.said.append)
    evil = push(registry, packed(tmp_path, "cpu", content="evil")).manifest
    registry.put_manifest(evil.body, evil.media_type, published.tag)
    write_index(registry, ENGINE, [put(registry, tmp_path, "cu124-sm89")], place.said.append)
    assert listed(registry)["cpu"] == published.digest
    assert any("was moved to" in text for text in place.said)
    with pytest.raises(VerificationFailed, match="never moved"):
        write_index(registry, ENGINE, [replace(published, digest=evil.digest)], place.said.append)


def test_facts_that_were_altered_in_the_index_are_mended(registry: Registry, place: Place, tmp_path: Path) -> None:
    image = put(registry, tmp_path, "cu124-sm89")
    write_index(registry, ENGINE, [image], place.said.append)
    document = registry.read_manifest(ENGINE).document
    document["manifests"][0]["annotations"]["io.sdrun.sass"] = "90"
    registry.put_manifest(as_bytes(document), IMAGE_INDEX, ENGINE)
    write_index(registry, ENGINE, [], place.said.append, refresh=True)
    (mended,) = read_index(registry.read_manifest(ENGINE).document).images
    assert mended.annotations["io.sdrun.sass"] == "89"


def test_an_image_that_is_gone_leaves_the_index(registry: Registry, place: Place, tmp_path: Path) -> None:
    gone, stays = put(registry, tmp_path, "cpu"), put(registry, tmp_path, "cu124-sm89")
    write_index(registry, ENGINE, [gone, stays], place.said.append)
    with registry.session.asked("DELETE", registry.session.path("manifests", gone.digest), {}, "x", None, "delete") as answer:
        assert answer.status == 202
    write_index(registry, ENGINE, [], place.said.append)
    assert set(listed(registry)) == {"cu124-sm89"}
    assert any("gone from the registry" in text for text in place.said)


def test_a_tag_that_is_no_index_of_ours_is_left_alone(registry: Registry, place: Place, tmp_path: Path) -> None:
    image = put(registry, tmp_path, "cpu")
    manifest = registry.read_manifest(image.digest)
    registry.put_manifest(manifest.body, manifest.media_type, ENGINE)
    with pytest.raises(VerificationFailed, match="no index that sdrun has published") as caught:
        write_index(registry, ENGINE, [image], place.said.append)
    assert caught.value.id == "tag-taken"


def test_one_request_and_none_of_the_index_where_it_is_known(registry: Registry, place: Place, tmp_path: Path) -> None:
    image = put(registry, tmp_path, "cu124-sm89")
    write_index(registry, ENGINE, [image], place.said.append)
    place.front.seen.clear()
    found = find_index([place.reference], tmp_path / "cache", place.said.append, NO_WAIT)
    assert [(one.method, one.status) for one in place.front.seen] == [("GET", 200)]
    assert (found.requests, found.age) == (1, 0.0)
    (row,) = found.index.images
    assert row.image == f"{place.repository}@{image.digest}"
    again = find_index([place.reference], tmp_path / "cache", place.said.append, NO_WAIT)
    assert [(one.method, one.status, one.sent) for one in place.front.seen[1:]] == [("GET", 304, 0)]
    assert (again.requests, again.bytes, again.index) == (1, 0, found.index)


def test_offline_the_last_index_serves_and_says_its_age(registry: Registry, place: Place, tmp_path: Path) -> None:
    write_index(registry, ENGINE, [put(registry, tmp_path, "cpu")], place.said.append)
    cache = tmp_path / "cache"
    place.front.script(Fault("GET", "/manifests/", times=99, status=503))
    with pytest.raises(VerificationFailed) as caught:
        find_index([place.reference], cache, place.said.append, NO_WAIT)
    assert (caught.value.id, caught.value.exit_code) == ("registry-failed", 7)
    place.front.faults.clear()
    find_index([place.reference], cache, place.said.append, NO_WAIT, now=lambda: 1_000_000.0)
    place.front.script(Fault("GET", "/manifests/", times=99, status=503))
    found = find_index([place.reference], cache, place.said.append, NO_WAIT, now=lambda: 1_000_000.0 + 3 * 3600)
    assert found.age == 3 * 3600
    assert any("as it was 3 hours ago" in text for text in place.said)
    assert len(found.index.images) == 1


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"schema": "sdrun.cached-index/v1"}', "half"])
def test_a_damaged_copy_is_no_copy(registry: Registry, place: Place, tmp_path: Path, damage: str) -> None:
    write_index(registry, ENGINE, [put(registry, tmp_path, "cpu")], place.said.append)
    find_index([place.reference], tmp_path, place.said.append, NO_WAIT)
    path = Copy.of(place.reference, tmp_path).path
    if damage == "half":
        row = json.loads(path.read_text())
        damage = json.dumps(row | {"body": row["body"].replace("cpu", "cpx")})
    path.write_text(damage)
    assert Copy.of(place.reference, tmp_path).read() is None
    assert len(find_index([place.reference], tmp_path, place.said.append, NO_WAIT).index.images) == 1


def test_mirrors_are_tried_in_order(registry: Registry, place: Place, tmp_path: Path) -> None:
    write_index(registry, ENGINE, [put(registry, tmp_path, "cpu")], place.said.append)
    nobody = Reference.parse("127.0.0.1:1/team/sdrun")
    empty = Reference.parse(f"{place.repository.host}/team/empty")
    for first in (nobody, empty):
        found = find_index([first, place.reference], tmp_path / first.repository.path, place.said.append, NO_WAIT)
        assert found.reference == place.reference
        assert found.index.images[0].image.startswith(f"{place.repository}@")


def test_what_is_no_index(registry: Registry, place: Place, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="is not in the registry"):
        find_index([place.reference], tmp_path, place.said.append, NO_WAIT)
    registry.put_manifest(as_bytes({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": []}), IMAGE_INDEX, LATEST)
    with pytest.raises(BadConfiguration, match="no index of sdrun") as caught:
        find_index([place.reference], tmp_path, place.said.append, NO_WAIT)
    assert (caught.value.id, caught.value.exit_code) == ("bad-index", 8)
