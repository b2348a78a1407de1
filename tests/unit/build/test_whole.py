"""A pruned library against the stage that links the whole ones: the build program is played by a script."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fatbins.files import Piece, docker_archive, elf, fatbin, layer

from sdrun.build.client import BuildClient
from sdrun.build.whole import check_against_whole
from sdrun.catalog.cuda import load_cuda_facts
from sdrun.catalog.targets import targets
from sdrun.core.target import Target
from sdrun.errors import EngineFailed, VerificationFailed

NAME = "libsdrun-cublas.so.12"
ARGUMENTS = {"BASE": "debian"}


def library(*archs: int) -> bytes:
    return elf({".nv_fatbin": fatbin(*(Piece("cubin", arch, payload=bytes([arch]) * 64) for arch in archs))})


def target() -> Target:
    (row,) = [row for row in targets().rows if row.name == "cu124-sm89"]
    return replace(row, pruned=True)


@pytest.fixture
def client(tmp_path: Path) -> BuildClient:
    """Writes the tar file `whole.tar`, then ends with the exit code in `code`; what it was asked for is in `asked`."""
    program = tmp_path / "docker"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/whole.tar\n'
        f'echo "ld: cannot find -lcublas" >&2\nexit "$(cat {tmp_path}/code)"\n'
    )
    program.chmod(0o755)
    (tmp_path / "code").write_text("0")
    (tmp_path / "whole.tar").write_bytes(layer({NAME: library(80, 86, 89, 90)}))
    return BuildClient(str(program), "docker", "20.10")


def check(folder: Path, client: BuildClient, *archs: int) -> None:
    archive = folder / "image.tar"
    archive.write_bytes(docker_archive([layer({f"usr/lib/{NAME}": library(*archs)})]))
    check_against_whole(archive, folder, client, ARGUMENTS, target(), load_cuda_facts())


def test_complete(tmp_path: Path, client: BuildClient) -> None:
    check(tmp_path, client, 80, 86, 89)
    asked = (tmp_path / "asked").read_text()
    assert "--target unpruned --output type=tar,dest=-" in asked
    assert "--build-arg BASE=debian" in asked
    assert asked.rstrip().endswith(str(tmp_path))


def test_over_pruned(tmp_path: Path, client: BuildClient) -> None:
    with pytest.raises(VerificationFailed) as caught:
        check(tmp_path, client, 89)
    assert (caught.value.id, caught.value.exit_code) == ("image-differs", 7)
    assert "1 for sm_80, 1 for sm_86" in str(caught.value.detail)


def test_a_stage_that_cannot_be_built_is_told_and_not_the_library(tmp_path: Path, client: BuildClient) -> None:
    (tmp_path / "code").write_text("1")
    (tmp_path / "whole.tar").write_bytes(b"")
    with pytest.raises(EngineFailed, match="exit code 1") as caught:
        check(tmp_path, client, 89)
    assert caught.value.id == "build-failed"
    assert "ld: cannot find -lcublas" in str(caught.value.detail)


def test_no_program_is_left_behind(tmp_path: Path, client: BuildClient) -> None:
    """A saved image that is none ends the comparison; the build that writes into nothing ends, too."""
    (tmp_path / "whole.tar").write_bytes(os.urandom(1 << 20))
    (tmp_path / "image.tar").write_bytes(b"no tar")
    with pytest.raises(VerificationFailed):
        check_against_whole(tmp_path / "image.tar", tmp_path, client, ARGUMENTS, target(), load_cuda_facts())


@pytest.mark.parametrize(("kind", "first"), [("docker", "build"), ("buildx", "buildx"), ("podman", "build")])
def test_the_command_for_a_stage(kind: str, first: str) -> None:
    argv = BuildClient("p", kind, "1").stage_argv(Path("c"), "unpruned", ARGUMENTS)  # type: ignore[arg-type]
    assert argv[1] == first
    assert "--load" not in argv
    assert argv[-1] == "c"
