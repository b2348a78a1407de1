"""Who may change a store while others use it; the system takes a lock from a process that dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdrun.errors import UsageProblem


@contextmanager
def store_lock(root: Path) -> Iterator[None]:
    """Held while names or pins change; never while something is fetched."""
    from filelock import FileLock

    (root / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(root / "locks" / "store.lock"):
        yield


@contextmanager
def filling(root: Path) -> Iterator[None]:
    """Held by every pull, several at once, until its files have a model that refers to them."""
    with _fill_lock(root, fcntl.LOCK_SH):
        yield


@contextmanager
def nobody_filling(root: Path) -> Iterator[None]:
    """Held while files go that no model refers to. Raises UsageProblem (`store-in-use`) while something is pulled: those files,
    and what there is of it, are such."""
    try:
        with _fill_lock(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError:
        raise UsageProblem(
            f"another sdrun is fetching a model into {root}, whose files no model refers to yet",
            "Run again when it has ended.",
            id="store-in-use",
        ) from None


@contextmanager
def _fill_lock(root: Path, how: int) -> Iterator[None]:
    (root / "locks").mkdir(parents=True, exist_ok=True)
    with (root / "locks" / "filling.lock").open("ab") as held:
        fcntl.flock(held, how)
        yield
