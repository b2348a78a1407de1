"""The engine's sources: fetched once into the user's cache, checked against their pin, packed into one tar file.

Everything a build sees comes out of that tar, so its sha256 names the sources whatever kind they are of. A tar appears in the
cache whole or not at all, and never when the check failed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sdrun.build.disk import disk_errors, disk_full, says_disk_full
from sdrun.build.gitsource import check_out
from sdrun.build.pack import pack
from sdrun.core.engine import Engine, GitSource, PathSource, PypiSource
from sdrun.errors import BadConfiguration, UsageProblem, VerificationFailed

Say = Callable[[str], None]
LOCAL_KEPT = 4
FETCH_SECONDS = 1800  # no download of this size takes longer on a line worth using


@dataclass(frozen=True, slots=True)
class FetchedSource:
    """The packed sources: `tar` in the cache, `digest` its sha256, `fetched` whether this call had to fetch them."""

    tar: Path
    digest: str
    fetched: bool


def fetch(engine: Engine, cache: Path, say: Say) -> FetchedSource:
    """The engine's packed sources. Raises VerificationFailed (`hash-mismatch`, `download-failed`), UsageProblem for a local
    folder that holds no engine, NotEnoughMemory (`disk-full`)."""
    from filelock import FileLock

    source = engine.source
    folder = cache / "sources" / (engine.name if isinstance(source, PathSource) else f"{engine.name}-{_pin(source)[:16]}")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"), disk_errors(folder):
        if isinstance(source, PathSource):
            return _keep_local(_checked_tree(Path(source.path).expanduser(), engine), folder)
        known = _recorded(folder)
        if known is not None:
            return known
        say(f"fetching {source}")
        with tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as name:
            work = Path(name)
            if isinstance(source, PypiSource):
                tree = _unpack(_download(source, work), source, work)
            else:
                tree = check_out(source, work / "tree") / source.subdir
            return _keep(_checked_tree(tree, engine), folder, work)


def _keep_local(tree: Path, folder: Path) -> FetchedSource:
    """A local folder may change at any moment, so each content has a file of its own; the last few stay."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="packing-") as work:
        packed = Path(work) / "engine.tar"
        digest = pack(tree, packed)
        kept = folder / f"{digest}.tar"
        packed.replace(kept)
    for old in sorted(folder.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-LOCAL_KEPT]:
        old.unlink(missing_ok=True)
    return FetchedSource(kept, digest, fetched=True)


def _pin(source: PypiSource | GitSource) -> str:
    """Names what the source pins: another subdir or another submodule is another source."""
    return hashlib.sha256(repr(source).encode()).hexdigest()


def _recorded(folder: Path) -> FetchedSource | None:
    """What an earlier call left. The size is checked, the digest trusted: hashing 170 MB at every build would cost 0.4 s."""
    try:
        record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        tar = folder / "engine.tar"
        if tar.stat().st_size == record["size"]:
            return FetchedSource(tar, str(record["sha256"]), fetched=False)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return None


def _keep(tree: Path, folder: Path, work: Path) -> FetchedSource:
    packed = work / "engine.tar"
    digest = pack(tree, packed)
    size = packed.stat().st_size
    (folder / "source.json").unlink(missing_ok=True)
    packed.replace(folder / "engine.tar")
    record = work / "source.json"
    record.write_text(json.dumps({"sha256": digest, "size": size}), encoding="utf-8")
    record.replace(folder / "source.json")
    return FetchedSource(folder / "engine.tar", digest, fetched=True)


def _checked_tree(tree: Path, engine: Engine) -> Path:
    if (tree / "CMakeLists.txt").is_file():
        return tree
    message = f"{tree} holds no engine: there is no CMakeLists.txt in it"
    if isinstance(engine.source, PathSource):
        raise UsageProblem(message, "Name the folder of stable-diffusion.cpp itself.", id="bad-engine-source")
    raise BadConfiguration(message, f"Correct source.subdir of {engine.name} in engines.yaml.")


def _download(source: PypiSource, work: Path) -> Path:
    """The source distribution, fetched by pip, which refuses a wrong hash before it looks into the archive."""
    requirements = work / "requirements.txt"
    requirements.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    argv = [*_pip(), "download", "-q", "--no-deps", "--no-binary", source.name]
    argv += ["-r", str(requirements), "--require-hashes", "-d", str(work / "download")]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _download_failed(source, f"no end after {FETCH_SECONDS} seconds") from None
    if done.returncode != 0:
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise _hash_mismatch(source, done.stderr)
        if says_disk_full(done.stderr):
            raise disk_full(work)
        raise _download_failed(source, done.stderr)
    (archive,) = (work / "download").iterdir()
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != source.sha256:
            raise _hash_mismatch(source, "")
    return archive


def _pip() -> list[str]:
    """This environment's pip, else the one on PATH: environments made by uv have none of their own."""
    from importlib.util import find_spec

    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    if program is None:
        raise VerificationFailed(
            "the engine's source cannot be fetched: there is no pip", "Install pip, then run again.", id="download-failed"
        )
    return [program]


def _is_plain(member: tarfile.TarInfo) -> bool:
    """A file or folder that stays below the folder it is unpacked into."""
    path = PurePosixPath(member.name)
    return (member.isreg() or member.isdir()) and not path.is_absolute() and ".." not in path.parts


def _unpack(archive: Path, source: PypiSource, work: Path) -> Path:
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(work / "unpacked", filter="data")
            else:  # Python before 3.11.4, as Debian 12 has it; what is unpacked bears the pinned hash
                tar.extractall(work / "unpacked", members=[member for member in tar if _is_plain(member)])
    except tarfile.TarError as fault:
        raise VerificationFailed(f"{source} is not a readable archive: {fault}", "Run again.", id="download-failed") from None
    (top,) = (work / "unpacked").iterdir()
    return top / source.subdir


def _hash_mismatch(source: PypiSource, detail: str) -> VerificationFailed:
    return VerificationFailed(
        f"{source} is not the file that engines.yaml pins (sha256 {source.sha256[:12]}...); nothing was kept",
        "Do not build from it. If upstream replaced the file on purpose, read the change and pin the new hash.",
        id="hash-mismatch",
        detail=_tail(detail),
    )


def _download_failed(source: PypiSource, detail: str) -> VerificationFailed:
    return VerificationFailed(
        f"{source} could not be fetched",
        "Check the network and pip's settings (index, proxy, certificates), then run again.",
        id="download-failed",
        detail=_tail(detail),
    )


def _tail(text: str) -> str | None:
    return "\n".join(text.strip().splitlines()[-12:]) or None
