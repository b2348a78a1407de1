"""The compiler's cache on its way between a folder and the builder."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from sdrun.build import compilercache
from sdrun.build.client import BuildClient, find_client
from sdrun.build.compilercache import carried
from sdrun.catalog.targets import targets
from sdrun.errors import EngineFailed, RuntimeUnavailable, UsageProblem
from sdrun.resources import templates_dir
from sdrun.runtime.protocol import ContainerRuntime

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cpu_image")]


@pytest.fixture
def base(docker_runtime: ContainerRuntime) -> str:
    """What the cpu image was built from."""
    row = targets().bases["debian-bookworm"]
    names = (row.image, "sdrun-base:debian-bookworm")
    return next(name for name in names if docker_runtime.image(name) is not None)


@pytest.fixture
def own_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache mount of the test's own, so that the builder's is left alone."""
    text = (templates_dir() / "compiler-cache.Dockerfile").read_text()
    assert "id=sdrun-ccache," in text
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "compiler-cache.Dockerfile").write_text(text.replace("id=sdrun-ccache,", f"id=test-{uuid.uuid4()},"))
    monkeypatch.setattr(compilercache, "templates_dir", lambda: folder)


@pytest.mark.usefixtures("own_mount")
def test_what_is_compiled_comes_back(base: str, tmp_path: Path) -> None:
    """A second builder (another mount) would start with what the folder holds; the folder is whole after a failed build too."""
    client, folder = find_client("docker"), tmp_path / "cache"
    said: list[str] = []
    with carried(client, base, folder, said.append):
        pass
    assert (said, list(folder.iterdir())) == ([], [])  # nothing there, nothing taken over
    (folder / "ab").mkdir()
    (folder / "ab" / "object").write_bytes(b"compiled")
    with carried(client, base, folder, said.append):
        (folder / "ab" / "object").unlink()  # what comes back is the builder's, not what lay there
    assert len(said) == 1
    assert (folder / "ab" / "object").read_bytes() == b"compiled"
    with pytest.raises(EngineFailed), carried(client, base, folder, said.append):
        _fail(folder / "ab" / "object")
    assert (folder / "ab" / "object").read_bytes() == b"compiled"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("cache")] == ["cache"]


def _fail(compiled: Path) -> None:
    compiled.unlink()
    raise EngineFailed("the build failed", "")


def test_a_copy_that_fails_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeUnavailable) as told,
        carried(find_client("docker"), "sdrun-no-such-image:x", tmp_path / "c", print),
    ):
        pass
    assert told.value.id == "build-cache-failed"


def test_podman_keeps_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem), carried(BuildClient("podman", "podman", "4"), "x", tmp_path / "c", print):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageProblem), carried(find_client("docker"), "x", tmp_path / "file" / "c", print):
        pass
    with carried(BuildClient("podman", "podman", "4"), "x", None, print):
        pass
