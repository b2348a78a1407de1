"""An image of the local container runtime becomes a published one: proven, pushed by digest, described, signed, and only then
tagged."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdrun.build.disk import disk_errors
from sdrun.build.forms import push_again, push_forms
from sdrun.build.image import Recipe
from sdrun.build.readback import save_image
from sdrun.build.source import fetch
from sdrun.build.statements import statements
from sdrun.build.verifying import verify
from sdrun.catalog.engines import engines
from sdrun.catalog.gpu_runs import gpu_runs
from sdrun.catalog.targets import targets
from sdrun.core.decode import Malformed
from sdrun.core.gpurun import awaited
from sdrun.core.labels import ENGINE, RECIPE
from sdrun.core.oci import GZIP, Published, gzip_tag_of, tag_of
from sdrun.core.target import Target
from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.registry.archive import Compression, content_of
from sdrun.registry.client import Manifest, Registry
from sdrun.registry.cosign import Signer
from sdrun.registry.referrers import attach
from sdrun.registry.signatures import is_signed
from sdrun.registry.tagging import described, existing, set_tag
from sdrun.render.dockerfile import render
from sdrun.resources import cache_root
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

Say = Callable[[str], None]
_PREFIX = "publish-"
_LEFT_OVER_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Publication:
    """How to publish: where, in which forms (the first is what an index names, another is for runtimes that cannot read it),
    signed by whom (None: not), told to whom. `key` checks what `signer` signs."""

    registry: Registry
    forms: tuple[Compression, ...] = ("zstd", "gzip")
    signer: Signer | None = None
    key: bytes | None = None
    say: Say = lambda text: None
    sent: Callable[[int], None] = lambda count: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image. `sent`: bytes of blobs that had to be sent; `seconds` by step."""

    image: Published
    manifest: Manifest
    sent: int = 0
    tagged: bool = False
    signed: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        """The engine in the image."""
        return self.image.annotations[ENGINE]

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all its forms."""
        other = self.image.annotations.get(GZIP)
        return (self.image.digest, other) if other else (self.image.digest,)


def push_image(image: LocalImage, runtime: ContainerRuntime, publication: Publication) -> Outcome:
    """Proves the image, pushes it by digest with what is stated about it, and has it signed; sets no tag. An image that is
    published already is not sent again. Raises VerificationFailed: `image-differs` where the proof fails, `tag-taken` where
    another image has its tag, and what `check_runs` does."""
    registry, clock = publication.registry, _Clock()
    target, proof = verify(image.tags[0] if image.tags else image.id, runtime)
    check_runs(target, proof.pruned_library)
    if target.engine not in engines():
        raise BadConfiguration(
            f"the engine {target.engine} of {target.id} is no row of images/engines.yaml, so it is not for publishing",
            "Pin its source in a row of its own; then build again.",
            id="bad-catalogue",
        )
    clock.lap("prove")
    with (
        tempfile.TemporaryDirectory(dir=_swept(cache_root() / "contexts"), prefix=_PREFIX) as name,
        disk_errors(Path(name)),
    ):
        folder = Path(name)
        archive = folder / "image.tar"
        save_image(image, archive, runtime)
        clock.lap("save")
        there = existing(registry, tag_of(target.engine, str(target.id), target.platform), content_of(archive))
        sent = 0
        if there is None:
            there, sent = push_forms(archive, folder, registry, publication.forms, publication.sent, clock.lap)
        elif lacking := _lacking(registry, described(registry, there)):
            sent = push_again(archive, folder, registry, lacking, publication.sent, clock.lap)
        outcome = Outcome(described(registry, there), there, sent, seconds=clock.laps)
        made = statements(archive, image.labels, engines()[target.engine], outcome.digests, registry.repository)
        for digest, statement in zip(outcome.digests, made, strict=True):
            attach(registry, registry.read_manifest(digest), statement)
        clock.lap("attach")
    signed = [sign(publication, digest) for digest in outcome.digests]
    clock.lap("sign")
    return replace(outcome, signed=all(signed))


def check_runs(target: Target, library: str | None = None) -> None:
    """Returns where nothing of the target was pruned, or images/gpu_runs.yaml records a run on a GPU of each of its archs (of
    the very `library` in the image, where its sha256 is given). Raises VerificationFailed (`gpu-run-missing`): no reading back
    shows what a pruned library lacks as surely as a run, so an image that no GPU has run is not for publishing."""
    lacking = awaited(target, gpu_runs(), library)
    if not lacking:
        return
    capabilities = ", ".join(str(arch.capability) for arch in lacking)
    what = f"its library {library[:12]}... on" if library else "it on"
    raise VerificationFailed(
        f"{target.id} has pruned libraries, and images/gpu_runs.yaml records no run of {what} a GPU of {capabilities}",
        f"On such a GPU: sdrun selftest --image sdrun:{target.tag} --gpu auto --record-run {target.name}.json "
        "--cublas VERSION; then put the row that it prints into images/gpu_runs.yaml, and the file into bench/results.",
        id="gpu-run-missing",
    )


def sign(publication: Publication, digest: str) -> bool:
    """Has an image or index signed unless this signer has done so before; whether it is signed now."""
    if publication.signer is None:
        return False
    if publication.key is None or not is_signed(publication.registry, digest, publication.key):
        publication.signer.sign(publication.registry.repository, digest)
    return True


def pushed_before(registry: Registry, digest: str) -> Outcome:
    """An image that was pushed by digest, perhaps by another job, as it is in the registry. Raises VerificationFailed where it
    is not there, or no engine image."""
    manifest = registry.read_manifest(digest)
    image = described(registry, manifest)
    try:
        image.row(registry.repository)
    except Malformed as fault:
        raise VerificationFailed(
            f"{registry.repository.at(digest)} is no engine image of sdrun: {fault}",
            "Publish what sdrun publish --by-digest has pushed.",
            id="image-differs",
        ) from None
    return Outcome(image, manifest)


def tag_image(outcome: Outcome, publication: Publication) -> Outcome:
    """Gives the image its tag `<engine>-<target>`, and its gzip form the same with `-gzip` behind it. Raises VerificationFailed
    (`tag-taken`) for a tag of another image."""
    registry = publication.registry
    manifest, tagged = set_tag(registry, outcome.image.tag, outcome.manifest)
    for digest in outcome.digests[1:]:
        set_tag(registry, gzip_tag_of(outcome.image.tag), registry.read_manifest(digest))
    if manifest.digest == outcome.manifest.digest:
        return replace(outcome, tagged=tagged)
    return replace(outcome, image=described(registry, manifest), manifest=manifest, tagged=tagged)


def recipe_of(target: Target, say: Say) -> str:
    """The digest of everything that decides what an image of the target holds; the engine's source is fetched for it."""
    engine, base = engines()[target.engine], targets().bases[target.base]
    return Recipe(target, engine, base, render(target, engine, base), fetch(engine, cache_root(), say)).digest


def published_already(registry: Registry, tag: str, recipe: str) -> Outcome | None:
    """The image under the tag, if it was made by the same recipe and is there whole; None else, or where there is none."""
    manifest = registry.find_manifest(tag)
    if manifest is None or manifest.is_index:
        return None
    image = described(registry, manifest)
    if image.annotations.get(RECIPE) != recipe or _lacking(registry, image):
        return None
    return Outcome(image, manifest)


def _lacking(registry: Registry, image: Published) -> str:
    """The digest of the image's gzip form where it names one that is gone from the registry, or was not copied along; else
    empty."""
    other = image.annotations.get(GZIP, "")
    return other if other and registry.digest_of(other) is None else ""


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """The step that ends now."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def _swept(folder: Path) -> Path:
    """The folder, made if need be, without what publishers and proofs that were killed have left in it: whole images."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob(f"{_PREFIX}*"), *folder.glob("proof-*")]:
        with suppress(OSError):  # another publisher may be sweeping, too
            if time.time() - old.stat().st_mtime > _LEFT_OVER_S:
                shutil.rmtree(old)
    return folder
