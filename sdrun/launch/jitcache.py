"""What the driver compiles of an image's PTX, kept between runs, so that it is waited for once.

    <cache>/jit/<driver>-cc<capabilities>-<the image's sha256>/
        cache/        what the driver writes; /jit in the container
        lock          held by every run that uses it
        record.json   there once a run ended well: which image, which driver, when

A folder of the user's, not a named volume. With Docker (20.10) an empty volume is root's and the container, which has the
caller's id and no privileges, cannot write into it; with Podman (4.3) it is given to whoever comes first, and the next user
cannot. And a volume would be one for all users of a daemon, who would run each other's machine code. A folder has the caller's
id on both sides, works without root, and goes with `rm -r`.

An entry for each digest, so that no image runs what another one left. A cache that cannot be used costs the cache and
not the run.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sdrun.core import jit
from sdrun.core.host import HostFacts
from sdrun.core.plan import Plan
from sdrun.resources import cache_root
from sdrun.runtime.protocol import ContainerSpec, Mount

SCHEMA = "sdrun.jit/v1"
KEPT, KEPT_BYTES = 8, 4 << 30  # entries, and bytes of them all; beyond either the longest unused go
LEAST_FREE = 256 << 20  # with less a cache is not begun: 40 MB were seen of one engine, and the pictures need room as well
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})$")
_ENTRY = re.compile(r"[^/]+-cc[0-9._]+-[0-9a-f]{64}")
_GONE = ".gone-"
_TRIES = 20  # each is lost only where another process removes this very entry at this very moment

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """The place of what is compiled for one image by one driver for one kind of GPU; it may not exist. `about`: for people who
    look into it."""

    folder: Path
    about: Mapping[str, object]

    @property
    def cache(self) -> Path:
        """What the container may write into."""
        return self.folder / "cache"

    @property
    def left(self) -> int:
        """The bytes that earlier runs left, 0 where none has ended well."""
        return _bytes(self.cache) if (self.folder / "record.json").is_file() else 0


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that this run uses, and how large the driver may make it."""

    entry: Entry
    max_bytes: int = jit.MAX_BYTES

    def record(self, say: Say) -> None:
        """To be called when the engine ended well: later runs will find what it left. Says so where it left nothing."""
        size = _bytes(self.entry.cache)
        if size == 0:
            say(f"the driver kept nothing of what it compiled in {self.entry.cache}; the next run compiles it again")
            return
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"schema": SCHEMA, **self.entry.about, "bytes": size, "ended_well": when}
        new = self.entry.folder / f"record-{os.getpid()}.new"
        with suppress(OSError):  # without it the next run tells the estimate again, and finds the code all the same
            try:
                new.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                new.replace(self.entry.folder / "record.json")
            finally:
                new.unlink(missing_ok=True)


def entry_of(plan: Plan, host: HostFacts, image: str, root: Path | None = None) -> Entry | None:
    """Where the plan's compiled code is kept; None where nothing is compiled, or where `image` (an id, a reference) does not
    tell its digest. `root`: the cache folder, the user's own by default."""
    digest = _DIGEST.search(image)
    if plan.code_path != "ptx-jit" or digest is None:
        return None
    kinds = [str(kind) for kind in sorted({device.capability for device in plan.handover.gpus})]
    driver = str(host.driver_version or f"cuda{host.cuda_driver}")
    about = {"image": image, "target": plan.target, "driver": driver, "compute_capabilities": kinds}
    return Entry((root or cache_root()) / "jit" / f"{driver}-cc{'_'.join(kinds)}-{digest[1]}", about)


def notes(plan: Plan, entry: Entry | None) -> tuple[str, ...]:
    """What people are to be told of the plan: what the first run takes longer, or that an earlier one left what it compiled."""
    left = entry.left if entry is not None else 0
    if entry is None or left == 0:
        return plan.handover.notes
    here = (
        f"{plan.target} runs by PTX: what the driver compiled of it in an earlier run is here ({_mb(left)} in {entry.cache}); "
        "only what this run is the first to need is compiled now."
    )
    return tuple(here if note == plan.handover.jit_note else note for note in plan.handover.notes)


