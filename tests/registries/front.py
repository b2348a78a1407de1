"""A server before the registry that does what networks and proxies do: answers 429 and 503, cuts connections, alters bytes,
holds requests back, and gives out tokens. Everything else goes through."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.registries.server import Pem

_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path match. `status`: this answer with `headers` and no other;
    `cut_request`, `cut_answer`: the connection ends (by a reset) after so many bytes of the body; `body`: bytes to answer
    instead; `answer_headers`: set in the real answer; `before`, `after`: called before it is passed on, or answered; `part`: so
    many bytes of an upload are taken and kept, then the connection ends, and the next question about it is answered with how
    much there is, as registries do that go on with uploads (docker-registry 2.8 gives up one that broke off)."""

    method: str
    path: str
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_request: int | None = None
    cut_answer: int | None = None
    body: bytes | None = None
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    part: int | None = None


@dataclass(frozen=True)
class Seen:
    """A request as it came, and its answer."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int
    received: int
    sent: int


class Front:
    """Listens with TLS and passes on to the plain registry at `port`."""

    def __init__(
        self, port: int, tls: Pem | None, token: Callable[[str, Mapping[str, str]], tuple[int, bytes]] | None = None
    ) -> None:
        self.behind = port
        self.secure = tls is not None
        self.token = token
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        front = self

        class Handler(_Handler):
            owner = front

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            # Handshakes happen in the threads of the requests: a client that hangs up in one holds up nobody.
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """Its name."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def script(self, *faults: Fault) -> None:
        """Adds faults."""
        with self.lock:
            self.faults += faults

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            for fault in self.faults:
                if fault.times and re.fullmatch(fault.method, method) and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, path: str) -> int:
        """How many such requests there were."""
        with self.lock:
            return sum(bool(re.fullmatch(method, one.method) and re.search(path, one.path)) for one in self.seen)

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Front
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ssl.SSLError, OSError):  # the client hung up, or does not trust the certificate
            super().handle()

    def _go(self) -> None:
        fault = self.owner.fault(self.command, self.path) or Fault("", "", 0)
        if fault.before is not None:
            fault.before()
        if self.owner.token is not None and urlsplit(self.path).path == "/token":
            self._token()
            return
        if fault.status:
            self._drain()
            self._reply(fault.status, dict(fault.headers), fault.body or b"")
            return
        if fault.part is not None:
            self._take_part(fault.part)
            return
        self._pass_on(fault)

    def _take_part(self, size: int) -> None:
        behind = HTTPConnection("127.0.0.1", self.owner.behind, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers |= {"Content-Length": str(size), "X-Forwarded-Proto": "https"}
        data = b""
        while len(data) < size:
            data += self.rfile.read(size - len(data))
        behind.request(self.command, self.path, data, headers)
        answer = behind.getresponse()
        answer.read()
        location = answer.getheader("Location") or ""
        behind.close()
        had = {"Location": location, "Range": answer.getheader("Range") or ""}
        self.owner.script(Fault("GET", "/blobs/uploads/", status=204, headers=had))
        self._record(0, size, 0)
        self._reset()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _go

    def _token(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        form = self.rfile.read(size).decode() if size else urlsplit(self.path).query
        assert self.owner.token is not None
        status, body = self.owner.token(form, dict(self.headers.items()))
        self._reply(status, {"Content-Type": "application/json"}, body)

    def _drain(self) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        while left and (piece := self.rfile.read(min(left, 1 << 16))):
            left -= len(piece)

    def _pass_on(self, fault: Fault) -> None:
        behind = HTTPConnection("127.0.0.1", self.owner.behind, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers.setdefault("Content-Length", "0")
            if self.owner.secure:
                headers["X-Forwarded-Proto"] = "https"
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                behind.putheader(name, value)
            behind.endheaders()
            if not self._forward_body(behind, fault):
                return
            answer = behind.getresponse()
            body = answer.read()
            if fault.after is not None:
                fault.after()
            told = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            told |= fault.answer_headers
            self._reply(answer.status, told, body if fault.body is None else fault.body, fault.cut_answer)
        except (ConnectionError, OSError):
            self._reset()
        finally:
            behind.close()

    def _forward_body(self, behind: HTTPConnection, fault: Fault) -> bool:
        left, done = int(self.headers.get("Content-Length") or 0), 0
        while left:
            most = left if fault.cut_request is None else min(left, fault.cut_request - done)
            if most <= 0:
                self._record(0, done, 0)
                self._reset()
                return False
            piece = self.rfile.read(min(most, 1 << 14))
            if not piece:
                return False
            behind.send(piece)
            left, done = left - len(piece), done + len(piece)
        return True

    def _reply(self, status: int, headers: dict[str, Any], body: bytes, cut: int | None = None) -> None:
        bare = self.command == "HEAD" or status in (204, 304)
        size = headers.pop("Content-Length", None) if bare else str(len(body))
        headers.pop("Content-Length", None)
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if size is not None:
            self.send_header("Content-Length", size)
        self._record(status, int(self.headers.get("Content-Length") or 0), 0 if bare else len(body))
        self.end_headers()
        if not bare:
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self._reset()

    def _record(self, status: int, received: int, sent: int) -> None:
        seen = Seen(self.command, self.path, dict(self.headers.items()), status, received, sent)
        with self.owner.lock:
            self.owner.seen.append(seen)

    def _reset(self) -> None:
        """The connection breaks off, with no farewell of TLS."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            socket.socket.close(self.connection)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""
