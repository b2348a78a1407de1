"""Which pruned library is in an image: what a recorded run on a GPU stands for."""

from __future__ import annotations

import hashlib
import posixpath
import tempfile
from pathlib import Path

from sdrun.build.disk import disk_errors
from sdrun.build.readback import save_image
from sdrun.build.rootfs import open_rootfs
from sdrun.core.target import PRUNED_LIBRARY
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

_PIECE = 1 << 20


def pruned_library_of(image: LocalImage, runtime: ContainerRuntime) -> str:
    """sha256 of the pruned library in an image of the local runtime, empty where none is in it. Raises VerificationFailed
    (`image-differs`) for what is no image, RuntimeUnavailable, and NotEnoughMemory (`disk-full`)."""
    with tempfile.TemporaryDirectory(prefix="sdrun-") as folder, disk_errors(Path(folder)):
        archive = Path(folder) / "image.tar"
        save_image(image, archive, runtime)
        with open_rootfs(archive) as rootfs:
            for path, _ in rootfs.files():
                if posixpath.basename(path).startswith(PRUNED_LIBRARY):
                    with rootfs.open(path) as file:
                        digest = hashlib.sha256()
                        while data := file.read(_PIECE):
                            digest.update(data)
                        return digest.hexdigest()
    return ""
