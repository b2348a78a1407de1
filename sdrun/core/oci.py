"""The index as a registry holds it: an OCI image index, one descriptor for each image, its facts as annotations.

Sources: opencontainers/image-spec, image-index.md and manifest.md. The annotations are the labels of the images under the same
names (sdrun.core.labels), so that one request answers which digest is whose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from sdrun.core import index
from sdrun.core.decode import Fields, Malformed, check, parse_at
from sdrun.core.index import SCHEMA, Index, IndexImage
from sdrun.core.labels import (
    ENGINE,
    FATBIN_COMPRESSION,
    MIN_DRIVER,
    PTX,
    RECIPE,
    SASS,
    TARGET,
    TOOLKIT,
    index_image_from_labels,
)
from sdrun.core.platform import parse_platform
from sdrun.core.reference import Repository, is_digest
from sdrun.core.target import TargetId

IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY = "application/vnd.oci.empty.v1+json"
INDEX_TYPES = (IMAGE_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (IMAGE_MANIFEST, DOCKER_MANIFEST)

SCHEMA_KEY = "io.sdrun.schema"
PULL_BYTES = "io.sdrun.pull-bytes"  # what a pull transfers: config and layers
LAYERS = "io.sdrun.layers"  # how its layers are packed
GZIP = "io.sdrun.gzip"  # digest of the manifest of the same image with gzip layers, where this one has others
GZIP_BYTES = "io.sdrun.gzip-pull-bytes"  # what a pull of that transfers
GZIP_TAG = "gzip"  # what stands behind its tag
REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
VERSION = "org.opencontainers.image.version"
_COPIED = (TARGET, ENGINE, TOOLKIT, SASS, PTX, FATBIN_COMPRESSION, MIN_DRIVER, RECIPE, CREATED, VERSION)
_MAIN_PLATFORM = "linux/amd64"


@dataclass(frozen=True, slots=True)
class Published:
    """One image in a registry: its manifest's `digest` and `size` in bytes, its `platform`, and what is said of it."""

    digest: str
    size: int
    platform: str
    annotations: Mapping[str, str]
    media_type: str = IMAGE_MANIFEST

    @property
    def tag(self) -> str:
        """`<engine>-<target>`, with the architecture behind it on another platform than linux/amd64. Raises Malformed where the
        annotations are not those of an engine image."""
        return tag_of(self._said(ENGINE), self._said(TARGET), self.platform)

    def _said(self, name: str) -> str:
        if not self.annotations.get(name):
            raise Malformed(name, "is missing among the annotations")
        return self.annotations[name]

    @property
    def slot(self) -> tuple[str, str]:
        """Target and platform: an index holds one image for each."""
        return self.annotations.get(TARGET, ""), self.platform

    def to_json(self) -> dict[str, object]:
        """The OCI descriptor."""
        parts = self.platform.split("/")
        platform = dict(zip(("os", "architecture", "variant"), parts, strict=False))
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            "platform": platform,
            "annotations": dict(sorted(self.annotations.items())),
        }

    def row(self, repository: Repository) -> IndexImage:
        """What the resolver sees. Raises Malformed naming the annotation."""
        size = self._bytes(PULL_BYTES)
        row = index_image_from_labels(self.annotations, repository.at(self.digest), self.platform, size)
        layers, gzip = self.annotations.get(LAYERS), self.annotations.get(GZIP)
        if layers is not None and layers not in index.LAYERS:
            raise Malformed(LAYERS, f"must be one of {', '.join(index.LAYERS)}, not {layers[:40]!r}")
        if gzip is not None and not is_digest(gzip):
            raise Malformed(GZIP, f"must be a digest, not {gzip[:40]!r}")
        return replace(
            row,
            tag=self.tag,
            layers=cast("index.Layers | None", layers),
            gzip=repository.at(gzip) if gzip else None,
            gzip_bytes=self._bytes(GZIP_BYTES),
        )

    def _bytes(self, name: str) -> int | None:
        size = self.annotations.get(name, "")
        if size and not (size.isdecimal() and len(size) <= 20):
            raise Malformed(name, f"must be a number of bytes, not {size[:40]!r}")
        return int(size) if size else None


def tag_of(engine: str, target: str, platform: str) -> str:
    """The tag of an image, unique for engine, target and platform."""
    suffix = "" if platform == _MAIN_PLATFORM else f"-{platform.split('/')[1]}"
    return f"{engine}-{target}{suffix}"


def gzip_tag_of(tag: str) -> str:
    """The tag of the gzip form of the image with that tag."""
    return f"{tag}-{GZIP_TAG}"


