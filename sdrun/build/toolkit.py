"""A CUDA toolkit that lies in a folder of the build host, as on machines where administrators install it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.version import CudaVersion
from sdrun.errors import UsageProblem

_VERSION = re.compile(r"^#define\s+CUDA_VERSION\s+([0-9]+)$", re.MULTILINE)
# Parts that no build of the engine reads and that weigh gigabytes.
_LEFT_OUT = ("doc", "extras", "nsight*", "libnvvp", "samples", "tools", "compute-sanitizer", "gds*", "compat", "*_static.a")


@dataclass(frozen=True, slots=True)
class LocalToolkit:
    """A toolkit's `root` folder, its release, and `digest`, which names its compilers and headers (not every byte of its
    libraries: reading gigabytes before each build would cost more than it tells)."""

    root: Path
    version: CudaVersion
    digest: str

    def copy_to(self, folder: Path, static: Sequence[str] = ()) -> None:
        """Puts what a build needs of it into `folder`, by hard links where the file system allows; of its static libraries
        those that are named (`cublas`)."""
        kept = {f"lib{name}_static.a" for name in static}
        left_out = shutil.ignore_patterns(*_LEFT_OUT)

        def ignore(place: str, names: list[str]) -> set[str]:
            return left_out(place, names) - kept

        shutil.copytree(self.root, folder, symlinks=True, ignore=ignore, copy_function=_link)


def local_toolkit(folder: Path) -> LocalToolkit:
    """The toolkit in `folder`. Raises UsageProblem (`bad-toolkit`) where there is none."""
    root = folder.expanduser().resolve()
    remedy = "Name the folder that holds bin/nvcc and include/cuda.h, such as /usr/local/cuda-12.4."
    header, compiler = root / "include" / "cuda.h", root / "bin" / "nvcc"
    try:
        text, nvcc = header.read_text(encoding="utf-8", errors="replace"), compiler.read_bytes()
    except OSError as fault:
        raise UsageProblem(
            f"{folder} holds no CUDA toolkit: {fault.filename}: {fault.strerror}", remedy, id="bad-toolkit"
        ) from None
    said = _VERSION.search(text)
    if said is None:
        raise UsageProblem(f"{header} does not say which CUDA it is of", remedy, id="bad-toolkit")
    number = int(said[1])
    names = sorted(f"{path.name} {path.stat().st_size}" for path in (root / "bin").iterdir() if path.is_file())
    content = "\n".join([text, hashlib.sha256(nvcc).hexdigest(), *names])
    return LocalToolkit(root, CudaVersion(number // 1000, number % 1000 // 10), hashlib.sha256(content.encode()).hexdigest())


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another file system, or somebody else's file where links are protected
        shutil.copy2(source, destination)
