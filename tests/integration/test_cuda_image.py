"""The CUDA images that are in the local runtime (`make cuda` builds them): proven again, and started with and without a driver.
The driver is a stand-in, so what is tested is the guard in its real place, and that the engine's program starts behind it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdrun.build.client import find_client
from sdrun.core import labels
from sdrun.core.guard import folder_of
from sdrun.core.labels import target_from_labels
from sdrun.runtime import connect
from sdrun.runtime.protocol import ContainerRuntime, LocalImage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
STUB = Path(__file__).parents[1] / "fixtures" / "guard" / "stub_cuda.c"


@pytest.fixture(scope="module")
def runtime() -> Iterator[ContainerRuntime]:
    connection = connect()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def image(runtime: ContainerRuntime) -> LocalImage:
    """The newest CUDA image that has its tag: one under way is not proven yet."""
    for found in runtime.images(labels.TARGET):
        if found.labels.get(labels.TOOLKIT) and any(tag.startswith("sdrun:") for tag in found.tags):
            return found
    pytest.skip("no CUDA image is here; make cuda builds one")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in libcuda.so.1 for the container."""
    folder = tmp_path_factory.mktemp("driver")
    folder.chmod(0o755)
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None, "the tests need a C compiler"
    subprocess.run([compiler, "-shared", "-fPIC", str(STUB), "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


def start(
    runtime: ContainerRuntime, image: LocalImage, *command: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    closed = ("--rm", "--read-only", "--network", "none", "--cap-drop", "ALL")
    argv = find_client(runtime.name).argv("run", *closed, *options, image.id, *command)
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def with_driver(driver: Path, gpus: str, cuda: str = "13000") -> tuple[str, ...]:
    mount = ("--volume", f"{driver}:/driver:ro", "--env", "LD_LIBRARY_PATH=/driver")
    return (*mount, "--env", f"STUB_GPUS={gpus}", "--env", f"STUB_DRIVER={cuda}")


def test_verify(image: LocalImage) -> None:
    argv = [sys.executable, "-m", "sdrun", "verify", image.id, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    engines = {file["path"]: file for file in document["files"] if file["path"].startswith("usr/libexec/sdrun/")}
    expected = {
        f"{folder_of(variant)}/{name}".lstrip("/"): variant
        for variant in target_from_labels(image.labels).variants
        for name in ("sd-cli", "sd-server")
    }
    assert set(engines) == set(expected)
    for path, file in engines.items():
        assert file["sass"] == [str(arch) for arch in expected[path].sass]
        assert file["ptx"] == [str(arch) for arch in expected[path].ptx]
        assert file["fatbin_compression"] == image.labels[labels.FATBIN_COMPRESSION]


@pytest.fixture
def other(image: LocalImage) -> str:
    """An arch that every toolkit emits and the image does not hold."""
    return "80" if "75" in map(str, target_from_labels(image.labels).sass) else "75"


@pytest.fixture
def mislabelled(runtime: ContainerRuntime, image: LocalImage, other: str) -> Iterator[str]:
    """The image under labels that promise another arch than it holds."""
    client = find_client(runtime.name)

    def output(*arguments: str) -> str:
        return subprocess.run(client.argv(*arguments), capture_output=True, text=True, check=True, timeout=120).stdout.strip()

    tag = f"sdrun-test-mislabelled:{os.getpid()}"
    toolkit = image.labels[labels.TOOLKIT].replace(".", "")
    changes = {labels.TARGET: f"cu{toolkit}-sm{other}", labels.SASS: other, labels.PTX: ""}
    container = output("create", image.id)
    try:
        output("commit", *(f"--change=LABEL {name}={value}" for name, value in changes.items()), container, tag)
        yield tag
    finally:
        output("rm", container)
        output("rmi", tag)


def test_an_image_of_another_arch_is_found_out(image: LocalImage, mislabelled: str, other: str) -> None:
    """The programs' code is read, not the labels."""
    held = target_from_labels(image.labels)
    done = subprocess.run([sys.executable, "-m", "sdrun", "verify", mislabelled], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "")
    found = f"sd-cli holds machine code for {held.sass[0]}, and the target promises {other}"
    assert (found if len(held.variants) == 1 else "/usr/libexec/sdrun/sd-cli is missing") in done.stderr


@pytest.mark.parametrize("options", [(), ("--entrypoint", "/usr/bin/sd-server")], ids=["sd-cli", "sd-server"])
def test_without_a_driver(runtime: ContainerRuntime, image: LocalImage, options: tuple[str, ...]) -> None:
    done = start(runtime, image, "--help", options=options)
    assert done.returncode == 3
    assert done.stderr.startswith("sdrun guard: no-gpu: no NVIDIA driver is in reach of this container")
    assert done.stderr.count("\n") == 1


def test_a_gpu_that_fits(runtime: ContainerRuntime, image: LocalImage, driver: Path) -> None:
    gpu = target_from_labels(image.labels).sass[0].number
    done = start(runtime, image, "--version", options=with_driver(driver, str(gpu)))
    assert (done.returncode, done.stderr) == (0, "")
    assert image.labels[labels.ENGINE_REVISION][:7] in done.stdout
    server = start(runtime, image, "--help", options=(*with_driver(driver, str(gpu)), "--entrypoint", "/usr/bin/sd-server"))
    assert server.returncode == 0
    assert "usage" in server.stdout.lower()


def test_a_gpu_that_does_not_fit(runtime: ContainerRuntime, image: LocalImage, driver: Path) -> None:
    done = start(runtime, image, "--version", options=with_driver(driver, "53"))
    assert (done.returncode, done.stdout) == (4, "")
    assert "has no code for GPU 0, Stub GPU 100 (compute capability 5.3)" in done.stderr


def test_an_old_driver(runtime: ContainerRuntime, image: LocalImage, driver: Path) -> None:
    gpu = target_from_labels(image.labels).sass[0].number
    done = start(runtime, image, "--version", options=with_driver(driver, str(gpu), "10020"))
    assert done.returncode == 5
    assert image.labels[labels.MIN_DRIVER] in done.stderr
