"""Engine sources: fetched once, checked, packed the same everywhere; nothing kept when a check fails."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sdrun.build.pack import pack
from sdrun.build.source import _is_plain, fetch
from sdrun.core.engine import Engine, GitSource, PathSource, PypiSource
from sdrun.errors import BadConfiguration, NotEnoughMemory, UsageProblem, VerificationFailed
from sdrun.resources import cache_root

# A build backend without requirements: pip asks every source distribution for its metadata before it keeps it.
BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    os.mkdir(os.path.join(folder, "toy_engine-1.0.dist-info"))
    with open(os.path.join(folder, "toy_engine-1.0.dist-info", "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: toy-engine\\nVersion: 1.0\\n")
    return "toy_engine-1.0.dist-info"
def build_wheel(*arguments): raise SystemExit("never built")
def build_sdist(*arguments): raise SystemExit("never built")
"""


def unheard(text: str) -> None:
    """A sink for progress."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "src").mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text("project(toy)\n")
    (folder / "src" / "main.c").write_text("int main(void) { return 0; }\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("src/main.c")
    return folder


def git(*arguments: str, cwd: Path) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *settings, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as packed:
        return packed.getnames()


def test_packing_depends_on_content_alone(tree: Path, tmp_path: Path) -> None:
    first = pack(tree, tmp_path / "a.tar")
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("token = secret")
    os.utime(tree / "CMakeLists.txt", (1, 1))
    (tree / "src" / "main.c").chmod(0o600)
    assert pack(tree, tmp_path / "b.tar") == first
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert first == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()
    assert names(tmp_path / "a.tar") == ["CMakeLists.txt", "link", "run.sh", "src", "src/main.c"]
    (tree / "src" / "main.c").write_text("int main(void) { return 1; }\n")
    assert pack(tree, tmp_path / "c.tar") != first


def test_a_pipe_among_the_sources_is_refused(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(BadConfiguration, match="neither file, folder nor link"):
        pack(tree, tmp_path / "a.tar")


def test_local_folder(engine: Engine, tree: Path, tmp_path: Path) -> None:
    local = replace(engine, name="local", source=PathSource(str(tree)))
    first = fetch(local, tmp_path / "cache", unheard)
    assert fetch(local, tmp_path / "cache", unheard).digest == first.digest
    (tree / "CMakeLists.txt").write_text("project(other)\n")
    assert fetch(local, tmp_path / "cache", unheard).digest != first.digest
    assert first.tar.exists(), "a build that still uses the earlier content must not lose it"


def test_folder_without_an_engine(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"no CMakeLists\.txt") as raised:
        fetch(replace(engine, source=PathSource(str(tmp_path))), tmp_path / "cache", unheard)
    assert raised.value.exit_code == 2


@pytest.fixture
def repository(tree: Path, tmp_path: Path) -> tuple[str, str, str]:
    """A repository with one submodule: its URL, its commit, the submodule's commit."""
    library = tmp_path / "library"
    library.mkdir()
    git("init", "-q", cwd=library)
    (library / "lib.c").write_text("int lib;\n")
    git("add", ".", cwd=library)
    git("commit", "-qm", "library", cwd=library)
    git("init", "-q", cwd=tree)
    git("submodule", "--quiet", "add", library.as_uri(), "ggml", cwd=tree)
    git("add", ".", cwd=tree)
    git("commit", "-qm", "engine", cwd=tree)
    return tree.as_uri(), git("rev-parse", "HEAD", cwd=tree), git("rev-parse", "HEAD", cwd=library)


def test_git_with_its_submodule(engine: Engine, repository: tuple[str, str, str], tmp_path: Path) -> None:
    url, commit, submodule = repository
    pinned = replace(engine, source=GitSource(url, commit, {"ggml": submodule}))
    first = fetch(pinned, tmp_path / "cache", unheard)
    assert first.fetched
    assert "ggml/lib.c" in names(first.tar)
    assert not any(".git/" in name for name in names(first.tar))
    again = fetch(pinned, tmp_path / "cache", unheard)
    assert (again.digest, again.fetched) == (first.digest, False)


def test_git_leaves_unpinned_submodules_empty(engine: Engine, repository: tuple[str, str, str], tmp_path: Path) -> None:
    url, commit, _ = repository
    source = fetch(replace(engine, source=GitSource(url, commit, {})), tmp_path / "cache", unheard)
    assert "ggml/lib.c" not in names(source.tar)


