"""`sdrun inspect` on images of a real container runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fatbins.files import docker_archive, elf, engine, fixture, layer

from sdrun.runtime import connect

pytestmark = pytest.mark.integration
NAME = "sdrun-test-inspect:two-layers"


@pytest.fixture(scope="module")
def program() -> str:
    return connect().name


@pytest.fixture(scope="module")
def image(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two layers: an engine for 5.2, a library and a leftover; then the leftover goes and the engine is replaced."""
    first = {
        "usr/bin/sd-cli": engine(fixture("cu118-sm52.fatbin"), "520"),
        "usr/lib/libx.so": elf({".nv_fatbin": fixture("cu118-lz4.fatbin")}),
        "usr/lib/left.so": elf({".nv_fatbin": fixture("cu130-zstd.fatbin")}),
    }
    second = {"usr/bin/sd-cli": engine(fixture("cu124-raw.fatbin"), "890,900"), "usr/lib/.wh.left.so": b""}
    archive = tmp_path_factory.mktemp("inspect") / "image.tar"
    archive.write_bytes(docker_archive([layer(first), layer(second)], tags=[NAME]))
    subprocess.run([program, "load", "--input", str(archive)], check=True, stdout=subprocess.DEVNULL)
    yield NAME
    subprocess.run([program, "rmi", "--force", NAME], check=True, stdout=subprocess.DEVNULL)


def inspect(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sdrun", "inspect", *arguments], capture_output=True, text=True, check=False)


def test_an_image_by_name(image: str) -> None:
    document = json.loads(inspect(image, "--json").stdout)
    assert [(file["path"], file["sass"]) for file in document["files"]] == [
        ("usr/bin/sd-cli", ["89", "90a"]),
        ("usr/lib/libx.so", ["52", "86"]),
    ]
    assert (document["sass"], document["toolkit"], document["min_driver"]) == (["89", "90a"], "12.4", "525.60.13")


def test_the_same_image_saved_to_a_file(image: str, program: str, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    subprocess.run([program, "save", "--output", str(saved), image], check=True)
    by_file, by_name = (json.loads(inspect(subject, "--json").stdout) for subject in (str(saved), image))
    assert by_file == by_name


def test_one_question(image: str) -> None:
    assert inspect(image, "--for", "8.9").returncode == 0
    done = inspect(image, "--for", "6.1")
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot run on a GPU of compute capability 6.1" in done.stderr


def test_an_image_that_is_not_here(program: str) -> None:
    done = inspect("sdrun-test-inspect:never-built")
    assert done.returncode == 8
    assert f"neither a file nor an image of the local {program}" in done.stderr
    assert "name the image with its host" in done.stderr
