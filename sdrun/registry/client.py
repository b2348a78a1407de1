"""One repository of a registry: manifests, blobs, tags, by the OCI distribution specification.

Nothing is taken on trust: a manifest asked for by digest, and every blob, is hashed while it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from sdrun.core.oci import INDEX_TYPES, MANIFEST_TYPES
from sdrun.core.reference import Reference, Repository, is_digest
from sdrun.errors import UsageProblem, VerificationFailed
from sdrun.registry import faults
from sdrun.registry.blob import Blob
from sdrun.registry.body import BytesBody
from sdrun.registry.patience import Patience
from sdrun.registry.session import PUSH, Session
from sdrun.registry.transport import MAX_BODY, Answer

ANY_MANIFEST = (*MANIFEST_TYPES, *INDEX_TYPES)
_TAG_PAGES = 200


class Conflict(Exception):
    """The registry says that a tag is no longer what the condition named."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it came: its `digest` is the sha256 of `body`. `etag` is empty where the registry sent none."""

    digest: str
    media_type: str
    body: bytes
    etag: str = field(default="", compare=False)

    @property
    def document(self) -> dict[str, Any]:
        """The parsed body; the client has made sure that it is a JSON object."""
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def is_index(self) -> bool:
        """Whether it lists other manifests."""
        return self.media_type in INDEX_TYPES


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest that was put: its digest, and whether the registry understood its `subject` (OCI distribution 1.1)."""

    digest: str
    subject_known: bool


class Registry:
    """One repository. Methods raise VerificationFailed: `registry-unreachable`, `registry-refused` (login), `registry-failed`,
    `not-in-registry`, `hash-mismatch`; BadConfiguration for certificates or logins that cannot be read."""

    def __init__(
        self, repository: Repository, patience: Patience | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.repository = repository
        self.session = Session(repository, patience or Patience(), environ)

    def close(self) -> None:
        """Gives back the connections; a process that ends need not."""
        self.session.close()

    def manifest(self, wanted: str, *, etag: str = "", accept: Sequence[str] = ANY_MANIFEST) -> Manifest | None:
        """The manifest of a tag or digest; None where it is still the one of `etag`."""
        headers = {"Accept": ", ".join(accept), **({"If-None-Match": etag} if etag else {})}
        what = self._named(wanted)
        with self.session.asked("GET", self.session.path("manifests", wanted), headers, what) as answer:
            if answer.status == 304 and etag:
                answer.whole()
                return None
            self.session.expect(answer, (200,), what)
            return self._checked(answer, wanted)

    def read_manifest(self, wanted: str) -> Manifest:
        """The manifest of a tag or digest; raises VerificationFailed (`not-in-registry`) where there is none."""
        found = self.manifest(wanted)
        assert found is not None  # only a condition is answered with None
        return found

    def find_manifest(self, wanted: str) -> Manifest | None:
        """As `read_manifest`, None where there is no such tag or digest."""
        try:
            return self.read_manifest(wanted)
        except VerificationFailed as fault:
            if fault.id != faults.MISSING:
                raise
            return None

    def _checked(self, answer: Answer, wanted: str) -> Manifest:
        what, body = self._named(wanted), self.session.body(answer)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        told = answer.headers.get("docker-content-digest", digest)
        if (is_digest(wanted) and digest != wanted) or told != digest:
            promised = wanted if is_digest(wanted) else told
            raise VerificationFailed(
                f"{what} came with digest {digest[:19]}... instead of {promised[:19]}...; nothing was used",
                "Do not use it: the registry, or what stands between, has altered it.",
                id="hash-mismatch",
            )
        document = self.session.parsed(body, what)
        kind = str(document.get("mediaType") or answer.headers.get("content-type", "").partition(";")[0].strip())
        return Manifest(digest, kind, body, answer.headers.get("etag", ""))

    def digest_of(self, wanted: str) -> str | None:
        """The digest a tag stands for, or a digest if it is there; None where it is not. Costs one HEAD request, two with a
        registry that does not tell the digest."""
        headers, what = {"Accept": ", ".join(ANY_MANIFEST)}, self._named(wanted)
        with self.session.asked("HEAD", self.session.path("manifests", wanted), headers, what) as answer:
            if answer.status == 404:
                return None
            self.session.expect(answer, (200,), what)
            told = answer.headers.get("docker-content-digest", "")
        if is_digest(told):
            return told
        manifest = self.find_manifest(wanted)
        return manifest.digest if manifest else None

    def tags(self) -> list[str]:
        """All tags, sorted; none where the repository does not exist yet."""
        found: set[str] = set()
        url: str | None = f"{self.session.path('tags', 'list')}?n=1000"
        for _ in range(_TAG_PAGES):
            if url is None:
                break
            with self.session.asked("GET", url, {}, "the list of tags") as answer:
                if answer.status == 404:
                    break
                self.session.expect(answer, (200,), "the list of tags")
                rows = self.session.json(answer, "the list of tags").get("tags") or []
                found |= {tag for tag in rows if isinstance(tag, str)}
                url = _next_page(answer)
        return sorted(found)

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there."""
        what = f"blob {digest[:19]}"
        with self.session.asked("HEAD", self.session.path("blobs", digest), {}, what) as answer:
            if answer.status != 404:
                self.session.expect(answer, (200,), what)
            return answer.status == 200

    @contextmanager
    def blob(self, digest: str, size: int | None = None) -> Iterator[Blob]:
        """The blob as a stream with `read(count)`, from beginning to end: hashed on the way, continued where the connection
        breaks off. Its last `read` raises VerificationFailed (`hash-mismatch`) where it is not what its digest says."""
        stream = Blob(digest, size, self._open_blob, self.session)
        try:
            yield stream
        finally:
            stream.close()

    def small_blob(self, digest: str) -> bytes:
        """A blob of at most 8 MiB, whole and checked: an image's configuration, a statement."""
        with self.blob(digest) as stream:
            return stream.read_all(MAX_BODY)

    def _open_blob(self, digest: str, start: int) -> Answer:
        headers = {"Range": f"bytes={start}-"} if start else {}
        url, what = self.session.path("blobs", digest), f"blob {digest[:19]}"
        answer = self.session.patiently(lambda: self.session.send("GET", url, headers), what)
        try:
            self.session.expect(answer, (200, 206), what)
        except VerificationFailed:
            answer.close()
            raise
        return answer

    def put_manifest(
        self, body: bytes, media_type: str, tag: str | None = None, conditions: Mapping[str, str] | None = None
    ) -> Stored:
        """Stores a manifest under its digest, and under `tag` if one is named. `conditions` are headers such as If-Match.
        Raises Conflict where the registry honours them and they do not hold."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        headers = {"Content-Type": media_type, **(conditions or {})}
        what = f"the manifest {tag or digest[:19]}"
        url = self.session.path("manifests", tag or digest)
        with self.session.asked("PUT", url, headers, what, lambda: BytesBody(body), PUSH) as answer:
            if answer.status == 412:
                raise Conflict
            self.session.expect(answer, (200, 201, 202), what)
            told = answer.headers.get("docker-content-digest", digest)
            answer.whole()
        if told != digest:
            raise faults.nonsense(what, self.session.host, f"it has stored {told[:19]} instead of {digest[:19]}")
        return Stored(digest, "oci-subject" in answer.headers)

    def _named(self, wanted: str) -> str:
        return f"{self.repository}@{wanted[:19]}" if is_digest(wanted) else f"{self.repository}:{wanted}"


def _next_page(answer: Answer) -> str | None:
    """The address in a Link header (`<...>; rel="next"`), on the registry itself."""
    link = answer.headers.get("link", "")
    if 'rel="next"' not in link or not link.startswith("<"):
        return None
    parts = urlsplit(urljoin(answer.url, link[1:].partition(">")[0]))
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def open_registry(text: str, patience: Patience | None = None) -> tuple[Registry, Reference]:
    """The registry of a reference as a user writes it, and the reference. Raises UsageProblem (`bad-reference`)."""
    try:
        reference = Reference.parse(text)
    except ValueError as fault:
        raise UsageProblem(
            f"the reference {fault}", "Write it as docker does: registry.example/team/sdrun.", id="bad-reference"
        ) from None
    return Registry(reference.repository, patience), reference
