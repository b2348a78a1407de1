"""Registry and mirrors from the settings, and images that must be what the index said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdrun.catalog.config import Settings
from sdrun.core.capability import Arch
from sdrun.core.host import RuntimeFacts
from sdrun.core.index import IndexImage
from sdrun.core.labels import index_image_from_labels
from sdrun.core.reference import Reference
from sdrun.errors import BadConfiguration, RuntimeUnavailable, VerificationFailed
from sdrun.launch.choosing import Wishes
from sdrun.launch.sources import Sources, as_announced, check_layers, local_copy, pulled, sources_of
from sdrun.runtime.fake import FakeRuntime
from sdrun.runtime.protocol import LocalImage

DIGEST = f"sha256:{'d' * 64}"
LABELS = {
    "io.sdrun.target": "cu124-sm89",
    "io.sdrun.engine": "sdcpp-90e87bc",
    "io.sdrun.toolkit": "12.4",
    "io.sdrun.sass": "89",
    "io.sdrun.fatbin-compression": "lz4",
}
TWO = sources_of(Settings(registry="a.example/sdrun:engine", mirrors=("b.example/x", "c.example/y:other")))


def local(reference: str) -> LocalImage:
    return LocalImage(f"sha256:{'1' * 64}", (), (reference,), LABELS, 5, "linux/amd64")


def row() -> IndexImage:
    return index_image_from_labels(LABELS, f"a.example/sdrun@{DIGEST}", "linux/amd64")


def test_mirrors_take_the_registrys_tag() -> None:
    assert [str(one) for one in TWO.references] == ["a.example/sdrun:engine", "b.example/x:engine", "c.example/y:other"]
    assert sources_of(Settings()) == Sources()
    assert sources_of(Settings(mirrors=("b.example/x",))).references == ()


@pytest.mark.parametrize(
    "settings", [Settings(registry="https://a.example/x"), Settings(registry="a.example/x", mirrors=("B C",))]
)
def test_what_is_no_registry(settings: Settings) -> None:
    with pytest.raises(BadConfiguration) as caught:
        sources_of(settings)
    assert (caught.value.id, caught.value.exit_code) == ("bad-config", 8)


def test_an_image_pulled_from_a_mirror_is_found_again() -> None:
    runtime = FakeRuntime(local=[local(f"b.example/x@{DIGEST}")])
    assert local_copy(runtime, TWO, f"a.example/sdrun@{DIGEST}") == local(f"b.example/x@{DIGEST}")
    assert local_copy(runtime, Sources(), f"a.example/sdrun@{DIGEST}") is None
    assert local_copy(runtime, TWO, f"a.example/sdrun@sha256:{'e' * 64}") is None


def test_pulled_from_the_next_that_has_it() -> None:
    there = local(f"b.example/x@{DIGEST}")
    runtime = FakeRuntime(remote={f"b.example/x@{DIGEST}": there})
    said: list[str] = []
    assert pulled(runtime, TWO, f"a.example/sdrun@{DIGEST}", None, said.append) == there
    assert said[0] == f"pulling a.example/sdrun@{DIGEST}"
    with pytest.raises(VerificationFailed) as caught:
        pulled(FakeRuntime(), TWO, f"a.example/sdrun@{DIGEST}", None, said.append)
    assert caught.value.id == "download-failed"


def test_an_image_is_what_the_index_said() -> None:
    as_announced(local("x"), row())


@pytest.mark.parametrize(
    "lie",
    [
        {"target": "cu124-sm90"},
        {"platform": "linux/arm64"},
        {"sass": (Arch.parse("90"),)},
        {"ptx": (Arch.parse("80"),)},
        {"fatbin_compression": "none"},
        {"toolkit": None},
    ],
)
def test_an_index_that_lies(lie: dict[str, object]) -> None:
    with pytest.raises(VerificationFailed, match="is not what the index says") as caught:
        as_announced(local("x"), replace(row(), **lie))  # type: ignore[arg-type]
    assert (caught.value.id, caught.value.exit_code) == ("image-differs", 7)


def test_an_image_without_labels_is_none_of_ours() -> None:
    with pytest.raises(VerificationFailed, match="target"):
        as_announced(replace(local("x"), labels={}), row())


@pytest.mark.parametrize(
    ("wishes", "by_index"),
    [
        (Wishes(), False),
        (Wishes(index="i.json"), True),
        (Wishes(index="i.json", image="x"), True),
        (Wishes(sources=TWO), True),
        (Wishes(sources=TWO, image="cu124-sm89"), True),
        (Wishes(sources=TWO, image="somebody/image:tag"), False),
        (Wishes(image="cu124-sm89"), False),
    ],
)
def test_where_an_image_is_looked_for(wishes: Wishes, by_index: bool) -> None:
    assert wishes.by_index == by_index


def test_references_are_values() -> None:
    assert Sources((Reference.parse("a.example/x"),)) == Sources((Reference.parse("a.example/x"),))


@pytest.mark.parametrize(("version", "refused"), [("20.10.24+dfsg1", True), ("23.0.1", False), ("dev", False)])
def test_layers_that_a_runtime_cannot_read_are_told_before_the_pull(version: str, refused: bool) -> None:
    zstd, runtime = replace(row(), layers="zstd"), RuntimeFacts("docker", version)
    for fine in (None, row(), replace(row(), layers="gzip")):
        check_layers(fine, runtime)
    check_layers(zstd, None)
    if not refused:
        check_layers(zstd, runtime)
        return
    with pytest.raises(RuntimeUnavailable) as caught:
        check_layers(zstd, runtime)
    assert (caught.value.id, caught.value.exit_code) == ("layers-unreadable", 6)
    assert "docker 20.10.24+dfsg1 cannot read" in caught.value.message
    assert caught.value.remedy == (
        "Install docker 23.0 or newer; or build the image here (sdrun build cu124-sm89), and name what it prints with --image."
    )
