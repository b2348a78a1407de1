"""The proof of a build on an image that is already in the runtime's store, by what its own labels promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sdrun.build.image import Exercise
from sdrun.build.proof import Proof
from sdrun.build.readback import prove_image
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.core.decode import Malformed
from sdrun.core.engine import Engine
from sdrun.core.labels import ENGINE, target_from_labels
from sdrun.core.target import Target
from sdrun.errors import RuntimeUnavailable, VerificationFailed
from sdrun.runtime.protocol import ContainerRuntime


def verify(reference: str, runtime: ContainerRuntime, exercise: Exercise | None = None) -> tuple[Target, Proof]:
    """What the image promises and what was read back, and drawn where `exercise` is given. Raises what that raises, and
    VerificationFailed (`image-differs`) where they differ, where the labels are not sdrun's, or where they promise something
    else than the catalogue's row of that name; RuntimeUnavailable (`image-missing`) where there is no such image."""
    image = runtime.image(reference)
    if image is None:
        raise RuntimeUnavailable(
            f"the local {runtime.name} has no image {reference}",
            f"Build it (sdrun build), or pull it first: {runtime.name} pull {reference}",
            id="image-missing",
        )
    try:
        target = target_from_labels(image.labels)
    except Malformed as fault:
        raise VerificationFailed(
            f"{reference} does not say what it holds: {fault}",
            "Verify an image that sdrun built; of any other, look at the code with sdrun inspect.",
            id="image-differs",
        ) from None
    _compare_with_row(reference, target)
    proof = prove_image(image, target, _engine(image.labels), image.labels, runtime)
    return target, proof if exercise is None else replace(proof, selftest=exercise(image, runtime))


def _compare_with_row(reference: str, target: Target) -> None:
    for row in targets().rows:
        if (row.engine, row.id, row.platform) == (target.engine, target.id, target.platform):
            promised = (row.sass, row.ptx, row.fatbin_compression, row.min_driver, row.pruned)
            if promised != (target.sass, target.ptx, target.fatbin_compression, target.min_driver, target.pruned):
                raise VerificationFailed(
                    f"{reference} promises something else than the row of {target.id} in images/targets.yaml",
                    f"Build it again: sdrun build {target.id}",
                    id="image-differs",
                )


def _engine(labels: Mapping[str, str]) -> Engine:
    """The row of the image's engine; for a local engine any, since the names of the programs are all that is asked of it."""
    known = engines()
    return known.get(labels.get(ENGINE, "")) or next(iter(known.values()))
