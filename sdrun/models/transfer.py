"""One file from a hub into the store, through any number of broken connections.

What arrives is appended to `partial/<what it will be>` and stays there when the connection, the process or the machine goes
away; the next attempt asks for the rest. When the size is reached the whole file is read back from the disk and hashed, also
what an earlier run had fetched, and only a file with the expected sha256 moves into blobs/.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdrun.core.model import HubFile
from sdrun.errors import NotEnoughMemory, VerificationFailed
from sdrun.models.blobs import Blobs, digest_of
from sdrun.models.hub import Answer, Hub, Later
from sdrun.models.meter import Meter

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to wait. `attempts` in a row without one new byte are the end; waits double from `first` to `most`
    seconds; a server may ask for up to `longest`."""

    attempts: int = 6
    first: float = 1.0
    most: float = 16.0
    longest: float = 300.0

    def seconds(self, failures: int, asked: float | None) -> float:
        """How long to wait after so many attempts in a row that brought nothing."""
        usual = min(self.most, self.first * 2.0 ** max(failures - 1, 0))
        return usual if asked is None else min(max(asked, 0.0), self.longest)


@dataclass(frozen=True, slots=True)
class Job:
    """One file to have. `source` names a commit where the hub told one; `sha256` is None where neither the catalogue nor the
    hub knows it; `pinned` whether it is the catalogue's or the lock file's word, not only the hub's of today."""

    name: str
    source: HubFile
    size: int
    sha256: str | None
    etag: str | None
    pinned: bool

    @property
    def key(self) -> str:
        """What the partial file is called: the same content has the same name, wherever it comes from, and a file that changed
        on the hub is not continued with the other's bytes."""
        if self.sha256 is not None:
            return self.sha256
        return "by-etag-" + hashlib.sha256(f"{self.source}\n{self.size}\n{self.etag}".encode()).hexdigest()


class Stopped(Exception):
    """The user, or the failure of another file, ended it."""


class Transfer:
    """Fetches files into one store. `wait` takes seconds and a `stop` event ends it; both are the caller's."""

    def __init__(
        self,
        root: Path,
        hub: Hub,
        say: Say,
        stop: threading.Event,
        patience: Patience | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._root = root
        self._blobs = Blobs(root)
        self._hub = hub
        self._say = say
        self._stop = stop
        self.patience = patience or Patience()
        self._wait = wait or stop.wait

    def partial(self, job: Job) -> Path:
        """Where the bytes are kept until they are whole."""
        return self._root / "partial" / job.key

    def fetch(self, job: Job, meter: Meter) -> str:
        """The sha256 of the file, which is in blobs/ then. Of several processes that want it one fetches and the others wait.
        Raises VerificationFailed (`hash-mismatch`, `download-failed`, ...), NotEnoughMemory (`disk-full`), Stopped."""
        with self._alone(job):
            if job.sha256 is not None and self._blobs.state(job.sha256, job.size) == "whole":
                meter.begin(job.name, job.size, job.size)
                return job.sha256
            return self._whole(job, meter)

    @contextmanager
    def _alone(self, job: Job) -> Iterator[None]:
        """Holds the file's lock, which the system takes from a process that dies."""
        from filelock import FileLock, Timeout

        for folder in ("locks", "partial"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._root / "locks" / f"{job.key}.lock")
        told = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0.5)
            except Timeout:
                self._check_stop()
                if not told:
                    self._say(f"another sdrun is fetching {job.name}; waiting for it")
                told = True
        try:
            yield
        finally:
            lock.release()

    def _whole(self, job: Job, meter: Meter) -> str:
        partial = self.partial(job)
        earlier = self._have(job)
        if earlier:
            self._say(f"{job.name}: going on after {earlier} of {job.size} bytes")
        while True:
            meter.begin(job.name, self._have(job), job.size)
            self._bytes(job, meter)
            digest = self._digest(job, meter)
            if job.sha256 in (None, digest):
                self._blobs.adopt(partial, digest)
                return digest
            partial.unlink()
            if not earlier:
                raise _mismatch(job, digest)
            self._say(f"{job.name}: with what an earlier run had fetched it is not the right file; fetching all of it again")
            earlier = 0

    def _have(self, job: Job) -> int:
        """Bytes that are there. More than the file has cannot be of this file."""
        path = self.partial(job)
        size = path.stat().st_size if path.exists() else 0
        if size > job.size:
            path.unlink()
            return 0
        return size

    def _bytes(self, job: Job, meter: Meter) -> None:
        """Asks again until the size is reached."""
        failures = 0
        while (have := self._have(job)) < job.size:
            self._check_stop()
            try:
                with self._hub.open(job.source, have) as answer:
                    self._append(job, answer, meter)
                fault = Later("the connection ended too soon")
            except Later as broken:
                fault = broken
            if self._have(job) == job.size:
                return
            failures = failures + 1 if self._have(job) <= have else 0
            if failures >= self.patience.attempts:
                raise VerificationFailed(
                    f"{job.name} could not be fetched: {fault}",
                    "Check the network, the proxy and HF_ENDPOINT, then run again: it goes on where it stopped.",
                    id="download-failed",
                )
            self._wait(self.patience.seconds(failures, fault.seconds))

    def _append(self, job: Job, answer: Answer, meter: Meter) -> None:
        if answer.size not in (None, job.size):
            raise Later(f"the server speaks of {answer.size} bytes instead of {job.size}")
        have = self._have(job)
        if answer.start not in (0, have):
            raise Later(f"the server sends from byte {answer.start} on instead of {have}")
        # Unbuffered: what was received is in the file even if this process is killed the next moment.
        with self.partial(job).open("r+b" if have else "wb", buffering=0) as out, self._disk_errors(job):
            if answer.start != have:  # this server knows no ranges
                out.truncate(0)
                meter.advance(job.name, -have)
            place = out.seek(answer.start)
            for piece in answer.pieces:
                self._check_stop()
                if place + len(piece) > job.size:
                    raise Later(f"the server sent more than the {job.size} bytes of the file")
                view = memoryview(piece)
                while view:
                    written = out.write(view)
                    view = view[written:]
                    place += written
                    meter.advance(job.name, written)

    def _digest(self, job: Job, meter: Meter) -> str:
        done = 0

        def read(count: int) -> None:
            nonlocal done
            done += count
            self._check_stop()
            meter.checking(job.name, done, job.size)

        return digest_of(self.partial(job), read)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _disk_errors(self, job: Job) -> _DiskErrors:
        return _DiskErrors(self._root, f"{job.name} ({job.size} bytes)")


class _DiskErrors:
    """Turns a full disk into the error that says so; what arrived is kept."""

    def __init__(self, root: Path, what: str) -> None:
        self._root = root
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughMemory(
                f"no space left for {self._what} in {self._root}",
                "Free some space there and run again: it goes on where it stopped. SDRUN_MODELS_DIR names another place.",
                id="disk-full",
            ) from None


def _mismatch(job: Job, digest: str) -> VerificationFailed:
    word = "that is pinned" if job.pinned else "that the hub announced"
    return VerificationFailed(
        f"{job.source} came with sha256 {digest[:16]}... instead of {(job.sha256 or '')[:16]}..., {word}; nothing was kept",
        "Do not use it. A mirror or proxy may have changed it (HF_ENDPOINT, HTTPS_PROXY), or its owner replaced it.",
        id="hash-mismatch",
    )
