"""A full disk, told as one wherever it is met while something is fetched or built."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdrun.errors import NotEnoughMemory

NEEDED_MIB = 600  # the packed sources, their unpacked copy and the archive they came in; measured 520 for the pinned engine


def disk_full(folder: Path) -> NotEnoughMemory:
    """The error for `folder`, which lies on the full disk."""
    free = shutil.disk_usage(folder).free // 2**20
    return NotEnoughMemory(
        f"the disk is too full for {folder} ({free} MiB free)",
        f"Free {NEEDED_MIB} MiB there, or set SDRUN_CACHE_DIR to a folder on another disk.",
        id="disk-full",
    )


def says_disk_full(text: str) -> bool:
    """True if a program's own words say that it met a full disk or quota."""
    return any(words in text.lower() for words in ("no space left on device", "disk quota exceeded", "errno 28"))


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError for a full disk or an exhausted quota into `disk_full(folder)`."""
    try:
        yield
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(folder) from None
