"""HTTP with one registry: connections that are kept, proxies, redirects, and nothing of what is said over it.

Only the standard library's http.client: `sdrun resolve` asks a registry once, and importing a client library costs more than
the question.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from sdrun import __version__
from sdrun.errors import VerificationFailed
from sdrun.registry.body import PIECE, Body
from sdrun.registry.faults import Broken, broken
from sdrun.registry.proxy import login_of, proxy_for
from sdrun.registry.trust import context, folders

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_S = 10
ANSWER_S = 60
MAX_BODY = 8 << 20  # of answers that are read whole: manifests (4 MiB is what registries take), tokens, errors
_REDIRECTS = 5
_USER_AGENT = f"sdrun/{__version__}"


@dataclass(slots=True)
class Answer:
    """A response whose body is still to be read: `status`, header names in lower case, `url` it came from in the end."""

    status: int
    headers: Mapping[str, str]
    url: str
    _response: HTTPResponse
    _drop: Callable[[], None]
    _host: str
    _left: bool = field(default=True)

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, none at the end. Raises Broken where the connection fails or ends too early."""
        try:
            data = self._response.read(count)
        except (OSError, HTTPException) as fault:
            self._drop()
            raise broken(fault, self._host) from None
        if not data and count and (self._response.length or 0) > 0:
            self._drop()
            raise Broken(f"the connection to {self._host} broke off")
        return data

    def whole(self) -> bytes:
        """All of a body of at most MAX_BYTES; what is more is not read, and the connection not used again."""
        body = b""
        while len(body) <= MAX_BODY and (piece := self.read(MAX_BODY + 1 - len(body))):
            body += piece
        if len(body) > MAX_BODY:
            self._drop()
        return body[:MAX_BODY]

    def pieces(self) -> Iterator[bytes]:
        """The body piece by piece."""
        while piece := self.read(PIECE):
            yield piece

    def close(self) -> None:
        """Done with it. A body that was not read to its end costs the connection."""
        if not self._response.isclosed():
            self._drop()


class Transport:
    """Connections to the hosts that one registry leads to. `trusted` is the registry's own host, for which certificates may be
    laid down; `plain_allowed`: a registry on this machine may speak plain HTTP; `limit`: seconds to wait for a connection, and
    for an answer on it, where they are not the usual ones."""

    def __init__(
        self, trusted: str, plain_allowed: bool = False, environ: Mapping[str, str] = os.environ, limit: float | None = None
    ) -> None:
        self._trusted = trusted
        self._environ = environ
        self._plain_allowed = plain_allowed and not any(True for _ in folders(trusted, environ))
        self._connect_s: float = CONNECT_S if limit is None else limit
        self._answer_s: float = ANSWER_S if limit is None else limit
        self._scheme = "https"
        self._open: dict[tuple[str, str], HTTPConnection] = {}
        self._spent: list[HTTPConnection] = []  # good for the answer that is being read, and for no other

    @property
    def scheme(self) -> str:
        """`https`, or `http` for a registry on this machine that turned out to speak no TLS."""
        return self._scheme

    def request(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Answer:
        """One request, redirects followed where it has no body; the Authorization header goes to the first host alone. `url`
        may be a path on the registry's host. Raises Broken, or an SdrunError where trying again cannot help."""
        sent = dict(headers)
        for _ in range(_REDIRECTS):
            target = urlsplit(urljoin(f"{self._scheme}://{self._trusted}", url))
            answer = self._once(method, target, sent, body)
            onward = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not onward or body is not None:
                return answer
            answer.whole()
            url = urljoin(answer.url, onward)
            if urlsplit(url).netloc != target.netloc:
                sent.pop("Authorization", None)
        raise Broken(f"{self._trusted} sends from one address to the next")

    def close(self) -> None:
        """Gives back the connections; a process that ends need not."""
        for connection in (*self._open.values(), *self._spent):
            connection.close()
        self._open.clear()
        self._spent.clear()

    def _once(self, method: str, target: SplitResult, headers: Mapping[str, str], body: Body | None) -> Answer:
        """On a connection that was kept the other side may have hung up meanwhile: then once more on a new one."""
        if target.scheme not in ("http", "https"):
            raise Broken(f"{self._trusted} leads to a {target.scheme} address")
        if target.scheme == "http" and self._scheme == "https":
            raise VerificationFailed(
                f"{self._trusted} leads to {target.netloc} without TLS, where a login could be read on the way",
                "Behind a proxy the registry must be told of it: X-Forwarded-Proto: https.",
                id="registry-failed",
            )
        while self._spent:
            self._spent.pop().close()
        kept = (target.scheme, target.netloc) in self._open
        try:
            return self._send(method, target, headers, body)
        except (OSError, HTTPException) as fault:
            self._drop(target.scheme, target.netloc)
            if kept and body is None and isinstance(fault, ConnectionError):
                return self._retried(method, target, headers)
            if self._speaks_plain(target, fault):
                self._scheme = "http"
                return self._once(method, target._replace(scheme="http"), headers, body)
            raise broken(fault, target.netloc) from None

    def _retried(self, method: str, target: SplitResult, headers: Mapping[str, str]) -> Answer:
        try:
            return self._send(method, target, headers, None)
        except (OSError, HTTPException) as fault:
            self._drop(target.scheme, target.netloc)
            raise broken(fault, target.netloc) from None

    def _speaks_plain(self, target: SplitResult, fault: Exception) -> bool:
        """Docker, too, falls back to HTTP for registries on this machine, and for no other."""
        own = self._plain_allowed and target.netloc == self._trusted and target.scheme == "https"
        return (
            own
            and isinstance(fault, ssl.SSLError | ConnectionResetError)
            and not isinstance(fault, ssl.SSLCertVerificationError)
        )

    def _send(self, method: str, target: SplitResult, headers: Mapping[str, str], body: Body | None) -> Answer:
        connection = self._connection(target)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        if body is not None or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = str(body.size if body is not None else 0)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            while body is not None and (piece := body.read(PIECE)):
                connection.send(piece)
        except ConnectionError:  # it may have answered before it hung up: with 401, 413, 503
            with suppress(OSError, HTTPException):
                return self._answer(connection, target, keep=False)
            raise
        return self._answer(connection, target, keep=True)

    def _answer(self, connection: HTTPConnection, target: SplitResult, *, keep: bool) -> Answer:
        response = connection.getresponse()

        def drop() -> None:
            response.close()
            self._drop(target.scheme, target.netloc)

        if not keep or response.will_close:
            self._open.pop((target.scheme, target.netloc), None)
            self._spent.append(connection)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, target.geturl(), response, drop, target.netloc)

    def _connection(self, target: SplitResult) -> HTTPConnection:
        key = (target.scheme, target.netloc)
        if key not in self._open:
            self._open[key] = self._connect(target)
        return self._open[key]

    def _connect(self, target: SplitResult) -> HTTPConnection:
        host, port = target.hostname or "", target.port or (443 if target.scheme == "https" else 80)
        proxy = proxy_for(target.scheme, host)
        where = (proxy.hostname or "", proxy.port or 3128) if proxy else (host, port)
        if target.scheme == "http":
            connection = HTTPConnection(*where, timeout=self._connect_s)
        else:
            connection = HTTPSConnection(*where, timeout=self._connect_s, context=context(target.netloc, self._environ))
        if proxy:
            connection.set_tunnel(host, port, login_of(proxy))
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self._answer_s)
        return connection

    def _drop(self, scheme: str, netloc: str) -> None:
        connection = self._open.pop((scheme, netloc), None)
        if connection is not None:
            connection.close()
