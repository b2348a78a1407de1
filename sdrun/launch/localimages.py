"""The engine images that are on this machine, as an index made of their labels."""

from __future__ import annotations

from sdrun.core.decode import Malformed
from sdrun.core.index import Index, IndexImage
from sdrun.core.labels import ENGINE, TARGET, index_image_from_labels
from sdrun.errors import VerificationFailed
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

_TRIAL = "sdrun-trial:"  # a build under way, not proven yet


def index_of_one(image: LocalImage, reference: str) -> Index:
    """The index that holds this image alone. Raises VerificationFailed (`image-differs`) where it is none of sdrun's."""
    try:
        row = index_image_from_labels(image.labels, image.id, image.platform, image.size_bytes)
    except Malformed as fault:
        raise VerificationFailed(
            f"{reference} is no engine image of sdrun: {fault}",
            "Name an image that sdrun built, or leave --image out.",
            id="image-differs",
        ) from None
    return Index(image.labels[ENGINE], (row,), published=False)


def local_index(runtime: ContainerRuntime) -> tuple[Index, tuple[str, ...]]:
    """The index of the engine images in the runtime's own store, and a note for each whose labels cannot be read. An image that
    has lost its name to a newer build of itself, or has not got one yet, is no candidate; of several for one target there is
    the one that `_standing` puts first."""
    rows: dict[tuple[str, str], IndexImage] = {}
    held: dict[tuple[str, str], LocalImage] = {}
    notes: list[str] = []
    engine = "none"
    for image in runtime.images(TARGET):
        if _on_trial(image):
            continue
        try:
            row = index_image_from_labels(image.labels, image.id, image.platform, image.size_bytes)
        except Malformed as fault:
            notes.append(f"passing over {(image.tags or (image.id,))[0]}: {fault}")
            continue
        engine = image.labels[ENGINE] if engine == "none" else engine
        key = (row.target, row.platform)
        if key not in rows or _standing(image) > _standing(held[key]):
            rows[key], held[key] = row, image
    return Index(engine, tuple(rows.values()), published=False), tuple(notes)


def of_target(runtime: ContainerRuntime, target: str) -> LocalImage | None:
    """The image of a target in the runtime's own store, None where there is none: of several the one that `_standing` puts
    first."""
    found = (
        image for image in runtime.images(TARGET) if image.tags and not _on_trial(image) and image.labels[TARGET] == target
    )
    return max(found, key=_standing, default=None)


def _on_trial(image: LocalImage) -> bool:
    """Whether an image has lost its name to a newer build of itself, or has not got one yet."""
    return not image.digests and all(tag.startswith(_TRIAL) for tag in image.tags)


def _standing(image: LocalImage) -> tuple[bool, int]:
    """Of several images of one target the one with the highest is taken: one that has the tag which a build gives to it, then
    one of the catalogue's engines, the newest first, before what was built on purpose to be another (`--engine-source`,
    `--full`, `--pruned`), which is run where it is named."""
    from sdrun.catalog.engines import engines

    name = image.labels.get(ENGINE, "")
    own = f":{name}-{image.labels[TARGET]}"
    row = engines().get(name)
    return any(tag.endswith(own) for tag in image.tags), row.epoch if row else -1