def mounted(spec: ContainerSpec, kept: Kept | None) -> ContainerSpec:
    """The container with the cache in it."""
    if kept is None:
        return spec
    mount = Mount(kept.entry.cache, jit.FOLDER, read_only=False)
    return replace(spec, mounts=(*spec.mounts, mount), environment={**spec.environment, **jit.environment(kept.max_bytes)})


@contextmanager
def in_use(entry: Entry | None, say: Say) -> Iterator[Kept | None]:
    """The entry, made if need be and locked against removal until the end; None where there is none to use. Why one cannot be
    used is said, and the run goes on without."""
    held = None
    kept = None
    if entry is not None:
        try:
            held = _hold(entry)
            kept = _usable(entry)
        except OSError as fault:
            say(f"what the driver compiles is not kept, and the next run compiles it again: {_why(fault)}")
    try:
        yield kept
    finally:
        if held is not None:
            os.close(held)


def _why(fault: OSError) -> str:
    return f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault.strerror or fault)


def _hold(entry: Entry) -> int:
    """The entry's lock, shared, with its folder made and the longest unused of the others gone."""
    for tries_left in reversed(range(_TRIES)):
        try:
            entry.folder.parent.mkdir(parents=True, exist_ok=True)
            entry.folder.mkdir(mode=0o700, exist_ok=True)
            held = _locked(entry.folder, fcntl.LOCK_SH)
        except (FileNotFoundError, FileExistsError):  # the latter: it was there to be made, and gone to be looked at
            if tries_left:
                continue
            raise
        if held is None:
            continue
        try:
            entry.cache.mkdir(mode=0o700, exist_ok=True)
            os.utime(held)
            forget_old(entry.folder.parent, entry.folder)
        except BaseException:
            os.close(held)
            raise
        return held
    raise OSError(0, f"{entry.folder} does not stay where it is")


def _locked(folder: Path, how: int) -> int | None:
    """The open lock of an entry; None where the entry was removed, or replaced, while it was waited for."""
    path = folder / "lock"
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, how)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), path.stat()):
                return held
    except BaseException:
        os.close(held)
        raise
    os.close(held)
    return None


def _usable(entry: Entry) -> Kept:
    """How large the cache may get. Raises OSError where the container could not write it: it has the caller's id, and neither
    further groups nor privileges, so that as root it is bound by permissions as well. Nor may it be a link, or in a folder of
    somebody else's, who could make it one: the container would write into whatever it leads to."""
    for folder in (entry.folder, entry.cache):
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o700 != 0o700:
            raise OSError(0, f"{folder} is not yours to write (sudo rm -r {entry.folder})")
    free = shutil.disk_usage(entry.cache).free
    if free >= LEAST_FREE:
        return Kept(entry, min(jit.MAX_BYTES, _bytes(entry.cache) + free // 2))
    if entry.left == 0:
        raise OSError(0, f"{_mb(free)} are free in {entry.cache}, and {_mb(LEAST_FREE)} are wanted")
    return Kept(entry)  # it is full enough to be of use, and a driver that cannot add to it goes on without


def forget_old(root: Path, mine: Path) -> None:
    """Removes the entries of `root` that were longest not used, beyond what is kept. One that is in use stays, and so does what
    is no entry, or not the caller's to remove."""
    for remains in root.glob(f"{_GONE}*"):
        shutil.rmtree(remains, ignore_errors=True)
    entries = [path for path in root.iterdir() if _ENTRY.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
    count = size = 0
    for path in sorted(entries, key=lambda path: (path == mine, _last_used(path)), reverse=True):
        own = _bytes(path)
        if path == mine or (count < KEPT and size + own <= KEPT_BYTES) or not _removed(path):
            count, size = count + 1, size + own


def _last_used(path: Path) -> float:
    for file in (path / "lock", path):
        with suppress(OSError):
            return file.stat().st_mtime
    return 0.0


def _removed(folder: Path) -> bool:
    """Takes the entry away whole, then what is in it; False where it is in use."""
    gone = folder.with_name(f"{_GONE}{os.urandom(6).hex()}")
    try:
        held = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if held is None:
            return False
        try:
            folder.rename(gone)
        finally:
            os.close(held)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _bytes(folder: Path) -> int:
    """Of all files below; those that vanish meanwhile count for nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e6:.2f} MB"
