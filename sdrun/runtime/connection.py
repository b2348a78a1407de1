"""Finding a container runtime that answers, or saying why none does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sdrun.errors import RuntimeUnavailable, UsageProblem
from sdrun.runtime.endpoints import Endpoint, RuntimeName, installed, wanted

if TYPE_CHECKING:
    from sdrun.runtime.client import ApiRuntime

ANSWER_WITHIN = 5  # seconds for the first answer: a daemon that hangs is told as such, not waited for
CALL_TIMEOUT = 120  # seconds for any one call after that: a start that prepares a GPU takes seconds
_RANK = {"runtime-permission": 3, "runtime-failed": 2, "runtime-down": 1}  # which of several failures is worth telling


def connect(preferred: str | None = None, env: Mapping[str, str] | None = None) -> ApiRuntime:
    """A runtime that answers: the preferred one, else the one of SDRUN_RUNTIME, else Docker, else Podman.

    Raises RuntimeUnavailable: `runtime-missing` (none installed), `runtime-down` (nobody listens, or no answer in 5 s),
    `runtime-permission`, `runtime-failed` (what answers is no container runtime); UsageProblem for another name."""
    environment = os.environ if env is None else env
    choice = preferred or environment.get("SDRUN_RUNTIME") or None
    if choice not in (None, "docker", "podman"):
        raise UsageProblem(f"{choice!r} is no container runtime", "Set SDRUN_RUNTIME to docker or podman, or unset it.")
    failures: list[RuntimeUnavailable] = []
    for endpoint in wanted(choice, environment):
        if endpoint.exists:
            try:
                return _open(endpoint)
            except RuntimeUnavailable as failure:
                failures.append(failure)
    if failures:
        raise max(failures, key=lambda failure: _RANK.get(failure.id, 0))
    raise _none_there(choice, environment)


def _none_there(choice: str | None, env: Mapping[str, str]) -> RuntimeUnavailable:
    """No socket anywhere: installed and not running, or not installed."""
    names: list[RuntimeName] = ["docker", "podman"]
    present = [name for name in names if choice in (None, name) and installed(name)]
    if present or env.get("DOCKER_HOST") or env.get("CONTAINER_HOST"):
        from sdrun.runtime.faults import START

        endpoint = next(e for e in wanted(choice, env) if not present or e.runtime == present[0])
        return RuntimeUnavailable(
            f"{endpoint.runtime} is not running: there is no socket at {endpoint.socket} ({endpoint.named_by})",
            START[endpoint.runtime],
            id="runtime-down",
        )
    wished = choice or "Docker or Podman"
    return RuntimeUnavailable(
        f"no container runtime is installed ({wished})",
        f"Install one: sudo apt-get install {'podman' if choice == 'podman' else 'docker.io'}",
        id="runtime-missing",
    )


def _open(endpoint: Endpoint) -> ApiRuntime:
    from sdrun.runtime.faults import nonsense, reading, translated

    if not endpoint.url:
        raise RuntimeUnavailable(
            f"the {endpoint.named_by} does not exist, or names no address",
            "Choose one of those that docker context ls shows: docker context use default, or unset DOCKER_CONTEXT.",
            id="runtime-failed",
        )
    if not endpoint.url.startswith(("unix://", "tcp://", "http://", "https://")):
        raise RuntimeUnavailable(
            f"{endpoint.url.split(':', 1)[0]}:// addresses ({endpoint.named_by}) are not supported",
            "Use a unix:// or tcp:// address of this machine.",
            id="runtime-failed",
        )
    _knock(endpoint)
    with ExitStack() as undo:
        api = _client(endpoint)
        undo.callback(api.close)
        with translated(endpoint):
            answer = api.version(api_version=False)
        if not isinstance(answer, dict) or "ApiVersion" not in answer:
            raise nonsense(endpoint, ValueError("no ApiVersion in its answer"))
        with reading(endpoint):
            components = [str(row.get("Name")) for row in answer.get("Components") or ()]
        version = str(answer.get("Version", ""))
        api._version = answer["ApiVersion"]
        api.timeout = CALL_TIMEOUT
        undo.pop_all()
    if "Podman Engine" in components:  # also behind /var/run/docker.sock, where podman-docker puts it
        from sdrun.runtime.podman import PodmanRuntime

        return PodmanRuntime(api, endpoint, version)
    from sdrun.runtime.docker import DockerRuntime

    return DockerRuntime(api, endpoint, version)


def _knock(endpoint: Endpoint) -> None:
    """Connects to a unix socket and goes away, so that nobody there or no permission is known before the client is imported."""
    if endpoint.socket is None:
        return
    import socket

    from sdrun.runtime.faults import unreachable

    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(ANSWER_WITHIN)
        try:
            knocking.connect(str(endpoint.socket))
        except OSError as fault:
            raise unreachable(fault, endpoint) from None


def _client(endpoint: Endpoint) -> Any:
    """A client that has not spoken yet: it is given an API version here and the daemon's own one after its first answer, which
    saves the second round trip that `version="auto"` costs."""
    import docker
    from docker.constants import MINIMUM_DOCKER_API_VERSION
    from docker.errors import DockerException
    from docker.tls import TLSConfig

    tls: Any = False
    try:
        if endpoint.tls is not None:
            certificate = (str(endpoint.tls / "cert.pem"), str(endpoint.tls / "key.pem"))
            tls = TLSConfig(client_cert=certificate, ca_cert=str(endpoint.tls / "ca.pem"), verify=endpoint.verify)
        return docker.APIClient(endpoint.url, version=MINIMUM_DOCKER_API_VERSION, timeout=ANSWER_WITHIN, tls=tls)
    except (DockerException, ValueError) as fault:  # nothing has been sent yet: the address or the certificates are wrong
        raise RuntimeUnavailable(
            f"{endpoint.url} ({endpoint.named_by}) cannot be used: {str(fault).split('. ', 1)[0]}",
            "Correct DOCKER_HOST or the docker context, or set SDRUN_RUNTIME=docker|podman.",
            id="runtime-failed",
        ) from None
