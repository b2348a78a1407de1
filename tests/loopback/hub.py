"""The hub: an API server that answers for files, and a server that sends their bytes, as the real one and its CDN.

`Hub.script(path, *faults)` lists what happens to the next requests for a file's bytes, one fault each; after them the file is
served as it should be. Every request is kept in `Hub.requests`, every byte sent in `Hub.sent`.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE = 16 << 10


@dataclass(frozen=True)
class File:
    """One file of a repository. `announced`: the sha256 the hub tells; None as for a file that it does not keep in LFS."""

    data: bytes
    announced: str | None
    gated: bool = False
    xet: bool = False


@dataclass(frozen=True)
class Request:
    """One request as it came: at the `hub` or the `cdn`."""

    server: str
    method: str
    path: str
    start: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """What happens instead. `status`: this answer, at the hub or (`at_cdn`) behind its redirect; `cut`: the connection ends
    after so many bytes, with a reset if `reset`; `wrong`: every byte has one bit turned; `no_ranges`: all of the file whatever
    was asked; `early`: the bytes begin that much before the place asked for; `more`: so many bytes too many; `hold`: sends
    `cut` bytes, then waits for this event before it ends the connection; `drip`: sends pieces of so many bytes at a time."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    at_cdn: bool = False
    cut: int | None = None
    reset: bool = False
    wrong: bool = False
    no_ranges: bool = False
    early: int = 0
    more: int = 0
    hold: threading.Event | None = None
    drip: int = 0


class Hub:
    """Start with `with Hub() as hub`; the address is `hub.url`."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.commit = COMMIT
        self.requests: list[Request] = []
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.tokens: set[str] = set()
        self._looks: defaultdict[str, list[Fault]] = defaultdict(list)
        self._scripts: defaultdict[str, list[Fault]] = defaultdict(list)
        self._lock = threading.Lock()
        self._api = _Server(self, _Api)
        self._cdn = _Server(self, _Cdn)

    def __enter__(self) -> Hub:
        for server in (self._api, self._cdn):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *fault: object) -> None:
        for server in (self._api, self._cdn):
            server.shutdown()
            server.close_all()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._api.server_port}"

    @property
    def cdn_url(self) -> str:
        """Where the redirects lead: another origin, so that a token sent on would be seen."""
        return f"http://127.0.0.1:{self._cdn.server_port}"

    def put(self, path: str, data: bytes, *, announce: bool = True, gated: bool = False, xet: bool = False) -> str:
        """Adds `owner/repository/file`; its sha256."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[path] = File(data, digest if announce else None, gated, xet)
        return digest

    def script(self, path: str, *faults: Fault) -> None:
        """What happens to the next requests for the bytes of `path`."""
        with self._lock:
            self._scripts[path].extend(faults)

    def script_looks(self, path: str, *faults: Fault) -> None:
        """What happens to the next questions about `path` (HEAD)."""
        with self._lock:
            self._looks[path].extend(faults)

    def fault(self, path: str, method: str, at_cdn: bool) -> Fault:
        """The next one of the script, for the server it is meant for."""
        with self._lock:
            listed = self._looks[path] if method == "HEAD" else self._scripts[path]
            due = listed and (method == "HEAD" or (listed[0].at_cdn or not listed[0].status) == at_cdn)
            return listed.pop(0) if due else Fault()

    def note(self, request: Request) -> None:
        """Keeps a request."""
        with self._lock:
            self.requests.append(request)

    def count(self, path: str, bytes: int) -> None:
        """Adds to what was sent of a file."""
        with self._lock:
            self.sent[path] += bytes

    def got(self, server: str, method: str) -> list[Request]:
        """The requests of one kind."""
        return [request for request in self.requests if (request.server, request.method) == (server, method)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.hub = hub
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        for request in list(self._open):
            self.shutdown_request(request)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of the server."""


class _Handler(ABC, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    name = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        place = self.path if self.path.startswith("/") else urlsplit(self.path).path  # a proxy is asked for whole addresses
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        self.hub.note(
            Request(self.name, self.command, unquote(place), int(start or 0), {k.lower(): v for k, v in self.headers.items()})
        )
        self.answer(unquote(urlsplit(place).path).lstrip("/"), int(start or 0))

    @abstractmethod
    def answer(self, path: str, start: int) -> None:
        """Answers the request for `path` from byte `start` on."""

    def plain(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """A short answer."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Api(_Handler):
    name = "hub"

    def answer(self, path: str, start: int) -> None:
        owner, repository, _, revision, file = (*path.split("/", 4), "", "", "", "")[:5]
        name = f"{owner}/{repository}/{file}"
        fault = self.hub.fault(name, self.command, at_cdn=False)
        if fault.status:
            self.plain(fault.status, fault.headers)
            return
        if not any(known.startswith(f"{owner}/{repository}/") for known in self.hub.files):
            self.plain(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        if revision not in ("main", self.hub.commit):
            self.plain(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
            return
        found = self.hub.files.get(name)
        if found is None:
            self.plain(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        if found.gated and not self._let_in():
            return
        self._redirect(name, found)

    def _let_in(self) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.hub.tokens:
            return True
        refusal = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."}
        if token == "invalid":
            self.plain(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        else:
            self.plain(403 if token else 401, refusal)
        return False

    def _redirect(self, name: str, found: File) -> None:
        headers = {
            "Location": f"{self.hub.cdn_url}/{name}?signature=1",
            "X-Repo-Commit": self.hub.commit,
            "X-Linked-Size": str(len(found.data)),
            "X-Linked-Etag": f'"{found.announced or "5ba0c0ffee"}"',
        }
        if found.xet:  # what would make huggingface_hub's own download hand the file to another program
            headers |= {"X-Xet-Hash": "ab" * 32, "X-Xet-Refresh-Route": f"{self.hub.url}/api/xet-token"}
        self.plain(302, headers)


class _Cdn(_Handler):
    name = "cdn"

    def answer(self, path: str, start: int) -> None:
        found = self.hub.files.get(path)
        assert found is not None, path
        if parse_qs(urlsplit(self.path).query).get("signature") != ["1"]:
            self.plain(403, {})
            return
        fault = self.hub.fault(path, self.command, at_cdn=True)
        if fault.status:
            self.plain(fault.status, fault.headers)
            return
        data = bytes(byte ^ 1 for byte in found.data) if fault.wrong else found.data
        if start >= len(data):
            self.plain(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        self._send(path, data, 0 if fault.no_ranges else max(start - fault.early, 0), fault)

    def _send(self, path: str, data: bytes, start: int, fault: Fault) -> None:
        body = data[start:] + bytes(fault.more)
        self.send_response(206 if self.headers.get("Range") and not fault.no_ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.headers.get("Range") and not fault.no_ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        size = fault.drip or _PIECE
        rest = memoryview(body if fault.cut is None else body[: fault.cut])
        while rest:
            self.wfile.write(rest[:size])
            self.hub.count(path, min(size, len(rest)))
            rest = rest[size:]
        if fault.cut is not None:
            self._break(fault)

    def _break(self, fault: Fault) -> None:
        self.wfile.flush()
        self.close_connection = True
        if fault.hold is not None:
            fault.hold.wait(20)
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