def target_in_tag(tag: str, engine: str) -> TargetId | None:
    """The target whose image of `engine` bears this tag, None where it is no such tag."""
    if not tag.startswith(f"{engine}-"):
        return None
    rest = tag.removeprefix(f"{engine}-")
    if rest.endswith(f"-{GZIP_TAG}"):
        return None  # the other form of an image that has a tag of its own
    for text in (rest, rest.rpartition("-")[0]):
        try:
            return TargetId.parse(text)
        except ValueError:
            continue
    return None


def annotations_of(
    labels: Mapping[str, str], pull_bytes: int, layers: index.Layers = "gzip", gzip: tuple[str, int] | None = None
) -> dict[str, str]:
    """The annotations for an image of these labels: what resolving needs and what people look for; empty ones are left out.
    `gzip`: digest and bytes to pull of the same image with gzip layers."""
    facts = {name: labels[name] for name in _COPIED if labels.get(name)}
    other = {GZIP: gzip[0], GZIP_BYTES: str(gzip[1])} if gzip else {}
    return dict(sorted({**facts, PULL_BYTES: str(pull_bytes), LAYERS: layers, **other}.items()))


def index_document(engine: str, images: Iterable[Published], others: Iterable[Mapping[str, object]] = ()) -> dict[str, object]:
    """The image index of `engine`: the same images give the same document, whatever their order. `others` are descriptors to
    keep as they are. `CREATED` is the date of the engine, not of the writing: the newest among the images'."""
    rows = sorted(images, key=lambda image: (image.slot, image.digest))
    dates = [image.annotations[CREATED] for image in rows if CREATED in image.annotations]
    annotations = {SCHEMA_KEY: SCHEMA, ENGINE: engine, **({CREATED: max(dates)} if dates else {})}
    return {
        "schemaVersion": 2,
        "mediaType": IMAGE_INDEX,
        "manifests": [*({**image.to_json(), "annotations": _named(image)} for image in rows), *others],
        "annotations": dict(sorted(annotations.items())),
    }


def _named(image: Published) -> dict[str, str]:
    return dict(sorted({**image.annotations, REF_NAME: image.tag}.items()))


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """What a registry's index says. `created` is the engine's date as text, empty where it is not told; `strange` names the
    descriptors that were passed over and why, and `others` are they."""

    engine: str
    images: tuple[Published, ...]
    created: str = ""
    strange: tuple[str, ...] = ()
    others: tuple[Mapping[str, object], ...] = ()

    def index(self, repository: Repository) -> Index:
        """The resolver's view, images named by digest in `repository`."""
        return Index(self.engine, tuple(image.row(repository) for image in self.images))


def read_index(document: object) -> PublishedIndex:
    """The index in a parsed image index. A descriptor that is no engine image (an attestation, say) is left out silently, one
    whose facts cannot be read with a note: a newer sdrun may know more. Raises Malformed where it is no index of sdrun."""
    top = Fields(document)
    notes = _annotations(top)
    if notes.get(SCHEMA_KEY) != SCHEMA:
        raise Malformed(f"annotations.{SCHEMA_KEY}", f"must be {SCHEMA!r}, so this is no index that sdrun published")
    engine = notes.get(ENGINE, "")
    if not engine:
        raise Malformed(f"annotations.{ENGINE}", "is missing")
    images: list[Published] = []
    strange: list[str] = []
    others: list[Mapping[str, object]] = []
    for path, value in top.items("manifests"):
        try:
            image = published_of(value, path)
            if TARGET in image.annotations:
                image.row(Repository("x", "x"))
                images.append(image)
        except Malformed as fault:
            strange.append(str(fault))
            if isinstance(value, dict):
                others.append(value)
    return PublishedIndex(engine, tuple(images), notes.get(CREATED, ""), tuple(strange), tuple(others))


def published_of(value: object, path: str = "") -> Published:
    """A descriptor as a value; raises Malformed."""
    row = Fields(value, path)
    digest = row.get("digest", str)
    if not is_digest(digest):
        raise Malformed(row.key("digest"), "must be sha256: and 64 hexadecimal digits")
    platform = Fields(row.get("platform", dict), row.key("platform"))
    parts = [platform.text("os"), platform.text("architecture")]
    if variant := platform.find("variant", str):
        parts.append(variant)
    text = parse_at(parse_platform, "/".join(parts), platform.path)
    return Published(digest, row.get("size", int), text, _annotations(row), row.text("mediaType"))


def _annotations(row: Fields) -> dict[str, str]:
    found = row.find("annotations", dict) or {}
    path = row.key("annotations")
    return {str(name): check(value, str, f"{path}.{name}") for name, value in found.items()}


def merged(old: Sequence[Published], new: Sequence[Published]) -> tuple[Published, ...]:
    """Both together; of two for one target and platform the new one."""
    slots = {image.slot: image for image in (*old, *new)}
    return tuple(slots[slot] for slot in sorted(slots))
