"""Finding a container runtime that answers, or saying why none does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdrun.errors import RuntimeUnavailable, UsageProblem
from sdrun.runtime.endpoints import Endpoint, RuntimeName, installed, wanted

if TYPE_CHECKING:
    from sdrun.runtime.api import Api
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
    from sdrun.runtime.inventory import is_podman

    if not endpoint.url:
        raise RuntimeUnavailable(
            f"the {endpoint.named_by} does not exist, or names no address",
            "Choose one of those that docker context ls shows: docker context use default, or unset DOCKER_CONTEXT.",
            id="runtime-failed",
        )
    if not endpoint.url.startswith(("unix://", "tcp://", "http://", "https://")):
        raise RuntimeUnavailable(
            f"the address {endpoint.url!r} ({endpoint.named_by}) is of a kind that is not supported",
            "Use a unix:// or tcp:// address of this machine.",
            id="runtime-failed",
        )
    api = _api(endpoint)
    with translated(endpoint):
        answer = api.version()
    if not isinstance(answer, dict) or "ApiVersion" not in answer:
        raise nonsense(endpoint, ValueError("no ApiVersion in its answer"))
    with reading(endpoint):
        podman, version = is_podman(answer), str(answer.get("Version", ""))
    api.api_version, api.timeout = str(answer["ApiVersion"]), CALL_TIMEOUT
    if podman:
        from sdrun.runtime.podman import PodmanRuntime

        return PodmanRuntime(api, endpoint, version)
    from sdrun.runtime.docker import DockerRuntime

    return DockerRuntime(api, endpoint, version)


def _api(endpoint: Endpoint) -> Api:
    """The calls of the endpoint, which has not been spoken to yet."""
    from sdrun.runtime.api import Api

    try:
        return Api(endpoint, ANSWER_WITHIN)
    except (OSError, ValueError) as fault:  # the address or the certificates are wrong
        raise RuntimeUnavailable(
            f"{endpoint.url} ({endpoint.named_by}) cannot be used: {fault}",
            "Correct DOCKER_HOST or the docker context, or set SDRUN_RUNTIME=docker|podman.",
            id="runtime-failed",
        ) from None
