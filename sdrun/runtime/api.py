"""Docker's HTTP API with the standard library: the dozen calls a run is made of.

docker-py has them all, and importing it takes 0.07 to 0.1 s (requests, urllib3 and what they bring), a quarter of what is done
before a container starts. It is used where its knowledge is needed: a pull hands the credentials of a registry over.
Source of the calls: docs.docker.com/reference/api/engine, the same from version 1.24 on; Podman answers to them as well.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sdrun.runtime.endpoints import Endpoint
from sdrun.runtime.tls import client_context

PORT, TLS_PORT = 2375, 2376  # where an address names none
_MAX_ANSWER = 256 << 20  # bytes
Query = Mapping[str, str | int | bool | None]


class Refused(Exception):
    """The daemon answered with an error, or pointed elsewhere: its HTTP status, its own words, and whether they were JSON, as
    they must be."""

    def __init__(self, status: int, explanation: str, is_json: bool) -> None:
        super().__init__(explanation)
        self.status, self.explanation, self.is_json = status, explanation, is_json


class Api:
    """The calls, each on a connection of its own, so that several threads may make some at once. They raise Refused, OSError,
    http.client.HTTPException, and json.JSONDecodeError where the answer is none. `timeout`: seconds for each answer;
    `api_version`: the one that is spoken, without which the daemon takes its own newest."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        """Opens nothing yet. Raises OSError or ValueError where the address or the certificates cannot be used."""
        self.timeout = timeout
        self.api_version = ""
        self._socket = endpoint.socket
        self._tls = client_context(endpoint)
        address = urlsplit(endpoint.url)
        self._host, self._port = address.hostname or "", address.port
        self._prefix = "" if self._socket is not None else address.path.rstrip("/")
        if self._socket is None:
            _check_host(self._host, self._prefix)

    def version(self) -> Any:
        return self._call("GET", "/version", plain=True)

    def info(self) -> Any:
        return self._call("GET", "/info")

    def images(self, filters: Mapping[str, list[str]]) -> Any:
        return self._call("GET", "/images/json", {"filters": json.dumps(filters)})

    def inspect_image(self, reference: str) -> Any:
        return self._call("GET", f"/images/{quote(reference, safe='/:@')}/json")

    def containers(self, filters: Mapping[str, list[str]]) -> Any:
        """Also those that do not run."""
        return self._call("GET", "/containers/json", {"all": True, "filters": json.dumps(filters)})

    def create_container(self, name: str, body: Mapping[str, object]) -> str:
        """The new container's id."""
        return _id(self._call("POST", "/containers/create", {"name": name}, body))

    def create_libpod_container(self, root: str, body: Mapping[str, object]) -> str:
        """The same by Podman's own API, whose address begins with `root`."""
        return _id(self._call("POST", f"{root}/containers/create", body=body, plain=True))

    def inspect_container(self, container: str) -> Any:
        return self._call("GET", f"/containers/{quote(container)}/json")

    def start(self, container: str) -> None:
        self._call("POST", f"/containers/{quote(container)}/start")

    def remove_container(self, container: str) -> None:
        """Also one that runs, and with the volumes that are its own."""
        self._call("DELETE", f"/containers/{quote(container)}", {"force": True, "v": True})

    def inspect_network(self, name: str) -> Any:
        return self._call("GET", f"/networks/{quote(name)}")

    def create_network(self, body: Mapping[str, object]) -> None:
        self._call("POST", "/networks/create", body=body)

    def attach(self, container: str) -> Stream:
        """The multiplexed output, from now on."""
        query: Query = {"stdout": True, "stderr": True, "stream": True}
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        return self._open("POST", f"/containers/{quote(container)}/attach", query, headers=upgrade).endless()

    def events(self, container: str) -> Stream:
        """What happened to the container since its creation and what happens from now on: `since` replays the past."""
        query: Query = {"since": 1, "filters": json.dumps({"container": [container]})}
        return self._open("GET", "/events", query).endless()

    def _call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, object] | None = None,
        *,
        plain: bool = False,
    ) -> Any:
        """The answer's value, None where it is empty."""
        stream = self._open(method, path, query or {}, body, plain=plain)
        try:
            data = _whole(stream.answer)
        finally:
            stream.close()
        return json.loads(data) if data else None

    def _open(
        self,
        method: str,
        path: str,
        query: Query,
        body: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        plain: bool = False,
    ) -> Stream:
        version = f"/v{self.api_version}" if self.api_version and not plain else ""
        words = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in query.items()}
        target = f"{self._prefix}{version}{path}{'?' if words else ''}{urlencode(words)}"
        data = None if body is None else json.dumps(body).encode()
        sent = {**({"Content-Type": "application/json"} if data else {}), **(headers or {})}
        connection = self._connection()
        try:
            connection.request(method, target, data, sent)
            connected: socket.socket = connection.sock
            stream = Stream(connected, connection.getresponse())
        except BaseException:
            connection.close()
            raise
        if stream.answer.status >= 300 and stream.answer.status != HTTPStatus.NOT_MODIFIED:  # started already
            raise _refused(stream)
        return stream

    def _connection(self) -> HTTPConnection:
        if self._socket is not None:
            return _UnixConnection(self._socket, self.timeout)
        if self._tls is not None:
            return HTTPSConnection(self._host, self._port or TLS_PORT, timeout=self.timeout, context=self._tls)
        return HTTPConnection(self._host, self._port or PORT, timeout=self.timeout)


class Stream:
    """An answer that is still coming."""

    def __init__(self, connected: socket.socket, answer: HTTPResponse) -> None:
        self._connected = connected
        self.answer = answer

    def endless(self) -> Stream:
        """The same, without a limit for how long nothing comes."""
        self._connected.settimeout(None)
        return self

    def recv(self, size: int, /) -> bytes:
        """What has come of a connection that speaks no HTTP any more; empty at its end."""
        return self.answer.fp.read1(size)

    def documents(self) -> Iterator[Any]:
        """One JSON value a line."""
        for line in self.answer:
            if line.strip():
                yield json.loads(line)

    def close(self) -> None:
        """Ends the connection, also for a thread that waits for it."""
        with suppress(OSError):  # the daemon may have closed it first
            self._connected.shutdown(socket.SHUT_RDWR)
        self.answer.close()
        self._connected.close()


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _whole(answer: HTTPResponse) -> bytes:
    """All of the answer. Raises IncompleteRead where less came than announced: reading up to a bound does not."""
    data = answer.read(_MAX_ANSWER)
    if answer.length:
        raise IncompleteRead(data, answer.length)
    return data


def _id(answer: Any) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("Id"), str):
        raise json.JSONDecodeError("no Id in the answer", str(answer)[:200], 0)
    identifier: str = answer["Id"]
    return identifier


def _check_host(host: str, path: str) -> None:
    """Raises ValueError where http.client or the resolver would stumble later."""
    if not host:
        raise ValueError("it names no host")
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in host + path):
        raise ValueError("there is a space or a control character in it")
    if not path.isascii():
        raise ValueError("its path is not ASCII")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{host!r} is no host name") from None


def _refused(stream: Stream) -> Refused:
    """The error in an answer: `message` of its JSON, else the text itself."""
    kind = stream.answer.headers.get("Content-Type", "")
    try:
        text = _whole(stream.answer).decode("utf-8", "replace")
    finally:
        stream.close()
    message: object = None
    with suppress(ValueError, AttributeError):
        message = json.loads(text).get("message")
    return Refused(stream.answer.status, str(message or text), "json" in kind)
