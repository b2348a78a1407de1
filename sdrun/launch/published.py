"""The index a run chooses from where no file is named: what the local runtime holds and its labels say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdrun.core.decode import Malformed
from sdrun.core.index import Index, IndexImage
from sdrun.core.labels import TARGET, index_image_from_labels

if TYPE_CHECKING:
    from sdrun.runtime.protocol import ContainerRuntime, LocalImage


def index_of_local_images(runtime: ContainerRuntime) -> tuple[Index, tuple[str, ...]]:
    """The images in `runtime`'s own store that carry sdrun's labels, each by its content id, and a note for each image whose
    labels are not what sdrun writes (it is no candidate)."""
    images, notes = rows(runtime.images(TARGET))
    return Index("local", images), notes


def rows(found: Sequence[LocalImage]) -> tuple[tuple[IndexImage, ...], tuple[str, ...]]:
    """Index rows of local images and the notes about those left out. Untagged images are left out without a word: they are
    what a rebuild replaced."""
    images: list[IndexImage] = []
    notes: list[str] = []
    for image in found:
        if not image.tags and not image.digests:
            continue
        try:
            images.append(index_image_from_labels(image.labels, image.id, image.platform))
        except Malformed as fault:
            notes.append(f"{(image.tags or image.digests)[0]} is no candidate: its label {fault.key} {fault.reason}")
    return tuple(images), tuple(notes)
