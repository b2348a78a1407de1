"""The calls of Docker's API against small servers: what is asked, what is made of the answers, streams, TLS."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import connect
from sdrun.runtime.api import Api, Refused
from sdrun.runtime.endpoints import Endpoint
from sdrun.runtime.faults import translated
from sdrun.runtime.library import client

JSON = b"Content-Type: application/json\r\n"


class Server:
    """Answers every connection by `say(request, connection)` and keeps the requests."""

    def __init__(self, listener: socket.socket, say: Callable[[bytes, socket.socket], None]) -> None:
        self.listener = listener
        self.say = say
        self.requests: list[bytes] = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except ssl.SSLError:
                continue  # a client that does not trust us
            except OSError:
                return
            with connection:
                if request := whole_request(connection):
                    self.requests.append(request)
                    self.say(request, connection)

    @property
    def first_lines(self) -> list[str]:
        return [request.split(b"\r\n", 1)[0].decode() for request in self.requests]


def whole_request(connection: socket.socket) -> bytes:
    """Head and body; empty where nothing comes."""
    request = b""
    while b"\r\n\r\n" not in request and (chunk := connection.recv(65536)):
        request += chunk
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < lengths[0] and (chunk := connection.recv(65536)):
        request, body = request + chunk, body + chunk
    return request


@contextmanager
def serving(path: Path, say: Callable[[bytes, socket.socket], None]) -> Iterator[tuple[Server, Api]]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield Server(listener, say), Api(Endpoint("docker", f"unix://{path}", "the test"), timeout=5)
        listener.shutdown(socket.SHUT_RDWR)


def answering(body: bytes, status: str = "200 OK", head: bytes = JSON) -> Callable[[bytes, socket.socket], None]:
    def say(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), head, len(body), body))

    return say


def test_what_is_asked(tmp_path: Path) -> None:
    with serving(tmp_path / "s", answering(b'{"Id": "abc"}')) as (server, api):
        api.version()
        api.api_version = "1.41"
        api.inspect_image("registry.example:5000/a/b@sha256:00")
        api.images({"label": ["io.sdrun.target"]})
        assert api.create_container("sdrun-1", {"Image": "x"}) == "abc"
        assert api.create_libpod_container("/v4.0.0/libpod", {"image": "x"}) == "abc"
        api.remove_container("abc")
    assert server.first_lines == [
        "GET /version HTTP/1.1",
        "GET /v1.41/images/registry.example:5000/a/b@sha256:00/json HTTP/1.1",
        "GET /v1.41/images/json?filters=%7B%22label%22%3A+%5B%22io.sdrun.target%22%5D%7D HTTP/1.1",
        "POST /v1.41/containers/create?name=sdrun-1 HTTP/1.1",
        "POST /v4.0.0/libpod/containers/create HTTP/1.1",
        "DELETE /v1.41/containers/abc?force=1&v=1 HTTP/1.1",
    ]
    assert server.requests[3].endswith(b'{"Image": "x"}')
    assert b"Content-Type: application/json" in server.requests[3]


@pytest.mark.parametrize(
    ("body", "head", "said", "is_json"),
    [
        (b'{"message": "no such image"}', JSON, "no such image", True),
        (b"<html>not here</html>", b"Content-Type: text/html\r\n", "<html>not here</html>", False),
        (b"[1]", JSON, "[1]", True),
        (b"", b"", "", False),
    ],
)
def test_an_error_has_its_status_and_words(tmp_path: Path, body: bytes, head: bytes, said: str, is_json: bool) -> None:
    with serving(tmp_path / "s", answering(body, "409 Conflict", head)) as (_, api), pytest.raises(Refused) as refused:
        api.start("abc")
    assert (refused.value.status, refused.value.explanation, refused.value.is_json) == (409, said, is_json)


def test_a_name_that_is_no_clean_path_is_no_images(tmp_path: Path) -> None:
    def say(request: bytes, connection: socket.socket) -> None:
        if b"GET /version " in request:
            return answering(b'{"ApiVersion": "1.41", "Version": "20.10.24"}')(request, connection)
        moved = b"Location: /v1.41/images/a/b/json\r\nContent-Type: text/html\r\n"
        return answering(b'<a href="/v1.41/images/a/b/json">Moved Permanently</a>', "301 Moved Permanently", moved)(
            request, connection
        )

    with serving(tmp_path / "s", say):
        runtime = connect("docker", {"DOCKER_HOST": f"unix://{tmp_path / 's'}", "HOME": str(tmp_path)})
        assert runtime.image("a//b") is None
        with pytest.raises(RuntimeUnavailable, match="no container runtime"):
            runtime.facts()


def test_what_was_started_already_is_started(tmp_path: Path) -> None:
    with serving(tmp_path / "s", answering(b"", "304 Not Modified", b"")) as (_, api):
        api.start("abc")


def test_an_empty_answer_is_none(tmp_path: Path) -> None:
    with serving(tmp_path / "s", answering(b"", "204 No Content", b"")) as (_, api):
        assert api.start("abc") is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("sent", [b'{"Id": "a', b""])
def test_an_answer_that_breaks_off_is_no_answer(tmp_path: Path, sent: bytes) -> None:
    def say(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n%sContent-Length: 40\r\n\r\n%s" % (JSON, sent))

    there = Endpoint("docker", "unix:///s", "the test")
    with serving(tmp_path / "s", say) as (_, api), pytest.raises(RuntimeUnavailable) as gone, translated(there):
        api.create_container("sdrun-1", {})
    assert (gone.value.id, "broke off" in gone.value.message) == ("runtime-down", True)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"Id": null}', b'{"id": "abc"}'])
def test_a_creation_without_an_id(tmp_path: Path, body: bytes) -> None:
    there, say = Endpoint("docker", "unix:///s", "the test"), answering(body, "201 Created")
    with serving(tmp_path / "s", say) as (_, api), pytest.raises(RuntimeUnavailable) as refused, translated(there):
        api.create_container("sdrun-1", {})
    assert refused.value.id == "runtime-failed"


def test_events_come_one_by_one(tmp_path: Path) -> None:
    taken = threading.Semaphore(0)

    def say(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            line = json.dumps({"number": number}).encode() + b"\n"
            halves = (line[:4], line[4:]) if number else (line,)  # a chunk ends anywhere
            for part in halves:
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            taken.acquire(timeout=5)
        connection.sendall(b"0\r\n\r\n")

    with serving(tmp_path / "s", say) as (_, api):
        seen = []
        stream = api.events("abc")
        for document in stream.documents():  # the next is sent only when this one has arrived
            seen.append(document["number"])
            taken.release()
        stream.close()
    assert seen == [0, 1, 2]


def test_events_that_break_off(tmp_path: Path) -> None:
    def say(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{")

    with serving(tmp_path / "s", say) as (_, api):
        stream = api.events("abc")
        with pytest.raises(HTTPException):
            list(stream.documents())
        stream.close()


def test_output_from_its_first_byte(tmp_path: Path) -> None:
    def say(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nwith the head")
        connection.sendall(b", after it")

    with serving(tmp_path / "s", say) as (server, api):
        stream = api.attach("abc")
        output = b""
        while chunk := stream.recv(65536):
            output += chunk
        stream.close()
    assert output == b"with the head, after it"
    assert b"Upgrade: tcp" in server.requests[0]


def test_closing_ends_a_wait(tmp_path: Path) -> None:
    ended = threading.Event()

    def say(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        ended.wait(10)

    with serving(tmp_path / "s", say) as (_, api):
        stream = api.attach("abc")
        answers: list[bytes] = []
        waiting = threading.Thread(target=lambda: answers.append(stream.recv(1)))
        waiting.start()
        closing = threading.Thread(target=stream.close)
        closing.start()
        waiting.join(5)
        closing.join(5)
        ended.set()
    assert answers == [b""]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, cert.pem and key.pem, as Docker has them: one certificate for server and client, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1)
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificates")
    for file in ("ca.pem", "cert.pem"):
        (folder / file).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*private))
    return folder


@contextmanager
def tls_server(certificates: Path, *, asks: bool = True) -> Iterator[dict[str, str]]:
    """A daemon, which `asks` for a client's certificate, and the variables that lead to it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
    with socket.create_server(("127.0.0.1", 0)) as plain, context.wrap_socket(plain, server_side=True) as listener:
        Server(listener, answering(b'{"ApiVersion": "1.41", "Version": "20.10.24"}'))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        yield {"DOCKER_HOST": address, "DOCKER_CERT_PATH": str(certificates), "HOME": str(certificates)}
        listener.shutdown(socket.SHUT_RDWR)


