"""`sdrun build` with the container runtime of this host: the cpu image, and small engines that fail as real ones do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdrun.build.client import find_client
from sdrun.build.readback import save_image
from sdrun.catalog.engines import engines
from sdrun.core import labels
from sdrun.core.index import IndexImage
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

REFERENCE = "sdrun:sdcpp-90e87bc-cpu"
LOCAL = "sdrun:local-cpu"
CMAKE = """\
cmake_minimum_required(VERSION 3.12)
project(toy C)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
add_executable(sd-cli main.c)
add_executable(sd-server main.c)
"""
GOOD = '#include <stdio.h>\nint main(void) { puts("toy engine 1"); return 0; }\n'


def sdrun(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sdrun", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, timeout=1200)


@pytest.fixture(scope="module")
def runtime() -> Iterator[ContainerRuntime]:
    connection = connect()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What `sdrun build cpu --json` answers; it builds the first time and takes what is there afterwards."""
    done = sdrun("build", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)["images"][0]
    return answer


@pytest.fixture(scope="module")
def image(built: dict[str, object], runtime: ContainerRuntime) -> LocalImage:
    found = runtime.image(REFERENCE)
    assert found is not None
    return found


def start(runtime: ContainerRuntime, image: LocalImage, *command: str, program: str | None = None) -> tuple[int, str]:
    """Exit code and output of the image's program under the runtime's own command line, with everything closed."""
    argv = find_client(runtime.name).argv("run", "--rm", "--read-only", "--network", "none", "--cap-drop", "ALL")
    argv += ["--entrypoint", program] if program else []
    done = subprocess.run([*argv, image.id, *command], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_the_same_again_takes_seconds(built: dict[str, object], image: LocalImage) -> None:
    started = time.monotonic()
    done = sdrun("build", "cpu", "--json")
    assert time.monotonic() - started < 5
    again = json.loads(done.stdout)["images"][0]
    assert again["cached"] is True
    assert again["image"] == built["image"] == image.id
    assert again["recipe"] == image.labels[labels.RECIPE]


def test_the_program_is_the_pinned_engine(built: dict[str, object], runtime: ContainerRuntime, image: LocalImage) -> None:
    code, said = start(runtime, image, "--version")
    assert (code, "90e87bc" in said) == (0, True)
    assert built["engine_version"] == said.strip()
    code, text = start(runtime, image, "--help")
    assert code == 0
    for sampler in engines()["sdcpp-90e87bc"].samplers:
        assert sampler in text
    for scheduler in engines()["sdcpp-90e87bc"].schedulers:
        assert scheduler in text
    assert start(runtime, image, "--help", program="/usr/bin/sd-server")[0] == 0


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox"])
def test_no_shell(runtime: ContainerRuntime, image: LocalImage, shell: str) -> None:
    code, said = start(runtime, image, "-c", "echo inside", program=shell)
    assert (code, said) == (127, "")  # 127: the runtime found no such program


def test_not_root(runtime: ContainerRuntime, image: LocalImage) -> None:
    argv = find_client(runtime.name).argv("image", "inspect", "--format", "{{.Config.User}} {{.Config.Entrypoint}}", image.id)
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "65532:65532 [/usr/bin/sd-cli]"


def test_what_it_holds(built: dict[str, object], image: LocalImage) -> None:
    assert built["libraries"] == [
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libgcc_s.so.1",
        "libgomp.so.1",
        "libm.so.6",
        "libstdc++.so.6",
    ]
    assert isinstance(built["size_bytes"], int)
    assert 10_000_000 < built["size_bytes"] < 40_000_000
    row = labels.index_image_from_labels(image.labels, image.id, image.platform)
    assert row == IndexImage("cpu", image.id, "linux/amd64", None, tag="sdcpp-90e87bc-cpu")
    assert image.labels["org.opencontainers.image.revision"].startswith("90e87bc")
    assert image.labels[labels.CPU_LEVEL] == "x86-64-v3"


@pytest.fixture
def toy(tmp_path: Path, built: dict[str, object], runtime: ContainerRuntime) -> Iterator[Callable[[str], Path]]:
    """Makes an engine that compiles in a second. Its image is removed afterwards; `built` is asked for first, because that
    build has already installed the compiler."""

    def make(source: str) -> Path:
        folder = tmp_path / "toy"
        folder.mkdir(exist_ok=True)
        (folder / "CMakeLists.txt").write_text(CMAKE)
        (folder / "LICENSE").write_text("none\n")
        # Another text each time: an image that an earlier run built would otherwise be found and nothing compiled.
        (folder / "main.c").write_text(f"/* {os.getpid()} {time.time_ns()} */\n{source}")
        return folder

    yield make
    subprocess.run(find_client(runtime.name).argv("rmi", LOCAL), capture_output=True, check=False)


def test_a_broken_engine(toy: Callable[[str], Path], runtime: ContainerRuntime) -> None:
    done = sdrun("build", "cpu", "--engine-source", str(toy("int main(void) { return 0\n")), "--json")
    assert done.returncode == 9
    assert json.loads(done.stdout)["id"] == "build-failed"
    assert "/src/main.c:2:26: error: expected" in done.stderr
    assert "Traceback" not in done.stderr
    (log,) = [line.split(": ", 1)[1] for line in done.stderr.splitlines() if line.startswith("whole log: ")]
    assert "-- Configuring done" in Path(log).read_text()
    assert runtime.image(LOCAL) is None


def test_a_local_engine(toy: Callable[[str], Path], runtime: ContainerRuntime) -> None:
    done = sdrun("build", "cpu", "--engine-source", str(toy(GOOD)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{LOCAL}\n"
    found = runtime.image(LOCAL)
    assert found is not None
    assert start(runtime, found, "--version") == (0, "toy engine 1\n")
    assert found.labels[labels.ENGINE_SOURCE] == "path"
    assert runtime.image("sdrun-trial:local-cpu") is None


def layers(runtime: ContainerRuntime, image: LocalImage) -> list[str]:
    argv = find_client(runtime.name).argv("image", "inspect", "--format", "{{json .RootFS.Layers}}", image.id)
    found: list[str] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return found


def test_only_the_last_layer_has_the_engines_date(image: LocalImage, runtime: ContainerRuntime, tmp_path: Path) -> None:
    """Folders included: whatever a builder's clock says, the layers below are the same."""
    save_image(image, tmp_path / "image.tar", runtime)
    with tarfile.open(tmp_path / "image.tar") as archive:
        (row,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        dates = []
        for name in row["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                dates.append({(member.mtime, member.uid, member.gid) for member in layer})
    assert dates == [{(0, 0, 0)}, {(engines()["sdcpp-90e87bc"].epoch, 0, 0)}]


def test_another_revision_changes_the_last_layer_alone(toy: Callable[[str], Path], runtime: ContainerRuntime) -> None:
    """What lies below is the same to the byte, dates included: a host that has it pulls the engine alone."""
    found = []
    for source in (GOOD, GOOD.replace("toy engine 1", "toy engine 2")):
        done = sdrun("build", "cpu", "--engine-source", str(toy(source)))
        assert done.returncode == 0, done.stderr
        image = runtime.image(LOCAL)
        assert image is not None
        found.append(layers(runtime, image))
    (base, engine), (same_base, other_engine) = found
    assert base == same_base
    assert engine != other_engine


def test_an_engine_that_cannot_start_gets_no_tag(toy: Callable[[str], Path], runtime: ContainerRuntime) -> None:
    done = sdrun("build", "cpu", "--engine-source", str(toy("int main(void) { return 3; }\n")))
    assert done.returncode == 7
    assert "sd-cli --version ends with exit code 3" in done.stderr
    assert runtime.image(LOCAL) is None
    assert runtime.image("sdrun-trial:local-cpu") is None


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["cpx"], 2, "no target is named 'cpx'"),
        (["cpu{"], 2, "brace without its partner"),
        (["cpu", "--jobs", "0"], 2, "--jobs"),
        (["cpu", "--engine-source", "/nonexistent"], 2, "/nonexistent is not a folder"),
        (["cpu", "--engine-source", "."], 2, "no CMakeLists.txt"),
    ],
)
def test_usage(arguments: list[str], code: int, text: str, tmp_path: Path) -> None:
    done = sdrun("build", *arguments, cwd=tmp_path)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
