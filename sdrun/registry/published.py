"""The index of a registry, for resolving: one request for the manifest, none for the manifest where it has not changed, and the
last one that was seen where the registry cannot be reached."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.decode import Fields, Malformed
from sdrun.core.index import Index
from sdrun.core.oci import INDEX_TYPES, PublishedIndex, read_index
from sdrun.core.reference import Reference
from sdrun.errors import BadConfiguration, SdrunError, VerificationFailed
from sdrun.registry import faults
from sdrun.registry.authorization import Challenge
from sdrun.registry.client import Manifest, Registry
from sdrun.registry.patience import Patience

_OFFLINE = (faults.UNREACHABLE, faults.FAILED)
QUICK = Patience(attempts=2, longest=5.0)  # somebody waits, and there may be a mirror or an earlier copy
SCHEMA = "sdrun.cached-index/v1"


@dataclass(frozen=True, slots=True)
class Found:
    """An index and where it is from: `reference` of the registry or mirror, `digest` of the index, `age` in seconds since it
    was seen there (0: just now), `requests` and `bytes` that it took."""

    published: PublishedIndex
    reference: Reference
    digest: str
    age: float
    requests: int = 0
    bytes: int = 0

    @property
    def index(self) -> Index:
        """What the resolver sees; images are named in the repository the index came from."""
        return self.published.index(self.reference.repository)


def find_index(
    references: Sequence[Reference],
    cache: Path,
    say: Callable[[str], None],
    patience: Patience = QUICK,
    now: Callable[[], float] = time.time,
) -> Found:
    """The index of the first of `references` (the registry, then its mirrors) that answers; where none does, the newest one
    that was seen at any of them, which is said. Raises VerificationFailed where there is neither; a registry that answers and
    refuses, or has no index, is such an answer."""
    failures: list[SdrunError] = []
    for reference in references:
        copy = Copy.of(reference, cache)
        try:
            return _ask(reference, copy, patience, now, say)
        except VerificationFailed as fault:
            if fault.id not in _OFFLINE and len(references) == 1:
                raise
            failures.append(fault)
    kept = [found for reference in references if (found := Copy.of(reference, cache).found(now())) is not None]
    if not kept or not any(fault.id in _OFFLINE for fault in failures):
        raise failures[0]
    newest = min(kept, key=lambda found: found.age)
    say(f"warning: {failures[0].message}")
    say(f"using the index of {newest.reference} as it was {age_text(newest.age)} ago")
    return newest


def _ask(reference: Reference, copy: Copy, patience: Patience, now: Callable[[], float], say: Callable[[str], None]) -> Found:
    registry = Registry(reference.repository, patience)
    kept = copy.read()
    if kept is not None and kept.challenge:
        registry.session.authorization.challenge = Challenge.parse(kept.challenge)
    try:
        manifest = registry.manifest(reference.wanted, etag=kept.etag if kept else "", accept=INDEX_TYPES)
        challenge = registry.session.authorization.challenge
        text = challenge.text if challenge else ""
        if manifest is None:
            assert kept is not None  # only a condition is answered so
            manifest = Manifest(kept.digest, "", kept.body, kept.etag)
        published = _read(manifest, reference)
        copy.write(Kept(manifest.digest, manifest.etag, now(), text, manifest.body))
    finally:
        registry.close()
    for strange in published.strange:
        say(f"note: passing over an image of {reference.repository}: {strange}")
    count = registry.session.count
    return Found(published, reference, manifest.digest, 0.0, count.requests, count.bytes)


def _read(manifest: Manifest, reference: Reference) -> PublishedIndex:
    try:
        return read_index(manifest.document)
    except Malformed as fault:
        raise BadConfiguration(
            f"{reference} holds no index of sdrun: {fault}",
            "Name the repository that sdrun publish wrote to, in SDRUN_REGISTRY or `registry:`.",
            id="bad-index",
        ) from None


@dataclass(frozen=True, slots=True)
class Kept:
    """An index as it was last seen: `seen` in seconds since 1970, `challenge` how the registry asks for a login."""

    digest: str
    etag: str
    seen: float
    challenge: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """The place of an index in the cache."""

    path: Path
    reference: Reference

    @classmethod
    def of(cls, reference: Reference, cache: Path) -> Copy:
        """One file for each repository and tag."""
        name = hashlib.sha256(f"{reference.repository}:{reference.wanted}".encode()).hexdigest()[:32]
        return cls(cache / "registry" / f"{name}.json", reference)

    def read(self) -> Kept | None:
        """What is kept, if it is whole: the body must have the digest that it was kept under."""
        try:
            row = Fields(json.loads(self.path.read_text(encoding="utf-8")))
            kept = Kept(
                row.get("digest", str),
                row.get("etag", str),
                row.get("seen", float),
                row.get("challenge", str),
                row.get("body", str).encode(),
            )
            if row.get("schema", str) != SCHEMA or row.get("reference", str) != str(self.reference):
                return None
        except (OSError, ValueError, RecursionError):
            return None
        return kept if f"sha256:{hashlib.sha256(kept.body).hexdigest()}" == kept.digest else None

    def write(self, kept: Kept) -> None:
        """Keeps it, whole or not at all. A cache that cannot be written costs only the next offline run."""
        row = {"schema": SCHEMA, "reference": str(self.reference), "digest": kept.digest, "etag": kept.etag, "seen": kept.seen}
        document = json.dumps({**row, "challenge": kept.challenge, "body": kept.body.decode()})
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(document, encoding="utf-8")
            temporary.replace(self.path)
        except OSError:
            return

    def found(self, now: float) -> Found | None:
        """The index that is kept, with its age."""
        kept = self.read()
        if kept is None:
            return None
        try:
            published = read_index(json.loads(kept.body))
        except (Malformed, ValueError):
            return None
        return Found(published, self.reference, kept.digest, max(0.0, now - kept.seen))


def age_text(seconds: float) -> str:
    """`40 seconds`, `3 hours`, `2 days`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{int(seconds)} seconds"
