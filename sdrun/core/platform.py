"""OCI platforms as text: `linux/amd64`."""

from __future__ import annotations

import re

# Debian's multiarch folders below /usr/lib, which Ubuntu has as well.
MULTIARCH = {"linux/amd64": "x86_64-linux-gnu", "linux/arm64": "aarch64-linux-gnu"}
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")


def parse_platform(text: str) -> str:
    """`"linux/amd64"`; `"linux/arm64/v8"` is its other spelling `"linux/arm64"` (v8 is arm64's default variant in the OCI image
    specification). Raises ValueError for anything else."""
    if _PLATFORM.fullmatch(text) is None:
        raise ValueError(f'must be a platform such as "linux/amd64", not {text[:40]!r}')
    return text.removesuffix("/v8") if text.startswith("linux/arm64/") else text
