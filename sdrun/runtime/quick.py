"""The runtime's facts by two GET requests with the standard library: `sdrun detect` may cost 0.1 s, and importing docker-py
costs more than that."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from sdrun.core.host import RuntimeFacts
from sdrun.errors import RuntimeUnavailable
from sdrun.runtime.endpoints import wanted
from sdrun.runtime.inventory import docker_facts, is_podman, podman_facts

ANSWER_WITHIN = 5  # seconds; a daemon that hangs is told as such by `connect`
_MAX_BYTES = 16 << 20


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_WITHIN)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def runtime_facts(preferred: str | None, env: Mapping[str, str]) -> tuple[RuntimeFacts | None, str | None]:
    """What `connect(preferred).facts()` says, and None; or None and why there is no runtime, in one sentence with its remedy.
    Endpoints that are no local socket (tcp, TLS), and sockets that fail, are left to `connect`, which words the failure."""
    first = next((endpoint for endpoint in wanted(preferred, env) if endpoint.exists), None)
    if first is not None and first.socket is not None:
        try:
            return _ask(first.socket), None
        except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
            pass
    from sdrun.runtime.connection import connect

    try:
        return connect(preferred, env).facts(), None
    except RuntimeUnavailable as failure:
        return None, f"No container runtime: {failure.message}. {failure.remedy}"


def _ask(path: Path) -> RuntimeFacts:
    version = _get(path, "/version")
    if is_podman(version):
        return podman_facts(version["Version"])
    return docker_facts(version["Version"], _get(path, "/info"))


def _get(path: Path, resource: str) -> Any:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", resource)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"{resource}: status {answer.status}")
        return json.loads(answer.read(_MAX_BYTES))
    finally:
        connection.close()
