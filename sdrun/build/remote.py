"""Inspecting an image where it lies in a registry: its layers are read as they come, and none of them is kept.

No container runtime takes part; each layer is hashed on the way and has to be what the image's manifest says (sdrun.registry).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdrun.core.decode import Fields, Malformed
from sdrun.core.facts import CudaFacts
from sdrun.core.labels import TARGET
from sdrun.core.platform import parse_platform
from sdrun.core.reference import is_digest
from sdrun.errors import BadConfiguration, UsageProblem
from sdrun.fatbin.layers import Layer, merged, read_layer
from sdrun.fatbin.report import Inspection, summed_up
from sdrun.fatbin.stream import ReadStream
from sdrun.registry.client import Manifest, Registry, open_registry
from sdrun.registry.patience import Patience

Say = Callable[[str], None]
_DEEP = 3  # indexes within indexes
_DRAINED = 1 << 20
_LISTED = 6
_ATTEMPTS = 3  # somebody sits before it and waits


@dataclass(frozen=True, slots=True)
class _Row:
    """An image in an index."""

    digest: str
    platform: str
    target: str

    @classmethod
    def read(cls, value: object, path: str) -> _Row | None:
        """The image of a descriptor, None for an attestation (buildx keeps those beside the images). Raises Malformed."""
        row = Fields(value, path)
        platform = Fields(row.find("platform", dict) or {}, row.key("platform"))
        system, machine = platform.find("os", str) or "", platform.find("architecture", str) or ""
        if system == "unknown":
            return None
        parts = [system, machine, platform.find("variant", str) or ""]
        text = parse_platform("/".join(part for part in parts if part)) if system and machine else ""
        notes = row.find("annotations", dict) or {}
        return cls(row.parse("digest", _digest), text, str(notes.get(TARGET, "")))


def inspect_remote(text: str, facts: CudaFacts, platform: str, say: Say, *, asked: bool = False) -> Inspection:
    """What the image `text` (a tag or a digest) of its registry carries. Of a list of images the one for `platform` (`asked`:
    the user named it).

    Raises UsageProblem (`bad-reference`, `platform-mismatch`, `several-images`), BadConfiguration (`not-inspectable`) for what
    is no image or has a layer that cannot be read, and the errors of `Registry`: VerificationFailed for what cannot be had or
    is not what its digest says.
    """
    registry, reference = open_registry(text, Patience(attempts=_ATTEMPTS, say=say))
    try:
        manifest = registry.read_manifest(reference.wanted)
        for _ in range(_DEEP):
            if not manifest.is_index:
                break
            manifest = registry.read_manifest(_chosen(text, manifest, platform, say, asked=asked))
        try:
            layers = _layers(manifest)
        except Malformed as fault:
            raise _no_image(text, str(fault)) from None
        megabytes = sum(size for _, size in layers) / 1e6
        say(f"{text}: {len(layers)} layer{'' if len(layers) == 1 else 's'}, {megabytes:.1f} MB to read")
        read: dict[str, Layer] = {}
        for digest, size in layers:
            if digest not in read:
                read[digest] = _read(registry, digest, size, text)
        files = merged(read[digest] for digest, _ in layers)
    finally:
        registry.close()
    return summed_up(text, sorted(files, key=lambda file: file.path), facts)


def _read(registry: Registry, digest: str, size: int, text: str) -> Layer:
    with registry.blob(digest, size) as blob:
        layer = read_layer(ReadStream(blob.read))
        while blob.read(_DRAINED):
            pass  # a tar ends before its file does, and the hash is the whole file's
    if layer.fault is not None:
        raise _no_image(text, f"its layer {digest[:19]} cannot be read: {layer.fault}")
    return layer


def _layers(manifest: Manifest) -> list[tuple[str, int]]:
    """Digest and size of each layer, lowest first. Raises Malformed."""
    rows = [Fields(value, path) for path, value in Fields(manifest.document).items("layers")]
    return [(row.parse("digest", _digest), row.get("size", int)) for row in rows]


def _digest(text: str) -> str:
    if not is_digest(text):
        raise ValueError(f"must be sha256: and 64 hexadecimal digits, not {text[:80]!r}")
    return text


def _chosen(text: str, index: Manifest, platform: str, say: Say, *, asked: bool) -> str:
    """The digest of the one image in a list that is meant."""
    try:
        rows = [_Row.read(value, path) for path, value in Fields(index.document).items("manifests")]
    except (Malformed, ValueError) as fault:
        raise _no_image(text, str(fault)) from None
    images = [row for row in rows if row is not None]
    if not images:
        raise _no_image(text, "its list of images is empty")
    fitting = [row for row in images if row.platform == platform] or ([] if asked or len(images) > 1 else images)
    if not fitting:
        there = sorted({row.platform or "no platform" for row in images})
        raise UsageProblem(
            f"{text} has no image for {platform}, but for {', '.join(there)}",
            f"Name one: sdrun inspect {text} --platform {there[0]}",
            id="platform-mismatch",
        )
    if len({row.digest for row in fitting}) > 1:
        raise _several(text, platform, fitting)
    if len(images) > 1:
        say(f"{text} names {len(images)} images; this is the one for {fitting[0].platform}, {fitting[0].digest[:19]}")
    return fitting[0].digest


def _several(text: str, platform: str, rows: Sequence[_Row]) -> UsageProblem:
    repository = open_registry(text)[1].repository
    shown = [f"  {repository.at(row.digest)}{f'  {row.target}' if row.target else ''}" for row in rows[:_LISTED]]
    more = [f"  and {len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
    return UsageProblem(
        f"{text} names {len(rows)} images for {platform}",
        "Name one of them by its tag or digest.",
        id="several-images",
        detail="\n".join([*shown, *more]),
    )


def _no_image(text: str, why: str) -> BadConfiguration:
    return BadConfiguration(f"{text} cannot be inspected: {why}", "Name a container image.", id="not-inspectable")
