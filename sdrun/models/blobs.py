"""Files by their content: `blobs/sha256-<digest>`, each one whole and checked, each one kept once.

A file comes in under its own sha256 or not at all, so an encoder that four models use is one file, and two versions of sdrun
with different pins cannot spoil each other's. Hashing gigabytes at every start would cost seconds; instead the size and the
time of the last change are noted beside a file when it has been hashed, and it is hashed again when either is different.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

State = Literal["whole", "missing", "damaged"]
_PIECE = 1 << 20  # bytes read at a time while hashing: memory stays at this whatever the size of the file


def digest_of(path: Path, advance: Callable[[int], None] = lambda count: None) -> str:
    """The sha256 of a file's bytes, read piece by piece; `advance` is told the size of each."""
    hasher = hashlib.sha256()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            hasher.update(view[:count])
            advance(count)
    return hasher.hexdigest()


class Blobs:
    """The checked files of one store."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"

    def path(self, sha256: str) -> Path:
        """Where the file with this content is, or would be."""
        return self.folder / f"sha256-{sha256}"

    def present(self) -> list[str]:
        """The digests of all files."""
        names = (path.name for path in self.folder.glob("sha256-*")) if self.folder.is_dir() else ()
        return sorted(name.removeprefix("sha256-") for name in names if "." not in name)

    def state(self, sha256: str, size: int | None = None) -> State:
        """Whether the file can be used. It is read only if it changed since it was last hashed; `size` in bytes, where it is
        known, spares even that for a file that was cut."""
        try:
            seen = self.path(sha256).stat()
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        if size is not None and seen.st_size != size:
            return "damaged"
        return "whole" if self._stamp(sha256) == _stamp(seen) else self.verify(sha256)

    def verify(self, sha256: str, advance: Callable[[int], None] = lambda count: None) -> State:
        """Reads the whole file and notes that it is sound, or says what is wrong."""
        path = self.path(sha256)
        try:
            before = path.stat()
            if digest_of(path, advance) != sha256:
                return "damaged"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        self._note(sha256, before)
        return "whole"

    def adopt(self, file: Path, sha256: str) -> Path:
        """Moves a file of the same file system, whose sha256 the caller has just checked, in; it is no longer writable."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        file.chmod(0o444)  # the container reads as the caller; several models share it, so nobody writes
        path = self.path(sha256)
        file.replace(path)
        self._note(sha256, path.stat())
        return path

    def link(self, file: Path, sha256: str) -> bool:
        """Takes in a file of the user's own, whose sha256 the caller has just checked: as a hard link, which costs no room, or
        as a copy where the file systems differ. True for a link."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(sha256)
        path.unlink(missing_ok=True)
        try:
            path.hardlink_to(file.resolve())
        except OSError as fault:
            if fault.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            self._copy(file, sha256)
            return False
        self._note(sha256, path.stat())
        return True

    def _copy(self, file: Path, sha256: str) -> None:
        temporary = self.folder / f".copy-{os.getpid()}-{sha256}"
        try:
            shutil.copyfile(file, temporary)
            if digest_of(temporary) != sha256:  # what is kept is what is checked
                raise OSError(errno.EIO, f"{file} changed while it was copied")
            self.adopt(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self, sha256: str) -> int:
        """Removes a file; the bytes that frees, 0 where it was not there or has another name elsewhere."""
        path = self.path(sha256)
        try:
            seen = path.stat()
            path.unlink()
        except FileNotFoundError:
            return 0
        self._stamp_path(sha256).unlink(missing_ok=True)
        return seen.st_size if seen.st_nlink == 1 else 0

    def _stamp_path(self, sha256: str) -> Path:
        return self.folder / f"sha256-{sha256}.checked"

    def _stamp(self, sha256: str) -> str | None:
        try:
            return self._stamp_path(sha256).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None

    def _note(self, sha256: str, seen: os.stat_result) -> None:
        from sdrun.models.gguf import write_atomically

        try:
            write_atomically(self._stamp_path(sha256), _stamp(seen).encode("ascii"))
        except PermissionError:
            pass  # a store that others fill may be read-only to us: then the file is hashed each time
        except OSError as fault:
            if fault.errno != errno.EROFS:
                raise


def _stamp(seen: os.stat_result) -> str:
    return f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ino}\n"
