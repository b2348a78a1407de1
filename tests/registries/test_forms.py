"""An image in two forms: layers packed with zstd for those who read it, with gzip for the others, found by one request."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdrun.build.forms import push_again, push_forms
from sdrun.build.publishing import Outcome, Publication, published_already, pushed_before, tag_image
from sdrun.catalog.runtimes import readable_here
from sdrun.core.host import RuntimeFacts
from sdrun.core.labels import RECIPE
from sdrun.errors import VerificationFailed
from sdrun.registry.archive import ZSTD_WINDOW_LOG, pack
from sdrun.registry.client import Registry
from sdrun.registry.indexing import write_index
from sdrun.registry.published import find_index
from sdrun.registry.tagging import content_of, described
from tests.registries.conftest import Place
from tests.registries.images import ENGINE, saved

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OLD, NEW = RuntimeFacts("docker", "20.10.24+dfsg1"), RuntimeFacts("docker", "28.5.2")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))


def pushed(registry: Registry, folder: Path, publication: Publication, target: str = "cu124-sm89") -> Outcome:
    (folder / "layers").mkdir(exist_ok=True)
    manifest, sent = push_forms(saved(folder, target), folder / "layers", registry, publication.forms)
    return Outcome(described(registry, manifest), manifest, sent)


def test_both_forms_are_there_and_one_names_the_other(registry: Registry, tmp_path: Path) -> None:
    outcome = pushed(registry, tmp_path, Publication(registry))
    first, other = (registry.read_manifest(digest) for digest in outcome.digests)
    assert [layer["mediaType"].rpartition("+")[2] for layer in first.document["layers"]] == ["zstd"]
    assert [layer["mediaType"].rpartition("+")[2] for layer in other.document["layers"]] == ["gzip"]
    assert content_of(first) == content_of(other)  # one image
    assert list((tmp_path / "layers").iterdir()) == []
    tagged = tag_image(outcome, Publication(registry))
    assert tagged.tagged
    assert registry.tags() == [f"{ENGINE}-cu124-sm89", f"{ENGINE}-cu124-sm89-gzip"]
    assert registry.digest_of(f"{ENGINE}-cu124-sm89-gzip") == other.digest
    again = pushed(registry, tmp_path, Publication(registry))
    assert (again.sent, again.digests) == (0, outcome.digests)
    assert not tag_image(again, Publication(registry)).tagged
    assert pushed_before(registry, first.digest).digests == outcome.digests  # what another job has pushed


def test_one_request_finds_the_form_that_a_runtime_reads(place: Place, registry: Registry, tmp_path: Path) -> None:
    outcome = tag_image(pushed(registry, tmp_path, Publication(registry)), Publication(registry))
    write_index(registry, ENGINE, [outcome.image], place.said.append)
    write_index(registry, ENGINE, [], place.said.append, refresh=True)  # made again from the tags alone
    assert not [text for text in place.said if "left out" in text]
    found = find_index([place.reference], tmp_path / "cache", place.said.append)
    assert found.requests <= 2  # the second with the login that the first was asked for
    for runtime, digest in zip((NEW, OLD), outcome.digests, strict=True):
        (row,) = readable_here(found.index, runtime).images
        assert row.image == place.repository.at(digest)
        assert row.size_bytes == described(registry, registry.read_manifest(digest)).row(place.repository).size_bytes


def test_a_form_that_the_registry_has_lost_is_pushed_again(place: Place, registry: Registry, tmp_path: Path) -> None:
    """Cleaned up for having no tag yet, or left behind by who copied the image by its tag."""
    outcome = tag_image(pushed(registry, tmp_path, Publication(registry)), Publication(registry))
    recipe = outcome.image.annotations[RECIPE]
    assert published_already(registry, outcome.image.tag, recipe) is not None
    gone = registry.session.path("manifests", outcome.digests[1])
    with registry.session.asked("DELETE", gone, {}, "x", None, "delete") as answer:
        assert answer.status == 202
    assert published_already(registry, outcome.image.tag, recipe) is None  # so --skip-existing publishes it
    with pytest.raises(VerificationFailed, match="is not in the registry"):
        tag_image(outcome, Publication(registry))
    archive = saved(tmp_path, "cu124-sm89")
    with pytest.raises(VerificationFailed, match="packed anew it is another") as caught:
        push_again(archive, tmp_path, registry, f"sha256:{'0' * 64}")
    assert caught.value.id == "image-differs"
    push_again(archive, tmp_path, registry, outcome.digests[1])
    tag_image(outcome, Publication(registry))
    assert registry.digest_of(f"{ENGINE}-cu124-sm89-gzip") == outcome.digests[1]


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_one_form_alone(registry: Registry, tmp_path: Path, form: str) -> None:
    publication = Publication(registry, forms=(form,))  # type: ignore[arg-type]
    outcome = tag_image(pushed(registry, tmp_path, publication), publication)
    assert outcome.digests == (outcome.image.digest,)
    assert registry.tags() == [f"{ENGINE}-cu124-sm89"]
    row = outcome.image.row(registry.repository)
    assert (row.layers, row.gzip) == (form, None)


def test_what_stands_twice_megabytes_apart_is_packed_once(tmp_path: Path) -> None:
    """Two programs of one engine in one layer: a window of some megabytes would not see the first from the second."""
    size = 12_000_000
    archive = saved(tmp_path, "cpu", size=size, twice=True)
    packed = pack(archive, tmp_path, "zstd")
    assert packed.layers[0].size < size * 1.02
    path = packed.layers[0].path
    assert path is not None
    data = path.read_bytes()
    limited = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})
    assert len(limited.decompress(data)) > 2 * size  # within what every decoder takes
    assert pack(archive, tmp_path, "zstd").layers[0].digest == packed.layers[0].digest
