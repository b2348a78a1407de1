"""The picture on its way to the user: written by the engine into a private folder beside its place, checked there, moved whole.

The folder lies on the same file system as the destination, so the move is one rename: a picture is there whole or not at all,
and nobody sees it grow. With several pictures each is moved by itself, after all of them were found good.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sdrun.errors import EngineFailed, NotEnoughMemory, SdrunError, UsageProblem

DEFAULT_NAME = "output.png"
SUFFIXES = (".png", ".jpg", ".jpeg")
_PATTERN = re.compile(r"%[0-9]*d")  # the engine would take it for a numbered sequence
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Destination:
    """`folder` exists or will be made; `names` are the final ones, in order: `fox.png`, or `fox_1.png`, `fox_2.png` for two.
    `replaces`: the user named it, so what is there gives way; else the names are free ones that sdrun chose."""

    folder: Path
    names: tuple[str, ...]
    replaces: bool = True

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the pictures will be."""
        return tuple(self.folder / name for name in self.names)

    @property
    def suffix(self) -> str:
        """The kind of picture: `.png`, `.jpg`."""
        return Path(self.names[0]).suffix.lower()

    @property
    def engine_name(self) -> str:
        """The file name the engine is told when it writes into the private folder."""
        return f"image{self.suffix}" if len(self.names) == 1 else f"image_%d{self.suffix}"

    @property
    def written(self) -> tuple[str, ...]:
        """The names the engine then writes."""
        if len(self.names) == 1:
            return (self.engine_name,)
        return tuple(f"image_{number}{self.suffix}" for number in range(1, len(self.names) + 1))

    @property
    def direct_name(self) -> str:
        """The file name for an engine that writes straight into `folder` (a printed command): it numbers as `names` does."""
        stem = Path(self.names[0]).stem
        return self.names[0] if len(self.names) == 1 else f"{stem.removesuffix('_1')}_%d{Path(self.names[0]).suffix}"


def destination(output: Path | None, batch: int, cwd: Path) -> Destination:
    """Where the pictures go, checked. Without `output` it is output.png here, or output-2.png where that exists, and so on;
    what the user names is replaced. A folder gets the default name. Raises UsageProblem (`output-not-writable`,
    `bad-option`)."""
    if output is None:
        found = _free(cwd, batch)
    else:
        with suppress(RuntimeError):  # there is no such user: it is a name like any other
            output = output.expanduser()
        output = output if output.is_absolute() else cwd / output
        if "\0" in str(output):
            raise UsageProblem("the output's name holds a zero byte", "Name another file.")
        found = _named(output, batch)
    with disk_errors(found.folder):
        _check_writable(found)
    return found


def _named(output: Path, batch: int) -> Destination:
    try:
        is_folder = output.is_dir()
    except OSError as fault:  # a name that is too long, a folder that may not be looked into
        raise _not_writable(f"{output} cannot be written: {fault.strerror}") from None
    if is_folder:
        return _free(output, batch)
    _check_name(output.name)
    return Destination(output.parent, _numbered(output.name, batch))


def _numbered(name: str, batch: int) -> tuple[str, ...]:
    if batch == 1:
        return (name,)
    path = Path(name)
    return tuple(f"{path.stem}_{number}{path.suffix}" for number in range(1, batch + 1))


def _free(folder: Path, batch: int) -> Destination:
    stem, suffix = DEFAULT_NAME.split(".")
    number = 1
    while True:
        name = f"{stem}.{suffix}" if number == 1 else f"{stem}-{number}.{suffix}"
        found = Destination(folder, _numbered(name, batch), replaces=False)
        if not any(path.exists() for path in found.paths):
            return found
        number += 1


def _check_name(name: str) -> None:
    if Path(name).suffix.lower() not in SUFFIXES:
        raise UsageProblem(
            f"the output {name!r} ends in none of {', '.join(SUFFIXES)}", f"Name it {Path(name).stem or 'output'}.png."
        )
    if _PATTERN.search(name):
        raise UsageProblem(
            f"the output {name!r} holds a number pattern",
            "Name one file; with --batch the pictures are numbered by themselves.",
        )


