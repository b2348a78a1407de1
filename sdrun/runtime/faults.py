"""What a failed call throws, told as errors of sdrun.errors. No error of http.client, docker-py, requests or urllib3 gets past
here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

from sdrun.errors import RuntimeUnavailable, SdrunError
from sdrun.runtime.api import Refused
from sdrun.runtime.endpoints import Endpoint

START = {
    "docker": "Start it: systemctl start docker",
    "podman": "Start it: systemctl --user start podman.socket",
}


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Runs calls of the API; whatever they raise leaves as an SdrunError. Holds nothing but calls: an error of the caller's own
    code would be told as one of the daemon."""
    try:
        yield
    except Refused as fault:
        raise _answered(fault, endpoint) from None
    except json.JSONDecodeError as fault:
        raise nonsense(endpoint, fault) from None
    except (HTTPException, OSError) as fault:
        raise unreachable(fault, endpoint) from None


@contextmanager
def translated_library(endpoint: Endpoint) -> Iterator[None]:
    """The same for calls of docker-py."""
    import docker.errors
    import requests
    import urllib3

    try:
        yield
    except docker.errors.APIError as fault:
        kind = "" if fault.response is None else str(fault.response.headers.get("Content-Type", ""))
        refused = Refused(fault.status_code or 0, str(fault.explanation or fault), fault.response is None or "json" in kind)
        raise _answered(refused, endpoint) from None
    except json.JSONDecodeError as fault:
        raise nonsense(endpoint, fault) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, docker.errors.DockerException) as fault:
        raise unreachable(fault, endpoint) from None


@contextmanager
def reading(endpoint: Endpoint) -> Iterator[None]:
    """Takes an answer apart; one without the fields of Docker's API leaves as RuntimeUnavailable."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise nonsense(endpoint, fault) from None


def _answered(fault: Refused, endpoint: Endpoint) -> SdrunError:
    """The daemon answered with an error: known texts by the catalogue's table, others as they are."""
    from sdrun.catalog.diagnoses import diagnose_runtime

    if (verdict := diagnose_runtime(fault.explanation)) is not None:
        error = verdict.to_error()
        error.detail = fault.explanation
        return error
    if not fault.is_json:
        return nonsense(endpoint, fault)
    return RuntimeUnavailable(
        f"{endpoint.runtime} refused: {_first_line(fault.explanation)}",
        "Run: sdrun doctor",
        id="runtime-failed",
        detail=fault.explanation,
    )


def unreachable(fault: BaseException, endpoint: Endpoint) -> RuntimeUnavailable:
    """The verdict on a connection that failed: permission, nobody listening, no answer in time, gone half-way."""
    where = str(endpoint.socket or endpoint.url)
    cause = _os_error(fault)
    name = endpoint.runtime
    if isinstance(cause, PermissionError):
        remedy = (
            "sudo usermod -aG docker $USER, then log in again (or use rootless Podman)"
            if name == "docker"
            else "Use your own socket: systemctl --user start podman.socket"
        )
        return RuntimeUnavailable(f"no permission to use {where}", remedy, id="runtime-permission")
    if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
        return RuntimeUnavailable(f"{name} is not running: nobody listens on {where}", START[name], id="runtime-down")
    if "timed out" in str(fault).lower() or isinstance(cause, TimeoutError):
        return RuntimeUnavailable(
            f"{name} does not answer on {where}", f"Restart it: sudo systemctl restart {name}", id="runtime-down"
        )
    if isinstance(cause, OSError) and not isinstance(cause, ConnectionError):  # no such name, no route, a certificate refused
        return RuntimeUnavailable(
            f"{name} cannot be reached on {where} ({endpoint.named_by}): {cause.strerror or cause}",
            "Correct the address or the network, or set SDRUN_RUNTIME=docker|podman.",
            id="runtime-down",
        )
    broken = isinstance(fault, RemoteDisconnected | IncompleteRead) or isinstance(cause, ConnectionError)
    if broken or "Connection aborted" in str(fault) or "ProtocolError" in type(fault).__name__:
        return _gone(endpoint, fault)
    return nonsense(endpoint, fault)


def _gone(endpoint: Endpoint, fault: BaseException) -> RuntimeUnavailable:
    if "BadStatusLine" in repr(fault):
        return nonsense(endpoint, fault)
    where = endpoint.socket or endpoint.url
    return RuntimeUnavailable(
        f"the connection to {endpoint.runtime} on {where} broke off",
        f"{START[endpoint.runtime]}; its own log says why it stopped (journalctl -u {endpoint.runtime})",
        id="runtime-down",
        detail=str(fault),
    )


def nonsense(endpoint: Endpoint, fault: BaseException) -> RuntimeUnavailable:
    """Something listens, but it does not speak Docker's API."""
    return RuntimeUnavailable(
        f"what listens on {endpoint.socket or endpoint.url} ({endpoint.named_by}) is no container runtime",
        "Correct DOCKER_HOST or the docker context, or set SDRUN_RUNTIME=docker|podman.",
        id="runtime-failed",
        detail=_first_line(str(fault)),
    )


def _os_error(fault: BaseException) -> OSError | None:
    """The operating system's error at the bottom of what the client raised (it nests them in `args` and causes)."""
    seen: set[int] = set()
    queue: list[object] = [fault]
    while queue:
        item = queue.pop(0)
        if id(item) in seen or not isinstance(item, BaseException):
            continue
        seen.add(id(item))
        if isinstance(item, OSError) and item.errno is not None:
            return item
        queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return None


def _first_line(text: str) -> str:
    line = text.strip().split("\n", 1)[0]
    return line if len(line) <= 200 else line[:197] + "..."
