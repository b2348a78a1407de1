"""Newer pins, from a registry and a repository on this machine, into a copy of the catalogue."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sdrun.build.bump import bump, following, newest_release, with_base
from sdrun.catalog.engines import engines
from sdrun.catalog.targets import targets
from sdrun.catalog.toolchains import toolchains
from sdrun.core.engine import GitSource
from sdrun.errors import BadConfiguration, SdrunError, VerificationFailed
from sdrun.resources import images_dir

ROOT = images_dir().parent


def git(*arguments: str, cwd: Path) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *settings, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[Path, str]:
    """A repository with a submodule `ggml`; its path and the submodule's commit."""
    library, tree = tmp_path / "library", tmp_path / "engine"
    for folder in (library, tree):
        folder.mkdir()
        git("init", "-q", cwd=folder)
        (folder / "CMakeLists.txt").write_text("project(x)")
    git("add", ".", cwd=library)
    git("commit", "-qm", "library", cwd=library)
    git("submodule", "--quiet", "add", library.as_uri(), "ggml", cwd=tree)
    git("add", ".", cwd=tree)
    git("commit", "-qm", "engine", "--date", "2026-08-19T10:00:00Z", cwd=tree)
    return tree, git("rev-parse", "HEAD", cwd=library)


def released(tree: Path, count: int) -> str:
    """Another commit with its release tag; the commit."""
    git("commit", "-q", "--allow-empty", "-m", f"change {count}", cwd=tree)
    commit = git("rev-parse", "HEAD", cwd=tree)
    git("tag", f"master-{count}-{commit[:7]}", cwd=tree)
    return commit


@dataclass
class Tags:
    """A registry: the digest that each `NAME:TAG` stands for."""

    host: str = ""
    digests: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def registry() -> Iterator[Tags]:
    """One that is asked for digests, as `docker pull` asks."""
    tags = Tags()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            _, _, rest = self.path.partition("/v2/")
            digest = tags.digests.get(rest.replace("/manifests/", ":"))
            self.send_response(404 if digest is None else 200)
            self.send_header("Docker-Content-Digest", digest or "")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *words: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        tags.host = f"127.0.0.1:{server.server_port}"
        yield tags
        server.shutdown()
        thread.join()


@pytest.fixture
def images(tmp_path: Path, upstream: tuple[Path, str], registry: Tags) -> Path:
    """A copy of images/ whose engine and bases come from this machine."""
    folder = tmp_path / "images"
    shutil.copytree(images_dir(), folder)
    engine = next(iter(engines().values()))
    file = folder / "engines.yaml"
    file.write_text(file.read_text().replace(engine.url, upstream[0].as_uri()))
    file = folder / "toolchains.yaml"
    text = file.read_text()
    for image in {base.image for base in toolchains().bases.values()}:
        text = text.replace(f"image: {image}\n", f"image: {registry.host}/{image.partition('@')[0]}\n")
    file.write_text(text)
    for image in {base.image.partition("@")[0] for base in toolchains().bases.values()}:
        registry.digests[image] = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
    return folder


def test_the_newest_release_is_pinned_whole(images: Path, upstream: tuple[Path, str]) -> None:
    tree, submodule = upstream
    released(tree, 900)
    newest = released(tree, 1001)
    git("tag", "master-2000-0000000", cwd=tree)  # a tag that names another commit than its own is no release
    before = (images / "engines.yaml").read_text()
    changes = bump(images, print)
    assert changes[0].new == f"master-1001-{newest[:7]}"
    for read in (engines, toolchains, targets):
        read.cache_clear()  # a catalogue does not change while a program runs, but for this one
    (engine,) = (row for row in engines(images / "engines.yaml").values() if row.name == f"sdcpp-{newest[:7]}")
    assert (engine.version, engine.revision) == (f"master-1001-{newest[:7]}", newest)
    assert engine.source == GitSource(tree.as_uri(), newest, {"ggml": submodule})
    assert engine.cmake["SDCPP_BUILD_COMMIT"] == newest[:7]
    catalogue = targets(images / "targets.yaml", images / "engines.yaml", images / "toolchains.yaml")
    assert {row.engine for row in catalogue.rows} == {engine.name}
    after = (images / "engines.yaml").read_text()
    assert [line for line in before.splitlines() if "#" in line and "Carries" not in line and "archives do" not in line] == [
        line for line in after.splitlines() if "#" in line
    ]
    assert bump(images, print) == []  # once more: nothing to do
    assert not list(images.glob(".bump-*"))


def test_newer_bases_give_the_engine_another_name(images: Path, registry: Tags) -> None:
    said: list[str] = []
    changes = bump(images, said.append)
    assert "has no release tags" in said[0]
    bases = toolchains.__wrapped__(images / "toolchains.yaml").bases.values()
    assert all(base.image.split("@")[1] in registry.digests.values() for base in bases)
    old = next(iter(engines()))
    (new,) = engines.__wrapped__(images / "engines.yaml")
    assert new == following(old)
    assert f"engine: {new}\n" in (images / "targets.yaml").read_text()
    assert changes[-1].new == new
    assert (images / "patches" / new).is_dir() == (images_dir() / "patches" / old).is_dir()
    assert not (images / "patches" / old).exists()


def test_what_cannot_be_read_again_is_not_written(images: Path) -> None:
    before = {path.name: path.read_bytes() for path in images.glob("*.yaml")}
    targets_file = images / "targets.yaml"
    targets_file.write_text(targets_file.read_text().replace("engine: sdcpp", "engine:  sdcpp", 1))
    with pytest.raises(BadConfiguration):
        bump(images, print)
    before["targets.yaml"] = targets_file.read_bytes()
    assert {path.name: path.read_bytes() for path in images.glob("*.yaml")} == before


def test_an_upstream_without_what_is_needed(images: Path, upstream: tuple[Path, str], registry: Tags) -> None:
    tree, _ = upstream
    git("rm", "-qf", "ggml", cwd=tree)
    released(tree, 901)
    with pytest.raises(VerificationFailed, match="no submodule ggml"):
        bump(images, print)
    git("tag", "-d", *git("tag", cwd=tree).split(), cwd=tree)
    registry.digests.clear()
    with pytest.raises(SdrunError):
        bump(images, print)
    with pytest.raises(VerificationFailed):
        newest_release("file:///nowhere/at/all")


def test_names_and_lines() -> None:
    assert following("sdcpp-1234567") == "sdcpp-1234567.2"
    assert following("sdcpp-1234567.9") == "sdcpp-1234567.10"
    assert with_base("  - base: x\n    image: a:b # why\n", "a:b", "a:b@c") == "  - base: x\n    image: a:b@c # why\n"


def test_as_ci_calls_it(images: Path) -> None:
    """The first line is the pull request's title."""
    argv = [sys.executable, str(ROOT / "tools" / "bump.py"), str(images)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Newer pins: ")
    assert "\n- " in done.stdout
    again = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert again.stdout == "Every pin is the newest\n"
    wrong = subprocess.run([*argv, "more"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
