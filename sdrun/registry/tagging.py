"""Tags that are never moved: `<engine>-<target>` is given once.

Registries have no conditional PUT that all of them honour. So a tag is looked up before it is set, the condition is sent along
for those that know it, and the tag is read again afterwards. Two publishers that set one tag to different content in the same
moment can still overwrite each other; the index, which names digests, takes one of them, and the other is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from sdrun.core.oci import GZIP, GZIP_BYTES, MANIFEST_TYPES, Published, annotations_of
from sdrun.core.platform import parse_platform
from sdrun.errors import VerificationFailed
from sdrun.registry import faults
from sdrun.registry.client import Conflict, Manifest, Registry

TAKEN = "tag-taken"


def content_of(manifest: Manifest) -> str:
    """The digest of the configuration, which names the layers unpacked: what an image is, however its layers are compressed."""
    config = manifest.document.get("config")
    return str(config.get("digest", "")) if isinstance(config, Mapping) else ""


def taken(registry: Registry, tag: str, there: str) -> VerificationFailed:
    """Another image has the tag."""
    return VerificationFailed(
        f"{registry.repository}:{tag} is there already with other content ({there[:19]}...); a published tag is never moved",
        "Publish what is there (--skip-existing), or give the engine's row another name.",
        id=TAKEN,
    )


def existing(registry: Registry, tag: str, content: str) -> Manifest | None:
    """What the tag stands for, if it is of the same content; None where there is no such tag. Raises VerificationFailed
    (`tag-taken`) for other content."""
    found = registry.find_manifest(tag)
    if found is not None and (found.is_index or content_of(found) != content):
        raise taken(registry, tag, found.digest)
    return found


def set_tag(registry: Registry, tag: str, image: Manifest) -> tuple[Manifest, bool]:
    """Gives the image its tag: what bears the tag now, and whether this call has set it. The same image that was published
    before, with its layers compressed otherwise perhaps, stays. Raises VerificationFailed (`tag-taken`)."""
    if (found := existing(registry, tag, content_of(image))) is not None:
        return found, False
    with suppress(Conflict):  # set by somebody else meanwhile; to what, is seen next
        registry.put_manifest(image.body, image.media_type, tag, {"If-None-Match": "*"})
    now = existing(registry, tag, content_of(image))
    if now is None:
        raise faults.missing(f"the tag {tag}, which was just set,")
    return now, now.digest == image.digest


def described(registry: Registry, manifest: Manifest) -> Published:
    """What an index says of an image that is in the registry: the labels in its configuration, how its layers are packed, and,
    from its manifest's annotations, which other form of it there is. Raises VerificationFailed where it is no single image."""
    if manifest.media_type not in MANIFEST_TYPES:
        raise faults.nonsense(manifest.digest[:19], registry.session.host, f"it is a {manifest.media_type[:60]}")
    document = manifest.document
    notes = document.get("annotations")
    notes = notes if isinstance(notes, Mapping) else {}
    try:
        config_digest = str(document["config"]["digest"])
        pull_bytes = int(document["config"]["size"]) + sum(int(layer["size"]) for layer in document["layers"])
        zstd = any(str(layer["mediaType"]).endswith("+zstd") for layer in document["layers"])
        gzip = (str(notes[GZIP]), int(notes[GZIP_BYTES])) if zstd and GZIP in notes else None
        config = registry.session.parsed(registry.small_blob(config_digest), "an image's configuration")
        labels = dict((config.get("config") or {}).get("Labels") or {})
        variant = f"/{config['variant']}" if config.get("variant") else ""
        platform = parse_platform(f"{config['os']}/{config['architecture']}{variant}")
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise faults.nonsense(manifest.digest[:19], registry.session.host, f"it is no image ({fault})") from None
    annotations = annotations_of(labels, pull_bytes, "zstd" if zstd else "gzip", gzip)
    return Published(manifest.digest, len(manifest.body), platform, annotations, manifest.media_type)
