"""Where a container runtime may be listening. Looks at the environment and at files; opens no connection, imports no client."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from sdrun.resources import at_home

RuntimeName = Literal["docker", "podman"]
DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to try. `url`: `unix:///path` or `tcp://host:port`; `named_by`: the variable, context or default it came from;
    `tls`: the folder with ca.pem, cert.pem and key.pem, where the endpoint asks for TLS; `verify`: check the server's name."""

    runtime: RuntimeName
    url: str
    named_by: str
    tls: Path | None = None
    verify: bool = True

    @property
    def socket(self) -> Path | None:
        """The socket file of a `unix://` endpoint."""
        return Path(self.url.removeprefix("unix://")) if self.url.startswith("unix://") else None

    @property
    def exists(self) -> bool:
        """False only for a unix socket that is not there."""
        if self.socket is None:
            return True
        try:
            return stat.S_ISSOCK(self.socket.stat().st_mode)
        except PermissionError:
            return True  # something is there; connecting says what is wrong
        except OSError:
            return False


def docker_endpoints(env: Mapping[str, str]) -> list[Endpoint]:
    """As the docker command line chooses: DOCKER_HOST, else the context of DOCKER_CONTEXT or of its configuration file, else
    the default socket and then the one of a rootless daemon."""
    if host := env.get("DOCKER_HOST", "").strip():
        verify = bool(env.get("DOCKER_TLS_VERIFY"))
        tls = Path(env.get("DOCKER_CERT_PATH") or docker_config_dir(env)) if verify or env.get("DOCKER_TLS") else None
        return [Endpoint("docker", _spelt_out(host), "DOCKER_HOST", tls, verify)]
    if (context := _context(env)) is not None:
        return [context]  # also where that context is not there: Docker itself refuses then
    endpoints = [Endpoint("docker", f"unix://{DOCKER_SOCKET}", "the default socket")]
    if runtime_dir := env.get("XDG_RUNTIME_DIR"):
        endpoints.append(Endpoint("docker", f"unix://{runtime_dir}/docker.sock", "the rootless socket"))
    return endpoints


def _spelt_out(host: str) -> str:
    """What Docker's command line makes of an address: `HOST:PORT` is tcp, and what a scheme alone leaves out is the default."""
    if "://" not in host and not host.startswith(("/", "unix:")):
        return f"tcp://{host}"
    return {"unix://": f"unix://{DOCKER_SOCKET}", "tcp://": "tcp://localhost"}.get(host, host)


def podman_endpoints(env: Mapping[str, str]) -> list[Endpoint]:
    """CONTAINER_HOST (podman's own variable), else the user's socket, else the system's."""
    if host := env.get("CONTAINER_HOST"):
        return [Endpoint("podman", host, "CONTAINER_HOST")]
    system = Endpoint("podman", f"unix://{PODMAN_SOCKET}", "the system socket")
    if runtime_dir := env.get("XDG_RUNTIME_DIR"):
        return [Endpoint("podman", f"unix://{runtime_dir}/podman/podman.sock", "the user's socket"), system]
    return [system]


def installed(runtime: RuntimeName) -> bool:
    """True if the runtime's command line is on PATH (or docker's daemon is)."""
    names = ("docker", "dockerd") if runtime == "docker" else ("podman",)
    return any(shutil.which(name) for name in names)


def docker_config_dir(env: Mapping[str, str]) -> Path:
    """DOCKER_CONFIG, else ~/.docker; for a user without a home folder /.docker, as in a container."""
    home = at_home(env.get("HOME") or "~")
    return Path(env.get("DOCKER_CONFIG") or (home if home.is_absolute() else Path("/")) / ".docker")


def _context(env: Mapping[str, str]) -> Endpoint | None:
    """The endpoint of the current docker context; None for `default`. Of a context that is not there the address is empty.

    Layout: config.json names it (`currentContext`), contexts/meta/SHA256(NAME)/meta.json holds the host, contexts/tls/
    SHA256(NAME)/docker the certificates (docs.docker.com/engine/manage-resources/contexts)."""
    folder = docker_config_dir(env)
    name = env.get("DOCKER_CONTEXT") or _text(_read(folder / "config.json"), "currentContext")
    if not name or name == "default":
        return None
    key = sha256(name.encode()).hexdigest()
    meta = _read(folder / "contexts" / "meta" / key / "meta.json")
    endpoint = _mapping(_mapping(meta, "Endpoints"), "docker")
    host = _text(endpoint, "Host")
    tls = folder / "contexts" / "tls" / key / "docker"
    return Endpoint(
        "docker", host, f"docker context {name!r}", tls if tls.is_dir() else None, endpoint.get("SkipTLSVerify") is not True
    )


def _read(path: Path) -> Mapping[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _mapping(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def wanted(preferred: str | None, env: Mapping[str, str] | None = None) -> list[Endpoint]:
    """All places to try, in order. `preferred` `docker` or `podman` leaves the other out."""
    environment = os.environ if env is None else env
    docker = docker_endpoints(environment) if preferred != "podman" else []
    podman = podman_endpoints(environment) if preferred != "docker" else []
    return docker + podman