@pytest.mark.parametrize(("which", "id"), [("submodule", "hash-mismatch"), ("commit", "download-failed")])
def test_git_that_is_not_what_was_pinned(
    engine: Engine, repository: tuple[str, str, str], tmp_path: Path, which: str, id: str
) -> None:
    url, commit, submodule = repository
    wrong = GitSource(url, "0" * 40, {}) if which == "commit" else GitSource(url, commit, {"ggml": submodule[::-1]})
    with pytest.raises(VerificationFailed) as raised:
        fetch(replace(engine, source=wrong), tmp_path / "cache", unheard)
    assert (raised.value.id, raised.value.exit_code) == (id, 7)
    assert kept(tmp_path / "cache") == []


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.name != "lock"]


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source distribution that pip finds in a folder and nowhere else; returns its sha256."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: toy-engine\nVersion: 1.0\n",
        "backend.py": BACKEND,
        "vendor/engine/CMakeLists.txt": "project(toy)\n",
    }
    folder = tmp_path / "links"
    folder.mkdir()
    with tarfile.open(folder / "toy_engine-1.0.tar.gz", "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"toy_engine-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return hashlib.sha256((folder / "toy_engine-1.0.tar.gz").read_bytes()).hexdigest()


def toy(engine: Engine, sha256: str, version: str = "1.0") -> Engine:
    return replace(engine, source=PypiSource("toy-engine", version, sha256, "vendor/engine"))


def test_distribution_is_fetched_once(
    engine: Engine, distribution: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = fetch(toy(engine, distribution), tmp_path / "cache", said.append)
    assert names(first.tar) == ["CMakeLists.txt"]
    assert said == ["fetching pypi:toy-engine==1.0"]
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    again = fetch(toy(engine, distribution), tmp_path / "cache", said.append)
    assert (again.tar, again.digest, again.fetched) == (first.tar, first.digest, False)


def test_wrong_hash_keeps_nothing(engine: Engine, distribution: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="nothing was kept") as raised:
        fetch(toy(engine, "0" * 64), tmp_path / "cache", unheard)
    assert (raised.value.id, raised.value.exit_code) == ("hash-mismatch", 7)
    assert kept(tmp_path / "cache") == []


def test_unreachable_distribution(engine: Engine, distribution: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed) as raised:
        fetch(toy(engine, distribution, "2.0"), tmp_path / "cache", unheard)
    assert (raised.value.id, raised.value.exit_code) == ("download-failed", 7)
    assert raised.value.remedy
    assert kept(tmp_path / "cache") == []


def test_a_cut_tar_is_fetched_again(engine: Engine, distribution: str, tmp_path: Path) -> None:
    first = fetch(toy(engine, distribution), tmp_path / "cache", unheard)
    first.tar.write_bytes(first.tar.read_bytes()[:100])
    again = fetch(toy(engine, distribution), tmp_path / "cache", unheard)
    assert (again.fetched, again.digest) == (True, first.digest)


def test_cache_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere"


def test_a_full_disk(engine: Engine, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, destination: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sdrun.build.source.pack", full)
    with pytest.raises(NotEnoughMemory) as raised:
        fetch(replace(engine, source=PathSource(str(tree))), tmp_path / "cache", unheard)
    assert (raised.value.id, raised.value.exit_code) == ("disk-full", 10)
    assert "SDRUN_CACHE_DIR" in raised.value.remedy


@pytest.mark.parametrize("name", ["pip", "git"])
def test_a_full_disk_met_by_the_program(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], Path], name: str
) -> None:
    script = program(name, "echo 'fatal: write error: No space left on device' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("sdrun.build.source._pip", lambda: [str(script)])
    source = PypiSource("x", "1", "0" * 64) if name == "pip" else GitSource("file:///nowhere", "0" * 40, {})
    with pytest.raises(NotEnoughMemory) as raised:
        fetch(replace(engine, source=source), tmp_path / "cache", unheard)
    assert raised.value.id == "disk-full"


def test_an_archive_is_unpacked_without_extraction_filters(
    engine: Engine, distribution: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12 has Python 3.11.2; the filters came with 3.11.4."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    assert names(fetch(toy(engine, distribution), tmp_path / "cache", unheard).tar) == ["CMakeLists.txt"]


@pytest.mark.parametrize(
    ("name", "kind", "plain"),
    [
        ("engine/CMakeLists.txt", tarfile.REGTYPE, True),
        ("engine", tarfile.DIRTYPE, True),
        ("/etc/passwd", tarfile.REGTYPE, False),
        ("engine/../../passwd", tarfile.REGTYPE, False),
        ("engine/link", tarfile.SYMTYPE, False),
        ("engine/device", tarfile.CHRTYPE, False),
    ],
)
def test_only_files_below_the_folder_are_unpacked_then(name: str, kind: bytes, plain: bool) -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    assert _is_plain(member) is plain
