"""`sdrun inspect` of an image in a real registry: over TLS, with a login, over a connection that breaks."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from fatbins.files import PACKINGS, engine, fixture, layer

from sdrun.core.oci import IMAGE_CONFIG, IMAGE_MANIFEST
from sdrun.registry.client import Registry
from sdrun.registry.upload import LocalBlob, upload
from tests.registries.conftest import Place
from tests.registries.front import Fault

LAYERS = [
    layer({"usr/bin/sd-cli": engine(fixture("cu118-sm52.fatbin"), "520"), "pad": random.Random(8).randbytes(1 << 20)}),
    layer({"usr/bin/sd-cli": engine(fixture("cu124-raw.fatbin"), "890,900")}),
]


def pushed(registry: Registry, packing: str) -> str:
    """An image of these layers under the tag `v1`; its digest."""
    blobs = [LocalBlob.of(PACKINGS[packing](data), f"application/vnd.oci.image.layer.v1.tar+{packing}") for data in LAYERS]
    config = LocalBlob.of(b"{}", IMAGE_CONFIG)
    for blob in (*blobs, config):
        upload(registry, blob)
    rows = [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size} for blob in (config, *blobs)]
    document = {"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": rows[0], "layers": rows[1:]}
    return registry.put_manifest(json.dumps(document).encode(), IMAGE_MANIFEST, "v1").digest


def inspect(place: Place, text: str, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sdrun", "inspect", text, "--remote", *more]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=place.environ)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_by_tag_and_by_digest(place: Place, registry: Registry, packing: str) -> None:
    digest = pushed(registry, packing)
    for text in (f"{place.repository}:v1", place.repository.at(digest)):
        done = inspect(place, text, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert [(file["path"], file["sass"]) for file in document["files"]] == [("usr/bin/sd-cli", ["89", "90a"])]
    assert inspect(place, f"{place.repository}:v1", "--for", "5.2").returncode == 4


def test_a_layer_goes_on_where_the_connection_broke(place: Place, registry: Registry) -> None:
    pushed(registry, "gzip")
    place.front.script(Fault("GET", "/blobs/", cut_answer=300_000))
    done = inspect(place, f"{place.repository}:v1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sass"] == ["89", "90a"]
    assert any("range" in {name.lower() for name in one.headers} for one in place.front.seen if "/blobs/" in one.path)


def test_without_a_login_it_says_so(place: Place, registry: Registry) -> None:
    pushed(registry, "gzip")
    (place.home / ".docker" / "config.json").unlink()
    done = inspect(place, f"{place.repository}:v1", "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (7, "registry-refused")


def test_a_tag_that_is_not_there(place: Place) -> None:
    done = inspect(place, f"{place.repository}:v2", "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (7, "not-in-registry")
