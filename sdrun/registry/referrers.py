"""What is said about an image, kept beside it: manifests whose `subject` is the image (OCI image specification 1.1).

A registry that knows referrers finds them by itself. For the others the OCI distribution specification ("Referrers Tag Schema")
has an image index under the tag `sha256-<hex>`, which clients keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdrun.core.oci import CREATED, EMPTY, IMAGE_INDEX, IMAGE_MANIFEST
from sdrun.errors import VerificationFailed
from sdrun.registry.archive import as_bytes
from sdrun.registry.client import Manifest, Registry
from sdrun.registry.upload import LocalBlob, upload

SPDX = "application/spdx+json"
IN_TOTO = "application/vnd.in-toto+json"
_NOTHING = LocalBlob.of(b"{}", EMPTY)
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Statement:
    """A document about an image. `kind` is its media type, `created` its date as text."""

    kind: str
    document: bytes
    created: str


def attach(registry: Registry, subject: Manifest, statements: Sequence[Statement]) -> tuple[str, ...]:
    """Stores the statements; the digests of their manifests. The same statement twice is stored once."""
    upload(registry, _NOTHING)
    return tuple(_attach(registry, subject, statement) for statement in statements)


def _attach(registry: Registry, subject: Manifest, statement: Statement) -> str:
    blob = LocalBlob.of(statement.document, statement.kind)
    upload(registry, blob)
    annotations = {CREATED: statement.created}
    body = as_bytes(
        {
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "artifactType": statement.kind,
            "config": _NOTHING.descriptor(),
            "layers": [blob.descriptor()],
            "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.body)},
            "annotations": annotations,
        }
    )
    stored = registry.put_manifest(body, IMAGE_MANIFEST)
    if not stored.subject_known:
        row = {"mediaType": IMAGE_MANIFEST, "digest": stored.digest, "size": len(body), "artifactType": statement.kind}
        _list_by_tag(registry, subject.digest, {**row, "annotations": annotations})
    return stored.digest


def _list_by_tag(registry: Registry, subject: str, row: dict[str, Any]) -> None:
    tag = subject.replace(":", "-")
    for _ in range(_ROUNDS):
        found = registry.find_manifest(tag)
        rows = list(found.document.get("manifests") or []) if found else []
        if any(isinstance(old, dict) and old.get("digest") == row["digest"] for old in rows):
            return
        document = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [*rows, row]}
        registry.put_manifest(as_bytes(document), IMAGE_INDEX, tag)
    raise VerificationFailed(
        f"the list of statements about {subject[:19]}... is being overwritten by others again and again",
        "Run again when they are done.",
        id="index-contended",
    )


def referrers(registry: Registry, subject: str) -> list[dict[str, Any]]:
    """The descriptors of what is said about an image: by the registry's own list, else by the tag."""
    with registry.session.asked("GET", registry.session.path("referrers", subject), {}, "a list of statements") as answer:
        if answer.status == 200:
            rows = registry.session.json(answer, "a list of statements").get("manifests") or []
            return [row for row in rows if isinstance(row, dict)]
        answer.whole()
    found = registry.find_manifest(subject.replace(":", "-"))
    return [row for row in (found.document.get("manifests") or []) if isinstance(row, dict)] if found else []
