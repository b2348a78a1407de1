"""The engine's whole output, kept in the state folder so that a failure can be looked at later. The last 20 are kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

from sdrun.errors import Interrupted, SdrunError, UsageProblem
from sdrun.resources import cache_root, own_folder

KEPT = 20


def state_folder() -> Path:
    """SDRUN_STATE_DIR, else the XDG state folder; for a user without a home folder one in the cache."""
    try:
        return own_folder("SDRUN_STATE_DIR", "user_state_path")
    except UsageProblem:
        return cache_root() / "state"


class RunLog:
    """One run's log. A state folder that cannot be written, or a full disk, costs the log and not the run: `path` is None
    then. `limit`: bytes after which what is there becomes `...-older.log` and a new file is begun, so that at most twice as
    many are kept of a run that has no end."""

    def __init__(self, folder: Path, name: str, limit: int | None = None) -> None:
        self.path: Path | None = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{name}.log"
        self._file: BinaryIO | None = None
        self._limit = limit
        self._size = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)
        except OSError:
            self.path = None

    def write(self, data: bytes) -> None:
        """Appends the bytes as they came."""
        if self._file is None:
            return
        try:
            self._file.write(data)
            self._size += len(data)
            if self._limit is not None and self._size > self._limit and self.path is not None:
                self._file.close()
                self.path.rename(self.path.with_name(f"{self.path.stem}-older.log"))
                self._file, self._size = self.path.open("xb", buffering=0), 0
        except OSError:
            self._file.close()
            self._file = self.path = None

    def close(self) -> None:
        """Ends the log and forgets the oldest ones."""
        if self._file is not None and self.path is not None:
            self._file.close()
            forget_old(self.path.parent)


def forget_old(folder: Path) -> None:
    """Removes all but the newest 20 logs; another run may be doing the same."""
    for old in sorted(folder.glob("*.log"))[:-KEPT]:
        old.unlink(missing_ok=True)


def point_to(error: SdrunError, log: Path | None) -> None:
    """Says below the error where the whole log is, if there is one."""
    if log is not None and not isinstance(error, Interrupted) and log.exists() and log.stat().st_size:
        error.detail = "\n".join([*([error.detail.rstrip("\n")] if error.detail else []), f"whole log: {log}"])
