"""The command-line program that builds: docker with buildx, a docker that carries BuildKit itself, or podman.

docker-py has no BuildKit (docker/docker-py#2230), so builds go through the command line. Which `docker` matters: a host can
have several on PATH, and from version 23 on the program itself cannot build with BuildKit unless the buildx plugin is there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdrun.errors import RuntimeUnavailable

Kind = Literal["buildx", "docker", "podman"]
LAST_WITH_BUILDKIT = 22  # docker 23.0 handed `docker build` over to the buildx plugin
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_VERSION = re.compile(r"version v?([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class BuildClient:
    """One program that can build with cache mounts and secrets. `kind` `docker`: it needs DOCKER_BUILDKIT=1."""

    program: str
    kind: Kind
    version: str

    def argv(self, *arguments: str) -> list[str]:
        """The command for anything but a build."""
        return [self.program, *arguments]

    def build_argv(self, context: Path, tag: str, labels: Mapping[str, str], arguments: Mapping[str, str]) -> list[str]:
        """The build command: image from `context` into the runtime's own store under `tag`, plain progress on stderr.
        Proxies of the environment are passed on (BuildKit keeps them out of its cache keys)."""
        argv = [*self._build, *(["--load"] if self.kind == "buildx" else []), "--tag", tag]
        for name, value in labels.items():
            argv += ["--label", f"{name}={value}"]
        return [*argv, *self._arguments(arguments), str(context)]

    def stage_argv(self, context: Path, stage: str, arguments: Mapping[str, str]) -> list[str]:
        """The command that builds one stage and writes its files to stdout as a tar archive."""
        argv = [*self._build, "--target", stage, "--output", "type=tar,dest=-"]
        return [*argv, *self._arguments(arguments), str(context)]

    @property
    def _build(self) -> list[str]:
        argv = [self.program, "buildx", "build", "--builder", "default"] if self.kind == "buildx" else [self.program, "build"]
        return [*argv, *(["--layers"] if self.kind == "podman" else ["--progress", "plain"])]

    def _arguments(self, arguments: Mapping[str, str]) -> list[str]:
        argv: list[str] = []
        for name, value in arguments.items():
            argv += ["--build-arg", f"{name}={value}"]
        for name in PROXY_VARIABLES:
            if os.environ.get(name) or os.environ.get(name.lower()):
                argv += ["--build-arg", name if os.environ.get(name) else name.lower()]
        bundle = ca_bundle()
        if bundle is not None:
            argv += ["--secret", f"id=ca-bundle,src={bundle}"]
        return argv

    def environment(self) -> dict[str, str]:
        """The environment for any of its commands: messages in English, since some are read."""
        return {**os.environ, "LC_ALL": "C", "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain", "DOCKER_CLI_HINTS": "false"}


def ca_bundle(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The host's bundle of certificate authorities: the one its programs are told of, else where Debian, Fedora and openSUSE
    keep it."""
    named = (environ.get(name) for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"))
    usual = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")
    for name in (*named, *usual):
        if name and Path(name).is_file():
            return Path(name)
    return None


def find_client(runtime: str, path: str | None = None) -> BuildClient:
    """The program that builds for the container runtime named `runtime` (`docker` or `podman`).

    For docker every `docker` on PATH is asked: the first with buildx wins, else the first that carries BuildKit itself. Raises
    RuntimeUnavailable (`buildkit-missing`) when there is none.
    """
    if runtime == "podman":
        program = shutil.which("podman", path=path)
        if program is None:
            raise _missing("no podman program is on PATH", "Install podman's command line.")
        return BuildClient(program, "podman", _first_line([program, "--version"]) or "unknown")
    programs = list(programs_on_path("docker", path))
    for program in programs:
        if buildx := _first_line([program, "buildx", "version"]):
            return BuildClient(program, "buildx", buildx)
    for program in programs:
        version = _first_line([program, "--version"]) or ""
        match = _VERSION.search(version)
        if match and 18 <= int(match[1]) <= LAST_WITH_BUILDKIT:
            return BuildClient(program, "docker", version)
    if not programs:
        raise _missing("no docker program is on PATH", "Install docker's command line: apt-get install docker.io")
    raise _missing(
        f"none of these can build with BuildKit: {', '.join(programs)}",
        "Install the buildx plugin (package docker-buildx, or docker-buildx-plugin from Docker's own repository).",
    )


def programs_on_path(name: str, path: str | None = None) -> Iterator[str]:
    """Every executable file `name` on PATH, in order, each real file once."""
    seen: set[Path] = set()
    for folder in (os.environ.get("PATH", "") if path is None else path).split(os.pathsep):
        candidate = Path(folder) / name
        if folder and candidate.is_file() and os.access(candidate, os.X_OK) and candidate.resolve() not in seen:
            seen.add(candidate.resolve())
            yield str(candidate)


def _first_line(argv: Sequence[str]) -> str | None:
    """What a program answers at once, or None when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None


def _missing(message: str, remedy: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(message, remedy, id="buildkit-missing")