def _check_writable(found: Destination) -> None:
    for path in found.paths:
        if path.exists() and not path.is_file():
            raise _not_writable(f"{path} is {'a folder' if path.is_dir() else 'no ordinary file'}")
    nearest = found.folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise _not_writable(f"{nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _not_writable(f"the folder {nearest} is not writable")


def _not_writable(message: str) -> UsageProblem:
    return UsageProblem(message, "Name another place with --output.", id="output-not-writable")


@contextmanager
def private_folder(found: Destination) -> Iterator[Path]:
    """A folder only the caller can look into, beside the destination; gone at the end, and so is every folder that was made for
    it unless a picture came to lie there."""
    with disk_errors(found.folder):
        made = _make_folders(found.folder)
        try:
            private = Path(tempfile.mkdtemp(prefix=".sdrun-", dir=found.folder)).absolute()
        except OSError:
            _remove_empty(made)
            raise
    try:
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)
        _remove_empty(made)


def _make_folders(folder: Path) -> list[Path]:
    """The folders that had to be made, innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def publish(found: Destination, private: Path, size: tuple[int, int] | None) -> tuple[Path, ...]:
    """Checks every picture (whole, and of that width and height where they are known) and moves it to its place. Raises
    EngineFailed (`output-missing`, `output-incomplete`) or NotEnoughMemory (`disk-full`) and leaves nothing behind."""
    with disk_errors(found.folder):
        for name in found.written:
            _check_picture(private / name, size)
        mask = os.umask(0)
        os.umask(mask)
        for name in found.written:
            (private / name).chmod(0o666 & ~mask)
        while not _moved(found, private):
            found = _free(found.folder, len(found.names))
    return found.paths


def _moved(found: Destination, private: Path) -> bool:
    """Moves the pictures; False where a name that was free has been taken meanwhile by another run."""
    for name, final in zip(found.written, found.paths, strict=True):
        if found.replaces or not _linked(private / name, final):
            if not found.replaces and final.exists():
                return False
            (private / name).replace(final)
    return True


def _linked(source: Path, final: Path) -> bool:
    """True if `final` was made by a hard link, which fails where a rename would replace; False where it is taken, or where the
    file system has no hard links."""
    try:
        os.link(source, final)
    except OSError:
        return False
    return True


def _check_picture(path: Path, size: tuple[int, int] | None) -> None:
    from sdrun.launch.png import BadPicture, size_of

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EngineFailed(
            "the engine ended well but wrote no picture", "Look at its log for why.", id="output-missing"
        ) from None
    try:
        found = size_of(data)
    except BadPicture as fault:
        raise full_disk(path.parent) or EngineFailed(
            f"the engine's picture is not usable: {fault}", "Run it again; if it stays, report the log.", id="output-incomplete"
        ) from None
    if size is not None and found != size:
        raise EngineFailed(
            f"the picture is {found[0]}x{found[1]}, not {size[0]}x{size[1]}",
            "Name another size with --width and --height.",
            id="output-size",
        )


def full_disk(folder: Path) -> SdrunError | None:
    """The error to tell where the file system of `folder` has no room left, else None."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    return _disk_full(folder) if free < 64 * 1024 else None


def _disk_full(folder: Path) -> NotEnoughMemory:
    return NotEnoughMemory(f"no space left in {folder}", "Free some space there, or name another place.", id="disk-full")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns the OSErrors of work in `folder` into NotEnoughMemory (`disk-full`) or UsageProblem (`output-not-writable`)."""
    try:
        yield
    except OSError as fault:
        if fault.errno in _NO_SPACE:
            raise _disk_full(folder) from None
        what = "a name in" if fault.errno == errno.ENAMETOOLONG else "the folder"
        raise _not_writable(f"{what} {folder} is not writable: {fault.strerror or fault}") from None
