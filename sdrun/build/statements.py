"""What is stated about a published image, read from the image and the catalogue: a bill of materials (SPDX 2.3) and where it
came from (in-toto statement with SLSA provenance v1).

A file system that holds nothing but programs and libraries has no record of Debian's package versions, so packages are named
without them; every file is named with its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrun.build.rootfs import Rootfs, open_rootfs
from sdrun.core.engine import Engine, GitSource, PypiSource
from sdrun.core.labels import BASE_DIGEST, ENGINE_SOURCE, RECIPE, TARGET, TOOLCHAIN
from sdrun.core.oci import CREATED
from sdrun.core.reference import Repository, is_digest
from sdrun.registry.referrers import IN_TOTO, SPDX, Statement

_LICENCES = "usr/share/licenses/"
_PIECE = 1 << 20
_NONE = "NOASSERTION"
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9.-]")  # SPDX 2.3, clause 7.2


def statements(
    archive: Path, labels: Mapping[str, str], engine: Engine, subjects: Sequence[str], repository: Repository
) -> tuple[tuple[Statement, ...], ...]:
    """Both statements about the image saved in `archive`, for each of `subjects`, the digests of its manifests: it has several
    where it is published in several forms. The same image gives the same bill; the provenance names the CI job where there is
    one."""
    created = labels.get(CREATED, "1970-01-01T00:00:00Z")
    with open_rootfs(archive) as rootfs:
        files = [_file(rootfs, path, number) for number, (path, _) in enumerate(rootfs.files())]
        libraries = _libraries(rootfs)
    return tuple(
        (
            Statement(SPDX, _bytes(_bill(files, libraries, labels, engine, subject, created)), created),
            Statement(IN_TOTO, _bytes(provenance(labels, engine, subject, repository)), created),
        )
        for subject in subjects
    )


def _bytes(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _bill(
    files: Sequence[Mapping[str, Any]],
    libraries: Sequence[Mapping[str, object]],
    labels: Mapping[str, str],
    engine: Engine,
    subject: str,
    created: str,
) -> dict[str, object]:
    packages = [_image_package(labels, subject, files), _engine_package(engine), *libraries]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
    relations += [("SPDXRef-image", "CONTAINS", str(package["SPDXID"])) for package in packages[1:]]
    relations += [("SPDXRef-image", "CONTAINS", str(file["SPDXID"])) for file in files]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": labels.get("org.opencontainers.image.title", labels[TARGET]),
        "documentNamespace": f"https://spdx.org/spdxdocs/sdrun-{subject.removeprefix('sha256:')}",
        "creationInfo": {"created": created, "creators": ["Tool: sdrun"]},
        "packages": packages,
        "files": files,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other} for one, kind, other in relations
        ],
    }


def _package(name: str, id: str, version: str, licence: str, purl: str = "", **more: object) -> dict[str, object]:
    row: dict[str, object] = {
        "SPDXID": f"SPDXRef-{_NOT_IN_IDS.sub('-', id)}",
        "name": name,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": licence,
        "copyrightText": _NONE,
        **more,
    }
    if version:
        row["versionInfo"] = version
    if purl:
        row["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]
    return row


def _image_package(labels: Mapping[str, str], subject: str, files: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    sha1s = "".join(sorted(file["checksums"][0]["checksumValue"] for file in files))
    code = hashlib.sha1(sha1s.encode(), usedforsecurity=False).hexdigest()  # SPDX 2.3, clause 7.9
    digest = {"algorithm": "SHA256", "checksumValue": subject.removeprefix("sha256:")}
    version = labels.get("org.opencontainers.image.version", "")
    # The licence of the whole is an expression of the licences of its parts, NVIDIA's among them, which has no SPDX name.
    licence = labels.get("org.opencontainers.image.licenses", "")
    declared = licence if licence and "LicenseRef-" not in licence else _NONE
    more: dict[str, Any] = {"packageVerificationCode": {"packageVerificationCodeValue": code}, "filesAnalyzed": True}
    return _package(labels[TARGET], "image", version, declared, checksums=[digest], primaryPackagePurpose="CONTAINER", **more)


def _engine_package(engine: Engine) -> dict[str, object]:
    source, more = engine.source, {}
    purl = f"pkg:generic/{engine.title}@{engine.version}"
    if isinstance(source, PypiSource):
        purl = f"pkg:pypi/{source.name}@{source.version}"
        more["checksums"] = [{"algorithm": "SHA256", "checksumValue": source.sha256}]
    return _package(engine.title, "engine", engine.version, engine.licence, purl, **more)


def _libraries(rootfs: Rootfs) -> list[dict[str, object]]:
    """The packages whose libraries the image holds: each has left its licence."""
    names = {path.removeprefix(_LICENCES).split("/")[0] for path, _ in rootfs.files() if path.startswith(_LICENCES)}
    return [_package(name, f"package-{name}", "", _NONE, f"pkg:deb/debian/{name}") for name in sorted(names - {"engine"})]


def _file(rootfs: Rootfs, path: str, number: int) -> dict[str, object]:
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)  # SPDX 2.3 demands a SHA1 of every file
    with rootfs.open(path) as file:
        while piece := file.read(_PIECE):
            sha256.update(piece)
            sha1.update(piece)
    checksums = [("SHA1", sha1.hexdigest()), ("SHA256", sha256.hexdigest())]
    return {
        "SPDXID": f"SPDXRef-file-{number}",
        "fileName": f"./{path}",
        "checksums": [{"algorithm": name, "checksumValue": value} for name, value in checksums],
        "licenseConcluded": _NONE,
        "copyrightText": _NONE,
    }


def provenance(
    labels: Mapping[str, str],
    engine: Engine,
    subject: str,
    repository: Repository,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, object]:
    """The in-toto statement: what was built, of what, and where, as far as the environment tells it."""
    builder, run = _builder(environ)
    metadata = {"invocationId": run} if run else {}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": str(repository), "digest": {"sha256": subject.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:sdrun:build:v1",
                "externalParameters": {"target": labels[TARGET], "toolchain": labels.get(TOOLCHAIN, "")},
                "internalParameters": {"recipe": labels.get(RECIPE, "")},
                "resolvedDependencies": _dependencies(labels, engine),
            },
            "runDetails": {"builder": {"id": builder}, "metadata": metadata},
        },
    }


def _builder(environ: Mapping[str, str]) -> tuple[str, str]:
    """Who built it and in which run: GitHub's and GitLab's jobs say so; elsewhere it is a machine that nobody vouches for."""
    if environ.get("GITHUB_WORKFLOW_REF"):
        server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
        return (
            f"{server}/{environ['GITHUB_WORKFLOW_REF']}",
            f"{server}/{repository}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}",
        )
    if environ.get("CI_JOB_URL"):
        return environ.get("CI_PROJECT_URL", environ["CI_JOB_URL"]), environ["CI_JOB_URL"]
    return "urn:sdrun:local", ""


def _dependencies(labels: Mapping[str, str], engine: Engine) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    source = engine.source
    if isinstance(source, PypiSource):
        rows.append({"uri": f"pkg:pypi/{source.name}@{source.version}", "digest": {"sha256": source.sha256}})
    elif isinstance(source, GitSource):
        rows.append({"uri": f"git+{source.url}", "digest": {"gitCommit": source.commit}})
    else:
        rows.append({"uri": labels.get(ENGINE_SOURCE, "path")})
    base = labels.get(BASE_DIGEST, "")
    if is_digest(base):
        name = labels.get("org.opencontainers.image.base.name", "base")
        rows.append({"uri": f"pkg:docker/{name}", "digest": {"sha256": base.removeprefix("sha256:")}})
    return rows
