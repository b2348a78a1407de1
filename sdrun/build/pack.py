"""A folder as one tar file that depends on nothing but the folder's content: names, bytes, execute bits and links."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from sdrun.errors import BadConfiguration

_SKIPPED = frozenset({".git", ".hg", ".svn", "__pycache__"})  # a build must not depend on them, and .git may hold credentials


def pack(folder: Path, destination: Path) -> str:
    """Writes `folder`'s content to the tar file `destination`; returns the sha256 of that file. Owners, times and the order the
    file system lists names in do not matter. Raises BadConfiguration for a device, socket or pipe inside."""
    with tarfile.open(destination, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in _walk(folder):
            member = _member(folder, path)
            if member.isreg():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    with destination.open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in _SKIPPED:
            continue
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _member(folder: Path, path: Path) -> tarfile.TarInfo:
    status = path.lstat()
    member = tarfile.TarInfo(path.relative_to(folder).as_posix())
    if stat.S_ISDIR(status.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        member.mode, member.size = (0o755 if status.st_mode & stat.S_IXUSR else 0o644), status.st_size
    else:
        raise BadConfiguration(f"{path} is neither file, folder nor link", "Remove it from the engine's sources.")
    return member
