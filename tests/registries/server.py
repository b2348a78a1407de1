"""docker-registry as a process of the tests: TLS with an authority of its own, one user with a password, or tokens."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "tester", "loopback"
# bcrypt of the password, at the least cost: what htpasswd -B writes
_HTPASSWD = "tester:$2b$04$sdrunsdrunsdrunsdrunsO5GgU8HQe9/Vrf6FnX85s7/Jdq2Sp0sW\n"
_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<path>/v2/[^ ]*) HTTP/[^"]*" (?P<status>[0-9]{3}) (?P<size>[0-9]+)')


@dataclass(frozen=True)
class Pem:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of the tests."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the tests")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(self._name).issuer_name(self._name).public_key(self._key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self.certificate = folder / "ca.crt"
        self.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, begins: timedelta = timedelta(days=-1), lasts: timedelta = timedelta(days=2)) -> Pem:
        """A server's certificate for 127.0.0.1 and localhost, valid from `begins` after now for `lasts`."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        begin = datetime.now(UTC) + begins
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(begin + lasts)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        certificate, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return Pem(certificate, private)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Logged:
    """A request in the registry's own log."""

    method: str
    path: str
    status: int
    size: int


class RegistryProcess:
    """docker-registry serving `folder`. `tls` None: plain HTTP; `auth`: `basic`, `none`, or the token settings. The same port
    and secret after a restart, as a registry has whose machine was restarted."""

    def __init__(self, folder: Path, tls: Pem | None, auth: str | dict[str, str] = "basic") -> None:
        self.folder = folder
        self.port = free_port()
        self.data = folder / "data"
        self.log = folder / "registry.log"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "htpasswd").write_text(_HTPASSWD)
        self._settings = folder / "config.json"  # JSON is YAML
        self._settings.write_text(json.dumps(self._document(tls, auth)))
        self._process: subprocess.Popen[bytes] | None = None

    def _document(self, tls: Pem | None, auth: str | dict[str, str]) -> dict[str, object]:
        http: dict[str, object] = {"addr": f"127.0.0.1:{self.port}", "secret": "kept over restarts"}
        if tls is not None:
            http["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
        document: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": http,
        }
        if auth == "basic":
            document["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.folder / "htpasswd")}}
        elif isinstance(auth, dict):
            document["auth"] = {"token": auth}
        return document

    @property
    def host(self) -> str:
        """Its name."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it listens."""
        program = shutil.which("docker-registry")
        if program is None:
            pytest.skip("needs docker-registry (tools/from-debian.sh)")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([program, "serve", str(self._settings)], stdout=log, stderr=log)
        until = time.monotonic() + 20
        while time.monotonic() < until and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        """Ends it at once, as a machine that loses power."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def restart_soon(self) -> None:
        """Ends it at once and has it back a moment later."""
        self.kill()
        threading.Timer(0.3, self.start).start()

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def requests(self) -> list[Logged]:
        """What it was asked, by its own log."""
        matches = _LINE.finditer(self.log.read_text())
        return [Logged(m["method"], m["path"], int(m["status"]), int(m["size"])) for m in matches]

    def blob(self, digest: str) -> Path:
        """Where it keeps a blob or manifest."""
        name = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def lay_down(home: Path, host: str, authority: Path, login: tuple[str, str] | None = (USER, PASSWORD)) -> None:
    """What Docker is told of a registry, in a home of the tests: its authority, and a login."""
    folder = home / ".config/docker/certs.d" / host
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(authority, folder / "ca.crt")
    if login is not None:
        path = home / ".docker/config.json"
        path.parent.mkdir(exist_ok=True)
        store = json.loads(path.read_text()) if path.exists() else {"auths": {}}
        store["auths"][host] = {"auth": base64.b64encode(":".join(login).encode()).decode()}
        path.write_text(json.dumps(store))
