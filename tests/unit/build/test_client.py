"""Which program builds, and with which command."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from sdrun.build.client import BuildClient, ca_bundle, find_client, programs_on_path
from sdrun.errors import RuntimeUnavailable

Program = Callable[[str, str], Path]
OLD = 'case "$1" in --version) echo "Docker version 20.10.24+dfsg1, build 297e128";; *) exit 1;; esac'
NEW = 'case "$1" in --version) echo "Docker version 28.2.2, build e6534b4";; *) exit 1;; esac'
WITH_BUILDX = 'case "$1" in buildx) echo "github.com/docker/buildx v0.29.1";; *) echo "Docker version 28.2.2, build e";; esac'


def path_of(*programs: Path) -> str:
    return ":".join(str(program.parent) for program in programs)


def test_a_newer_docker_without_buildx_is_passed_over(program: Program) -> None:
    new, old = program("docker", NEW), program("docker", OLD)
    client = find_client("docker", path_of(new, old))
    assert (client.program, client.kind) == (str(old), "docker")
    assert client.environment()["DOCKER_BUILDKIT"] == "1"


def test_buildx_wins_wherever_it_stands(program: Program) -> None:
    old, buildx = program("docker", OLD), program("docker", WITH_BUILDX)
    client = find_client("docker", path_of(old, buildx))
    assert (client.program, client.kind) == (str(buildx), "buildx")


@pytest.mark.parametrize("body", [NEW, "exit 3", '[ "$1" = --version ] && echo "Docker version 17.5.0"'])
def test_no_program_with_buildkit(program: Program, body: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="BuildKit") as raised:
        find_client("docker", path_of(program("docker", body)))
    assert (raised.value.id, raised.value.exit_code) == ("buildkit-missing", 6)
    assert "docker-buildx" in raised.value.remedy


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_no_program_at_all(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"no {runtime} program"):
        find_client(runtime, str(tmp_path))


def test_podman(program: Program) -> None:
    podman = program("podman", 'echo "podman version 4.3.1"')
    client = find_client("podman", path_of(podman))
    assert (client.program, client.kind, client.version) == (str(podman), "podman", "podman version 4.3.1")


def test_one_real_program_is_asked_once(program: Program, tmp_path: Path) -> None:
    docker = program("docker", OLD)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "docker").symlink_to(docker)
    assert list(programs_on_path("docker", f"{tmp_path}/links:{docker.parent}")) == [f"{tmp_path}/links/docker"]


@pytest.mark.parametrize("kind", ["buildx", "docker", "podman"])
def test_build_command(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    client = BuildClient("prog", kind, "")  # type: ignore[arg-type]
    argv = client.build_argv(tmp_path, "sdrun:x", {"io.sdrun.recipe": "sha256:1"}, {"BASE": "b:1"})
    assert argv[-1] == str(tmp_path)
    assert ("buildx" in argv) == (kind == "buildx")
    assert ("--progress" in argv) == (kind != "podman")
    for option, value in [
        ("--tag", "sdrun:x"),
        ("--label", "io.sdrun.recipe=sha256:1"),
        ("--secret", f"id=ca-bundle,src={bundle}"),
    ]:
        assert argv[argv.index(option) + 1] == value
    pairs = list(pairwise(argv))
    assert ("--build-arg", "BASE=b:1") in pairs
    assert ("--build-arg", "http_proxy") in pairs, "the proxy's value, which may hold a password, stays off the command line"


def test_a_bundle_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    real = tmp_path / "real.pem"
    real.write_text("x")
    assert ca_bundle({"SSL_CERT_FILE": str(tmp_path / "gone.pem"), "REQUESTS_CA_BUNDLE": str(real)}) == real
