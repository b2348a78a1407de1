"""Where a container keeps the machine code that the driver compiles of PTX (CUDA's compute cache), said once for runs on this
machine and for manifests.

The driver keys what it keeps by the code, the GPU's architecture and its own version, and drops the code of another driver
(CUDA programming guide, just-in-time compilation); sdrun keys the folder besides, so that no image runs what another one left.
"""

from __future__ import annotations

from collections.abc import Mapping

FOLDER = "/jit"  # in the container
# CUDA's own default for servers and desktops, said aloud so that what a volume must hold is known. An engine leaves some 40 MB
# (H100, its 130 PTX entries, three kinds of weights); the driver drops its oldest entries at this size.
MAX_BYTES = 1 << 30
FORBIDDEN: Mapping[str, str] = {"CUDA_DISABLE_PTX_JIT": "1"}  # PTX that would be compiled is error 223 then, wherever it is


def environment(max_bytes: int = MAX_BYTES) -> dict[str, str]:
    """The variables by which the driver keeps what it compiles in FOLDER, at most that many bytes of it."""
    return {"CUDA_CACHE_DISABLE": "0", "CUDA_CACHE_PATH": FOLDER, "CUDA_CACHE_MAXSIZE": str(max_bytes)}
