"""The index as an OCI image index."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdrun.core.decode import Malformed
from sdrun.core.oci import (
    IMAGE_INDEX,
    Published,
    annotations_of,
    gzip_tag_of,
    index_document,
    merged,
    published_of,
    read_index,
    tag_of,
    target_in_tag,
)
from sdrun.core.reference import Repository

REPOSITORY = Repository("registry.example", "team/sdrun")
LABELS = {
    "io.sdrun.target": "cu124-sm89",
    "io.sdrun.engine": "sdcpp-90e87bc",
    "io.sdrun.platform": "linux/amd64",
    "io.sdrun.toolkit": "12.4",
    "io.sdrun.sass": "89",
    "io.sdrun.ptx": "",
    "io.sdrun.fatbin-compression": "lz4",
    "io.sdrun.min-driver": "525.60.13",
    "io.sdrun.recipe": f"sha256:{'e' * 64}",
    "org.opencontainers.image.created": "2026-05-06T00:00:00Z",
    "org.opencontainers.image.title": "stable-diffusion.cpp",
}


def image(target: str = "cu124-sm89", digit: str = "a", platform: str = "linux/amd64", **other: str) -> Published:
    labels = {**LABELS, "io.sdrun.target": target}
    if target == "cpu":
        labels |= dict.fromkeys(("io.sdrun.toolkit", "io.sdrun.sass", "io.sdrun.fatbin-compression"), "")
    return Published(f"sha256:{digit * 64}", 700, platform, {**annotations_of(labels, 12345), **other})


def test_facts_survive_the_registry() -> None:
    images = (image(), image("cpu", "b"))
    document = index_document("sdcpp-90e87bc", images)
    assert document["mediaType"] == IMAGE_INDEX
    found = read_index(document)
    assert (found.engine, found.created, found.strange) == ("sdcpp-90e87bc", "2026-05-06T00:00:00Z", ())
    rows = {row.target: row for row in found.index(REPOSITORY).images}
    assert rows["cu124-sm89"].image == f"registry.example/team/sdrun@sha256:{'a' * 64}"
    assert [str(arch) for arch in rows["cu124-sm89"].sass] == ["89"]
    assert str(rows["cu124-sm89"].toolkit) == "12.4"
    assert (rows["cu124-sm89"].fatbin_compression, rows["cu124-sm89"].size_bytes) == ("lz4", 12345)
    assert rows["cu124-sm89"].tag == "sdcpp-90e87bc-cu124-sm89"
    assert (rows["cpu"].toolkit, rows["cpu"].sass) == (None, ())


def test_the_same_images_give_the_same_document() -> None:
    one, other = image(), image("cpu", "b")
    assert index_document("e", (one, other)) == index_document("e", (other, one))
    assert "org.opencontainers.image.title" not in str(index_document("e", (one,)))


def test_dates_are_the_engines() -> None:
    undated = replace(image(), annotations={k: v for k, v in image().annotations.items() if not k.endswith(".created")})
    assert read_index(index_document("e", (undated,))).created == ""
    later = image("cpu", "b", **{"org.opencontainers.image.created": "2026-06-01T00:00:00Z"})
    assert read_index(index_document("e", (image(), later))).created == "2026-06-01T00:00:00Z"


def test_what_is_no_engine_image_is_left_out() -> None:
    document = index_document("e", (image(),))
    attestation = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{'c' * 64}",
        "size": 1,
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    of_the_future = {**image("cpu", "d").to_json(), "annotations": {"io.sdrun.target": "rocm6-gfx1100", "io.sdrun.engine": "e"}}
    nameless = {**image("cpu", "d").to_json(), "annotations": {"io.sdrun.target": "cpu"}}
    manifests = document["manifests"]
    assert isinstance(manifests, list)
    found = read_index({**document, "manifests": [*manifests, attestation, of_the_future, nameless]})
    assert [row.digest for row in found.images] == [f"sha256:{'a' * 64}"]
    assert len(found.strange) == 2
    assert "rocm6-gfx1100" in found.strange[0]
    assert "io.sdrun.engine" in found.strange[1]
    assert found.others == (of_the_future, nameless)  # an older sdrun that writes the index again keeps them
    again = index_document("e", found.images, found.others)
    assert read_index(again).others == found.others
    assert read_index({**again, "manifests": [1]}).strange == ("manifests[0]: must be an object, not 1",)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"annotations": None}, "io.sdrun.schema"),
        ({"annotations": {"io.sdrun.schema": "sdrun.index/v1"}}, "io.sdrun.engine"),
        ({"annotations": {"io.sdrun.schema": 1}}, "io.sdrun.schema"),
        ({"annotations": []}, "annotations"),
        ({"manifests": {}}, "manifests"),
    ],
)
def test_what_is_no_index(change: dict[str, object], key: str) -> None:
    with pytest.raises(Malformed, match=key):
        read_index({**index_document("e", (image(),)), **change})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"digest": "sha256:1"}, "digest"),
        ({"digest": 1}, "digest"),
        ({"size": "1"}, "size"),
        ({"platform": None}, "platform"),
        ({"platform": {"os": "linux"}}, "platform.architecture"),
        ({"platform": {"os": "Linux!", "architecture": "amd64"}}, "platform"),
        ({"mediaType": ""}, "mediaType"),
        ({"annotations": {"x": 1}}, "annotations.x"),
    ],
)
def test_descriptors_that_cannot_be(change: dict[str, object], key: str) -> None:
    with pytest.raises(Malformed, match=key):
        published_of({**image().to_json(), **change})


def test_a_descriptor_round_trips() -> None:
    for one in (image(), image(platform="linux/arm64")):
        assert published_of(one.to_json()) == one
    varied = {**image().to_json(), "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}
    assert published_of(varied).platform == "linux/arm/v7"


@pytest.mark.parametrize("size", ["x", "-1", "9" * 21])
def test_sizes_are_numbers(size: str) -> None:
    with pytest.raises(Malformed, match="pull-bytes"):
        image(**{"io.sdrun.pull-bytes": size}).row(REPOSITORY)


def test_a_size_may_be_unknown() -> None:
    assert image(**{"io.sdrun.pull-bytes": ""}).row(REPOSITORY).size_bytes is None


@pytest.mark.parametrize("target", ["cpu", "cu124-sm89", "cu130-sm120f", "cu128-multi"])
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_tags_name_their_target(target: str, platform: str) -> None:
    assert str(target_in_tag(tag_of("sdcpp-90e87bc", target, platform), "sdcpp-90e87bc")) == target


@pytest.mark.parametrize(
    "tag", ["latest", "sdcpp-90e87bc", "sdcpp-90e87bc-", "sdcpp-90e87bc-x", f"sha256-{'a' * 64}.sig", "sdcpp-0-cpu"]
)
def test_other_tags_name_none(tag: str) -> None:
    assert target_in_tag(tag, "sdcpp-90e87bc") is None


def test_a_tag_needs_engine_and_target() -> None:
    with pytest.raises(Malformed, match="target"):
        _ = Published(f"sha256:{'a' * 64}", 1, "linux/amd64", {"io.sdrun.engine": "e"}).tag


def test_merging_keeps_one_for_each_slot() -> None:
    old = (image(), image("cpu", "b"))
    new = (image(digit="c"), image(digit="d", platform="linux/arm64"))
    assert [one.digest[7] for one in merged(old, new)] == ["b", "c", "d"]


def test_the_other_form_of_an_image() -> None:
    gzip = {"io.sdrun.layers": "zstd", "io.sdrun.gzip": f"sha256:{'c' * 64}", "io.sdrun.gzip-pull-bytes": "23456"}
    row = image(**gzip).row(REPOSITORY)
    assert (row.layers, row.gzip, row.gzip_bytes) == ("zstd", REPOSITORY.at(f"sha256:{'c' * 64}"), 23456)
    assert (image().row(REPOSITORY).layers, image().row(REPOSITORY).gzip) == ("gzip", None)
    labels = annotations_of(LABELS, 5, "zstd", (f"sha256:{'c' * 64}", 23456))
    assert {name: labels[name] for name in gzip} == gzip
    assert gzip_tag_of("sdcpp-1-cpu") == "sdcpp-1-cpu-gzip"
    assert target_in_tag("sdcpp-1-cpu-gzip", "sdcpp-1") is None  # it is not an image of its own
    assert str(target_in_tag("sdcpp-1-cu124-sm90-arm64", "sdcpp-1")) == "cu124-sm90"


@pytest.mark.parametrize(
    ("name", "value"), [("io.sdrun.layers", "xz"), ("io.sdrun.gzip", "latest"), ("io.sdrun.gzip-pull-bytes", "-1")]
)
def test_forms_that_cannot_be(name: str, value: str) -> None:
    with pytest.raises(Malformed) as caught:
        image(**{name: value}).row(REPOSITORY)
    assert caught.value.key == name
