"""Finding a runtime, and saying why there is none. The daemons here are small servers on sockets of the test's own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import requests
import urllib3

from sdrun.errors import RuntimeUnavailable, UsageProblem
from sdrun.runtime import connect, connection
from sdrun.runtime.cdi import devices_in
from sdrun.runtime.endpoints import Endpoint, docker_endpoints, podman_endpoints, wanted
from sdrun.runtime.faults import reading, translated, unreachable

DOCKER = Endpoint("docker", "unix:///var/run/docker.sock", "the default socket")


@contextmanager
def server(path: Path, answer: bytes) -> Iterator[dict[str, str]]:
    """Something that listens on a socket and says `answer` to whatever it is asked."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                with connected:
                    if connected.recv(65536):  # else somebody only looked whether anybody is there
                        connected.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield {"DOCKER_HOST": f"unix://{path}", "HOME": str(path.parent)}
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def http(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def version(**more: object) -> bytes:
    return http(json.dumps({"ApiVersion": "1.41", "Version": "20.10.24", "Components": [{"Name": "Engine"}], **more}).encode())


def name_of(env: dict[str, str]) -> str:
    runtime = connect(None, env)
    runtime.close()
    return runtime.name


def failure(env: dict[str, str], preferred: str | None = None) -> RuntimeUnavailable:
    with pytest.raises(RuntimeUnavailable) as caught:
        connect(preferred, env)
    assert caught.value.exit_code == 6
    assert caught.value.remedy
    return caught.value


def test_a_docker_daemon(tmp_path: Path) -> None:
    with server(tmp_path / "s", version()) as env:
        assert name_of(env) == "docker"


def test_podman_behind_dockers_socket_is_podman(tmp_path: Path) -> None:
    with server(tmp_path / "s", version(Components=[{"Name": "Podman Engine"}])) as env:
        assert name_of(env) == "podman"


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        http(b"<html>hello</html>", "text/html"),
        http(b"<html>no</html>", "text/html", "404 Not Found"),
        http(b'{"hello": 1}'),
        http(b"[]"),
        http(b"{"),
    ],
)
def test_nonsense(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path / "s", answer) as env:
        assert failure(env).id == "runtime-failed"


def test_a_connection_that_breaks_off(tmp_path: Path) -> None:
    with server(tmp_path / "s", b"") as env:
        assert failure(env).id in ("runtime-down", "runtime-failed")


def test_a_daemon_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_WITHIN", 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        error = failure({"DOCKER_HOST": f"unix://{tmp_path / 's'}", "HOME": str(tmp_path)})
    assert error.id == "runtime-down"
    assert "does not answer" in error.message


def test_a_socket_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    assert failure({"DOCKER_HOST": f"unix://{tmp_path / 's'}", "HOME": str(tmp_path)}).id == "runtime-down"