def test_tls_with_a_clients_certificate(certificates: Path) -> None:
    with tls_server(certificates) as env:
        assert connect("docker", {**env, "DOCKER_TLS_VERIFY": "1"}).name == "docker"


def test_tls_without_a_certificate_of_ones_own(certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))  # of somebody else's servers
    (tmp_path / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    mine = {"DOCKER_CERT_PATH": str(tmp_path), "DOCKER_TLS_VERIFY": "1"}
    with tls_server(certificates, asks=False) as env:
        runtime = connect("docker", {**env, **mine})
        assert runtime.name == "docker"
        with client(runtime.endpoint, "1.41", 5) as library:
            assert library.version()["Version"] == "20.10.24"
    (tmp_path / "cert.pem").write_bytes((certificates / "cert.pem").read_bytes())
    with tls_server(certificates) as env, pytest.raises(RuntimeUnavailable, match=str(tmp_path / "key.pem")):
        connect("docker", {**env, **mine})


def test_tls_of_a_stranger(certificates: Path, tmp_path: Path) -> None:
    for file in ("cert.pem", "key.pem"):
        (tmp_path / file).write_bytes((certificates / file).read_bytes())
    other = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not other:
        pytest.skip("this system trusts no authority at all")
    (tmp_path / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(other[0]))
    with tls_server(certificates) as env:
        mine = {**env, "DOCKER_CERT_PATH": str(tmp_path)}
        with pytest.raises(RuntimeUnavailable) as refused:
            connect("docker", {**mine, "DOCKER_TLS_VERIFY": "1"})
        assert "cannot be reached" in refused.value.message
        assert connect("docker", {**mine, "DOCKER_TLS": "1"}).name == "docker"  # asked not to look
