"""Where published images come from: a registry and its mirrors, and the signatures that are demanded of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sdrun.core.host import RuntimeFacts
from sdrun.core.index import Index, IndexImage
from sdrun.core.reference import Reference, is_digest
from sdrun.errors import BadConfiguration, RuntimeUnavailable, SdrunError, UsageProblem, VerificationFailed
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

if TYPE_CHECKING:
    from sdrun.catalog.config import Settings
    from sdrun.core.signing import SignaturePolicy
    from sdrun.registry.published import Found

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """`references`: the registry, then its mirrors, none where no registry is named; `policy`: None where signatures are not
    asked for."""

    references: tuple[Reference, ...] = ()
    policy: SignaturePolicy | None = None

    def found(self, say: Say) -> Found:
        """The published index: one request to the registry. Raises what `find_index` does."""
        from sdrun.registry.published import find_index
        from sdrun.resources import cache_root

        return find_index(self.references, cache_root(), say)

    def index(self, say: Say) -> Index:
        """What the resolver sees of it."""
        return self.found(say).index


def sources_of(settings: Settings) -> Sources:
    """What the settings name. Raises BadConfiguration (`bad-config`) where they name something that is no reference."""
    references = []
    for name, text in [("registry", settings.registry), *(("mirrors", text) for text in settings.mirrors)]:
        if text is None:
            continue
        try:
            reference = Reference.parse(text)
        except ValueError as fault:
            raise BadConfiguration(
                f"{name}: {fault}", "Write it as docker does: registry.example/team/sdrun.", id="bad-config"
            ) from None
        references.append(reference)
    if references:  # a mirror that names no tag has the registry's
        first = references[0]
        references = [reference if reference.tag else replace(reference, tag=first.tag) for reference in references]
    return Sources(tuple(references) if settings.registry else (), settings.verify)


def sources_at(settings: Settings, registry: str | None) -> Sources:
    """The registry that the command line names, alone, with the signatures that the settings demand; what the settings name
    where it names none. Raises UsageProblem (`bad-reference`) for a name that is no reference."""
    if registry is None:
        return sources_of(settings)
    try:
        return Sources((Reference.parse(registry),), settings.verify)
    except ValueError as fault:
        raise UsageProblem(
            f"--registry {fault}", "Write it as docker does: registry.example/team/sdrun.", id="bad-reference"
        ) from None


def trusted(sources: Sources, image: str, say: Say) -> None:
    """Returns where the image `name@sha256:...` has the signature that is demanded, at the registry it is named in or at
    another of the sources. Raises VerificationFailed (`image-unsigned`, `signature-refused`, ...)."""
    if sources.policy is None:
        return
    from sdrun.registry.client import Registry
    from sdrun.registry.published import QUICK
    from sdrun.registry.signatures import check_signature
    from sdrun.resources import cache_root

    failures: list[SdrunError] = []
    for reference in _everywhere(sources, image):
        registry = Registry(reference.repository, replace(QUICK, say=say))
        try:
            check_signature(registry, reference.digest or "", sources.policy, cache_root())
            return
        except VerificationFailed as fault:
            failures.append(fault)
        finally:
            registry.close()
    raise max(failures, key=lambda fault: fault.id == "signature-refused")  # the others may only not have it


def _everywhere(sources: Sources, image: str) -> Iterator[Reference]:
    """The image by digest, where it is named and at every other source."""
    named = Reference.parse(image)
    yield named
    for reference in sources.references:
        if reference.repository != named.repository:
            yield Reference(reference.repository, digest=named.digest)


def local_copy(runtime: ContainerRuntime, sources: Sources, image: str) -> LocalImage | None:
    """The image if it is here, from whichever source it was pulled."""
    found = runtime.image(image)
    if found is not None or not is_digest(image.rpartition("@")[2]) or "@" not in image:
        return found
    others = (runtime.image(str(reference)) for reference in _everywhere(sources, image))
    return next((other for other in others if other is not None), None)


def pulled(runtime: ContainerRuntime, sources: Sources, image: str, progress: Progress | None, say: Say) -> LocalImage:
    """Pulls the image by its digest, which the runtime checks, from where it is named or else from the next source that has
    it. Raises VerificationFailed (`download-failed`) of the first."""
    failures: list[SdrunError] = []
    for reference in _everywhere(sources, image):
        say(f"pulling {reference}")
        try:
            return runtime.pull(str(reference), progress)
        except VerificationFailed as fault:
            failures.append(fault)
            say(f"{reference.repository}: {fault.message}")
    raise failures[0]


def check_layers(row: IndexImage | None, runtime: RuntimeFacts | None) -> None:
    """Raises RuntimeUnavailable (`layers-unreadable`) before a pull that cannot end well: the image's layers are packed with
    zstd, nobody has published it with gzip layers, and this runtime is known to read gzip alone."""
    if row is None or row.layers != "zstd" or runtime is None:
        return
    from sdrun.catalog.runtimes import zstd_layers_from
    from sdrun.core.layers import reads_zstd

    first = zstd_layers_from()
    if reads_zstd(runtime, first) is False:
        version = ".".join(map(str, first[runtime.name]))
        raise RuntimeUnavailable(
            f"{runtime.name} {runtime.version} cannot read the layers of {row.image}, which are packed with zstd, and no other "
            "form of it is published",
            f"Install {runtime.name} {version} or newer; or build the image here (sdrun build {row.target}), and name what it "
            "prints with --image.",
            id="layers-unreadable",
        )


def as_announced(image: LocalImage, row: IndexImage) -> None:
    """An image must say of itself what the index said of it, by which it was chosen. Raises VerificationFailed
    (`image-differs`)."""
    from sdrun.core.decode import Malformed
    from sdrun.core.labels import index_image_from_labels

    try:
        own = index_image_from_labels(image.labels, row.image, image.platform, row.size_bytes)
    except Malformed as fault:
        raise _differs(row, str(fault)) from None
    for name in ("target", "platform", "toolkit", "sass", "ptx", "fatbin_compression"):
        if getattr(own, name) != getattr(row, name):
            raise _differs(row, f"{name} is {_text(getattr(own, name))}, and the index says {_text(getattr(row, name))}")


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _differs(row: IndexImage, why: str) -> VerificationFailed:
    return VerificationFailed(
        f"{row.image} is not what the index says of it: {why}",
        "Do not run it: the index was altered. Have it written again from the images: sdrun publish --index-only",
        id="image-differs",
    )
