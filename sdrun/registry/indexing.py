"""Writing the index: the images of one engine that are in the registry, under the tags `<engine>` and `latest`.

Publishers do not know of each other and registries have no transactions, so the index is made from what cannot be lost: the
tags `<engine>-<target>`, which every publisher sets before it writes the index. After writing, the tags are listed again, and
the index is written again where it lacks one. Whoever writes last has listed after everybody who had set a tag by then, and
whoever sets one later will list later; so no image is lost, in whatever order requests arrive. That holds while the registry
lists its tags truthfully; one that does not is told of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdrun.core.decode import Malformed
from sdrun.core.oci import IMAGE_INDEX, Published, PublishedIndex, index_document, merged, read_index, target_in_tag
from sdrun.errors import VerificationFailed
from sdrun.registry.archive import as_bytes
from sdrun.registry.client import Conflict, Manifest, Registry
from sdrun.registry.faults import FAILED
from sdrun.registry.tagging import TAKEN, described, taken

LATEST = "latest"
_ROUNDS = 30  # of writing and reading again: as many publishers may overwrite each other in one moment
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Written:
    """The index as it is in the registry: its `digest`, the tags that stand for it, its images, and whether this call changed
    anything."""

    digest: str
    tags: tuple[str, ...]
    images: tuple[Published, ...]
    changed: bool


def write_index(
    registry: Registry,
    engine: str,
    own: Sequence[Published],
    say: Callable[[str], None],
    *,
    refresh: bool = False,
    dry_run: bool = False,
) -> Written:
    """Brings the index of `engine` up to date: `own` images, those it had, those whose tags are there; `refresh`: what it says
    of them is read from the images again. `latest` follows unless it stands for a newer engine. Raises VerificationFailed:
    `tag-taken` where an image of ours has another's place or a tag is no index of ours, `index-contended` where others keep
    overwriting it."""
    changed = False
    once = _Once(say)
    for _ in range(_ROUNDS):
        there = _read(registry, engine, engine)
        wanted = _wanted(registry, engine, there, own, once.say, refresh)
        document = index_document(engine, wanted, there.index.others if there else ())
        if there is None or document != there.manifest.document:
            if dry_run:
                return Written("", (), wanted, changed=True)
            changed = True
            _put(registry, engine, as_bytes(document), there)
            continue
        if dry_run or not _follow(registry, there):
            tags = (engine, LATEST) if registry.digest_of(LATEST) == there.manifest.digest else (engine,)
            return Written(there.manifest.digest, tags, wanted, changed)
        changed = True
    raise VerificationFailed(
        f"the index of {registry.repository} is being overwritten by others again and again",
        "Run again when they are done: sdrun publish --index-only",
        id="index-contended",
    )


class _Once:
    """Says nothing twice: every round finds the same."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


@dataclass(frozen=True, slots=True)
class _There:
    manifest: Manifest
    index: PublishedIndex


def _read(registry: Registry, tag: str, engine: str | None) -> _There | None:
    """The index under `tag`. Raises VerificationFailed (`tag-taken`) where it is none, or another engine's."""
    manifest = registry.find_manifest(tag)
    if manifest is None:
        return None
    try:
        index = read_index(manifest.document)
    except Malformed as fault:
        raise VerificationFailed(
            f"{registry.repository}:{tag} is no index that sdrun has published ({fault})",
            "Publish into a repository of its own, or remove that tag.",
            id=TAKEN,
        ) from None
    if engine is not None and index.engine != engine:
        raise taken(registry, tag, manifest.digest)
    return _There(manifest, index)


def _wanted(
    registry: Registry,
    engine: str,
    there: _There | None,
    own: Sequence[Published],
    say: Callable[[str], None],
    refresh: bool,
) -> tuple[Published, ...]:
    """What the index should list. An image whose tag was moved is kept by the digest that was published; one whose manifest is
    gone is left out."""
    listed = {image.tag: image for image in (there.index.images if there else ())}
    mine = {image.tag: image for image in own}
    tags = [tag for tag in registry.tags() if target_in_tag(tag, engine)]
    if not set(mine) <= set(tags):
        say(f"note: {registry.repository} does not list all of its tags; publishers at the same moment may miss each other")
    found: list[Published] = []
    for tag in sorted({*tags, *listed}):
        image = _kept(registry, tag, listed[tag], tag in tags, say) if tag in listed else None
        if image is not None and tag in mine and image.digest != mine[tag].digest:
            raise taken(registry, tag, image.digest)
        if tag not in mine and (image is None or refresh):
            image = _read_again(registry, tag, image, say)
        found += [image] if image is not None else []
    return merged(found, own)


def _kept(registry: Registry, tag: str, image: Published, tagged: bool, say: Callable[[str], None]) -> Published | None:
    now = registry.digest_of(tag) if tagged else None
    if now == image.digest:
        return image
    if registry.digest_of(image.digest) is None:
        say(f"note: {tag} ({image.digest[:19]}...) is gone from the registry; the index no longer lists it")
        return None
    if now is not None:
        say(f"warning: the tag {tag} was moved to {now[:19]}...; the index keeps {image.digest[:19]}..., which was published")
    return image


def _read_again(registry: Registry, tag: str, known: Published | None, say: Callable[[str], None]) -> Published | None:
    manifest = registry.find_manifest(known.digest if known else tag)
    if manifest is None:  # removed since it was listed
        return None
    try:
        image = described(registry, manifest)
        if image.tag != tag:
            raise Malformed(tag, f"is the tag of an image for {image.tag}")
        image.row(registry.repository)
    except (Malformed, VerificationFailed) as fault:
        if isinstance(fault, VerificationFailed) and fault.id not in (FAILED, "hash-mismatch"):
            raise
        say(f"note: {tag} is left out of the index: {fault}")
        return None
    return image


def _put(registry: Registry, tag: str, body: bytes, there: _There | None) -> None:
    """Puts it unless the tag has changed since it was read. What happens between is found by reading again."""
    before = there.manifest.digest if there else None
    if registry.digest_of(tag) != before:
        return
    condition = {"If-Match": f'"{before}"'} if before else {"If-None-Match": "*"}
    try:
        registry.put_manifest(body, IMAGE_INDEX, tag, condition)
    except Conflict:
        registry.session.patience.wait(_PAUSE_S * random.random())


def _follow(registry: Registry, there: _There) -> bool:
    """Sets `latest` to the engine's index, unless it stands for it or for a newer engine; whether anything was to be done."""
    latest = _read(registry, LATEST, None)
    if latest is not None:
        newer = latest.index.engine != there.index.engine and latest.index.created > there.index.created
        if newer or latest.manifest.digest == there.manifest.digest:
            return False
    _put(registry, LATEST, there.manifest.body, latest)
    return True
