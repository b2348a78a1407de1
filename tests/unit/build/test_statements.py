"""The bill of materials and the provenance of an image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sdrun.build.statements import _package, provenance, statements
from sdrun.catalog.engines import engines
from sdrun.core.reference import Repository
from sdrun.registry.referrers import IN_TOTO, SPDX
from tests.registries.images import ENGINE, labels, saved

SUBJECT = f"sha256:{'a' * 64}"
REPOSITORY = Repository("registry.example", "team/sdrun")
BASE = {
    "org.opencontainers.image.base.digest": f"sha256:{'b' * 64}",
    "org.opencontainers.image.base.name": "debian:bookworm-slim",
}


def test_every_file_and_every_part_is_named(tmp_path: Path) -> None:
    archive = saved(tmp_path, "cpu")
    ((bill, origin),) = statements(archive, labels("cpu") | BASE, engines()[ENGINE], [SUBJECT], REPOSITORY)
    assert (bill.kind, origin.kind) == (SPDX, IN_TOTO)
    document = json.loads(bill.document)
    (file,) = document["files"]
    assert file["fileName"] == "./usr/bin/sd-cli"
    digests = {row["algorithm"]: row["checksumValue"] for row in file["checksums"]}
    assert {name: len(value) for name, value in digests.items()} == {"SHA1": 40, "SHA256": 64}
    names = {package["SPDXID"]: package for package in document["packages"]}
    assert names["SPDXRef-image"]["checksums"][0]["checksumValue"] == "a" * 64
    assert "pkg:pypi/stable-diffusion-cpp-python@" in names["SPDXRef-engine"]["externalRefs"][0]["referenceLocator"]
    related = {row["relatedSpdxElement"] for row in document["relationships"]}
    assert related == {"SPDXRef-image", "SPDXRef-engine", file["SPDXID"]}
    ids = [*names, file["SPDXID"], document["SPDXID"]]
    assert len(set(ids)) == len(ids)
    (again,) = statements(archive, labels("cpu") | BASE, engines()[ENGINE], [SUBJECT], REPOSITORY)
    assert again[0] == bill


def test_names_that_spdx_does_not_take() -> None:
    assert _package("libstdc++6", "package-libstdc++6", "", "MIT")["SPDXID"] == "SPDXRef-package-libstdc--6"


def test_where_it_came_from() -> None:
    engine = engines()[ENGINE]
    local = provenance(labels("cpu") | BASE, engine, SUBJECT, REPOSITORY, {})
    assert local["subject"] == [{"name": "registry.example/team/sdrun", "digest": {"sha256": "a" * 64}}]
    predicate = local["predicate"]
    assert isinstance(predicate, dict)
    assert predicate["runDetails"]["builder"]["id"] == "urn:sdrun:local"
    sources = predicate["buildDefinition"]["resolvedDependencies"]
    assert [row["uri"].split("@")[0] for row in sources] == [
        "pkg:pypi/stable-diffusion-cpp-python",
        "pkg:docker/debian:bookworm-slim",
    ]
    assert all(len(row["digest"]["sha256"]) == 64 for row in sources)
    job = {
        "GITHUB_WORKFLOW_REF": "team/sdrun/.github/workflows/publish.yml@refs/heads/main",
        "GITHUB_SERVER_URL": "https://forge.example",
        "GITHUB_REPOSITORY": "team/sdrun",
        "GITHUB_RUN_ID": "7",
    }
    built = provenance(labels("cpu"), engine, SUBJECT, REPOSITORY, job)["predicate"]
    assert isinstance(built, dict)
    assert built["runDetails"]["builder"]["id"].startswith("https://forge.example/team/sdrun/.github/workflows/")
    assert built["runDetails"]["metadata"]["invocationId"].endswith("/actions/runs/7")
    other = provenance(labels("cpu"), engine, SUBJECT, REPOSITORY, {"CI_JOB_URL": "https://ci.example/jobs/1"})["predicate"]
    assert isinstance(other, dict)
    assert other["runDetails"]["builder"]["id"] == "https://ci.example/jobs/1"


def test_hashes_are_of_the_files(tmp_path: Path) -> None:
    import random

    data = random.Random("cpu").randbytes(3000)
    ((bill, _),) = statements(saved(tmp_path, "cpu"), labels("cpu"), engines()[ENGINE], [SUBJECT], REPOSITORY)
    checksums = json.loads(bill.document)["files"][0]["checksums"]
    assert {"algorithm": "SHA256", "checksumValue": hashlib.sha256(data).hexdigest()} in checksums
