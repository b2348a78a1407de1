"""Both container runtimes of this machine, and a program that stands in for the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime, LocalImage


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The user's own, with logs of the test's own."""
    return {**os.environ, "SDRUN_STATE_DIR": str(tmp_path / "state"), "SDRUN_RUNTIME": "docker"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """standin.c, compiled."""
    program = tmp_path_factory.mktemp("standin") / "standin"
    source = Path(__file__).with_name("standin.c")
    done = subprocess.run(["cc", "-static", "-O1", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs a C compiler with a static C library: {done.stderr[-300:]}")
    return program


@pytest.fixture(scope="session")
def podman_socket(tmp_path_factory: pytest.TempPathFactory, cpu_image: LocalImage) -> Iterator[Path]:
    """Podman's service on a socket of its own, holding the cpu image. Skips where Podman is not there or cannot run here."""
    if shutil.which("podman") is None:
        pytest.skip("needs podman")
    folder = tmp_path_factory.mktemp("podman")
    environment = {**os.environ, "CONTAINERS_CONF": str(_podman_settings(folder))}
    socket = folder / "podman.sock"
    argv = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    # In a folder of its own: conmon leaves a file named `oom` in its working directory when memory runs out.
    service = subprocess.Popen(argv, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while not socket.exists() and time.monotonic() < until and service.poll() is None:
            time.sleep(0.1)
        _copy_image(cpu_image, environment)
        yield socket
    finally:
        service.terminate()
        service.wait(20)


def _podman_settings(folder: Path) -> Path:
    """Podman's defaults ask for more open files than a container host of tests may have, and for systemd."""
    runtime = "runc" if shutil.which("runc") else "crun"
    settings = folder / "containers.conf"
    lines = (
        "[containers]",
        'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]',
        "[engine]",
        f'runtime = "{runtime}"',
        'cgroup_manager = "cgroupfs"',
        'events_logger = "file"',
    )
    settings.write_text("\n".join(lines))
    return settings


def _copy_image(image: LocalImage, environment: dict[str, str]) -> None:
    tag = image.tags[0]
    known = subprocess.run(["podman", "image", "inspect", tag], env=environment, capture_output=True, check=False)
    if known.returncode == 0 and image.id.removeprefix("sha256:").encode() in known.stdout:
        return
    saved = subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE)
    loaded = subprocess.run(
        ["podman", "load"], stdin=saved.stdout, env=environment, capture_output=True, text=True, check=False
    )
    assert saved.stdout is not None  # it was asked for
    saved.stdout.close()
    if saved.wait() != 0 or loaded.returncode != 0:
        pytest.skip(f"podman cannot load the image here: {loaded.stderr[-300:]}")


@pytest.fixture(scope="session", params=["docker", "podman"])
def runtime_environment(request: pytest.FixtureRequest, cpu_image: LocalImage) -> dict[str, str]:
    """The variables that lead to one runtime or the other."""
    if request.param == "docker":
        return {"SDRUN_RUNTIME": "docker"}
    socket = request.getfixturevalue("podman_socket")
    return {"SDRUN_RUNTIME": "podman", "CONTAINER_HOST": f"unix://{socket}"}


@pytest.fixture(scope="session")
def runtime(runtime_environment: dict[str, str]) -> Iterator[ContainerRuntime]:
    """Docker, then Podman."""
    try:
        found = connect(None, {**os.environ, **runtime_environment})
    except RuntimeUnavailable as absent:
        pytest.skip(f"needs {runtime_environment['SDRUN_RUNTIME']}: {absent}")
    yield found
    found.close()


@pytest.fixture(scope="session")
def engine_image(runtime: ContainerRuntime, cpu_image: LocalImage) -> LocalImage:
    """The cpu image as `runtime` knows it."""
    found = next((image for image in runtime.images("io.sdrun.target") if image.tags and image.id == cpu_image.id), None)
    assert found is not None
    return found


@pytest.fixture
def somebodys_home(tmp_path: Path) -> Path:
    """A folder of a user who is not root, reachable for him."""
    if os.geteuid() != 0:
        pytest.skip("root, to become somebody else")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 2345)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    return home


# The interpreter may lie where only root may look, and modules are imported late; so everything is imported as root first, by a
# run that succeeds and one that fails, and the user is changed then.
_AS_SOMEBODY = """
import contextlib, io, os, sys
from sdrun.cli.main import main
words, home, groups = eval(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    sys.argv = ["sdrun", *words, "-o", os.path.join(home, "first.png")]
    main()
    os.environ["DOCKER_HOST"] = "unix:///nowhere"
    main()
    del os.environ["DOCKER_HOST"]
    import filelock, sdrun.runtime.faults
os.environ.update(HOME=home, SDRUN_STATE_DIR=home + "/state", SDRUN_CACHE_DIR=home + "/cache")
os.setgroups(groups)
os.setresgid(2345, 2345, 2345)
os.setresuid(1234, 1234, 1234)
sys.argv = ["sdrun", *words]
sys.exit(main())
"""


@pytest.fixture
def run_as_somebody() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs sdrun with those words as user 1234, group 2345 and further groups."""

    def run(
        words: tuple[str, ...], home: Path, env: dict[str, str], groups: tuple[int, ...]
    ) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", _AS_SOMEBODY, repr(words), str(home), repr(list(groups))]
        return subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, check=False, timeout=180)

    return run