def test_no_socket_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"DOCKER_HOST": f"unix://{tmp_path}/none", "HOME": str(tmp_path)}
    assert failure(env).id == "runtime-down"
    monkeypatch.setattr("sdrun.runtime.endpoints.DOCKER_SOCKET", str(tmp_path / "a"))
    monkeypatch.setattr("sdrun.runtime.endpoints.PODMAN_SOCKET", str(tmp_path / "b"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure({"HOME": str(tmp_path)}).id == "runtime-missing"
    assert "podman" in failure({"HOME": str(tmp_path)}, "podman").remedy


def test_permission_is_told_apart() -> None:
    refused = urllib3.exceptions.ProtocolError("Connection aborted.", PermissionError(13, "Permission denied"))
    for fault in (requests.ConnectionError(refused), PermissionError(13, "Permission denied")):
        error = unreachable(fault, DOCKER)
        assert error.id == "runtime-permission"
        assert "usermod" in error.remedy


def test_unknown_runtime_and_scheme(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem):
        connect("lxc", {})
    assert failure({"DOCKER_HOST": "ssh://host", "HOME": str(tmp_path)}).id == "runtime-failed"


@pytest.mark.parametrize(
    ("address", "id", "said"),
    [
        ("tcp://name.invalid:2375", "runtime-down", "cannot be reached"),
        ("tcp://127.0.0.1:port", "runtime-failed", "cannot be used"),
        ("tcp://127.0.0.1:99999999", "runtime-failed", "cannot be used"),
        ("tcp://:2375", "runtime-failed", "cannot be used"),
        ("tcp://.example:2375", "runtime-failed", "no host name"),
        (f"tcp://{'a' * 64}:2375", "runtime-failed", "no host name"),
        ("tcp://a b:2375", "runtime-failed", "a space"),
        ("tcp://127.0.0.1:9/a b", "runtime-failed", "a space"),
        ("tcp://127.0.0.1:9/\xe4", "runtime-failed", "not ASCII"),
        ("/var/run/docker.sock", "runtime-failed", "'/var/run/docker.sock'"),
        ("ssh://me@host", "runtime-failed", "not supported"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, id: str, said: str, tmp_path: Path) -> None:
    error = failure({"DOCKER_HOST": address, "HOME": str(tmp_path)})
    assert error.id == id
    assert said in error.message
    assert "DOCKER_HOST" in error.message


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    error = failure({"DOCKER_HOST": "tcp://127.0.0.1:9", "DOCKER_TLS_VERIFY": "1", "HOME": str(tmp_path)})
    assert error.id == "runtime-failed"
    assert "cannot be used" in error.message
    assert str(tmp_path / ".docker" / "ca.pem") in error.message
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "ca.pem").write_text("none")
    error = failure({"DOCKER_HOST": "tcp://127.0.0.1:9", "DOCKER_TLS_VERIFY": "1", "HOME": str(tmp_path)})
    assert (error.id, str(tmp_path / ".docker") in error.message) == ("runtime-failed", True)


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    error = failure({"DOCKER_CONTEXT": "away", "HOME": str(tmp_path)})
    assert error.id == "runtime-failed"
    assert "docker context 'away' does not exist" in error.message


def test_only_calls_are_translated() -> None:
    with pytest.raises(TypeError), translated(DOCKER):
        raise TypeError("a defect")
    with pytest.raises(RuntimeUnavailable, match="no container runtime"), reading(DOCKER):
        raise KeyError("Id")


def test_where_docker_is_looked_for(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}
    assert [e.url for e in docker_endpoints(env)] == ["unix:///var/run/docker.sock", "unix:///run/user/7/docker.sock"]
    assert [e.url for e in podman_endpoints(env)] == ["unix:///run/user/7/podman/podman.sock", "unix:///run/podman/podman.sock"]
    key = sha256(b"away").hexdigest()
    meta = tmp_path / ".docker" / "contexts" / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": "away", "Endpoints": {"docker": {"Host": "tcp://far:2376"}}}))
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "away"}')
    assert docker_endpoints(env) == [Endpoint("docker", "tcp://far:2376", "docker context 'away'")]
    assert docker_endpoints({**env, "DOCKER_CONTEXT": "default"})[0].url == "unix:///var/run/docker.sock"
    tls = docker_endpoints({**env, "DOCKER_HOST": "tcp://x", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"})[0]
    assert (tls.url, tls.tls, tls.verify) == ("tcp://x", Path("/c"), True)
    assert {e.runtime for e in wanted("podman", env)} == {"podman"}
    assert {e.runtime for e in wanted("docker", env)} == {"docker"}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
        ("far", "tcp://far"),
        ("tcp://", "tcp://localhost"),
        ("unix://", "unix:///var/run/docker.sock"),
        (" unix:///a b/s ", "unix:///a b/s"),
    ],
)
def test_addresses_are_read_as_docker_reads_them(said: str, meant: str) -> None:
    assert [endpoint.url for endpoint in docker_endpoints({"DOCKER_HOST": said, "HOME": "/h"})] == [meant]


def test_cdi_specifications(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(
        'cdiVersion: 0.5.0\ncontainerEdits:\n  deviceNodes: []\ndevices:\n- containerEdits:\n    env: []\n  name: "0"\n'
        "- containerEdits: {}\n  name: all\nkind: nvidia.com/gpu\n"
    )
    (tmp_path / "other.json").write_text('{"kind": "example.com/x", "devices": [{"name": "a"}, {}, 7]}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "list.json").write_text("[]")
    found = devices_in([str(tmp_path), str(tmp_path / "none")])
    assert found == ("example.com/x=a", "nvidia.com/gpu=0", "nvidia.com/gpu=all")
