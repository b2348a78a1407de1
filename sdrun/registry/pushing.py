"""An image into a registry, by digest: layers and configuration first, its manifest last, so that what can be asked for is
whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from sdrun.core.oci import IMAGE_MANIFEST
from sdrun.core.reference import Repository
from sdrun.errors import NotEnoughMemory
from sdrun.registry.archive import Packed
from sdrun.registry.client import Manifest, Registry
from sdrun.registry.upload import upload


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image that is in the registry now; `sent`: bytes of blobs that went over the line for it."""

    manifest: Manifest
    sent: int


def push(
    registry: Registry, image: Packed, mount_from: Repository | None = None, told: Callable[[int], None] = lambda count: None
) -> Pushed:
    """Pushes what the registry lacks; no tag is set. Raises VerificationFailed as the registry's methods do."""
    sent = 0
    for blob in (*image.layers, image.config):
        if upload(registry, blob, mount_from, told) == "sent":
            sent += blob.size
    body = image.manifest
    stored = registry.put_manifest(body, IMAGE_MANIFEST)
    return Pushed(Manifest(stored.digest, IMAGE_MANIFEST, body), sent)


def no_space(fault: OSError, folder: object) -> Exception:
    """A full disk as the error that says so, any other fault as it is."""
    if fault.errno in (28, 122):  # ENOSPC, EDQUOT
        return NotEnoughMemory(
            f"no space left to compress an image in {folder}: {os.strerror(fault.errno)}",
            "Free some space there, or set TMPDIR to a folder on another disk.",
            id="disk-full",
        )
    return fault
