"""Who may ask and whom to trust: logins, tokens, certificates, clocks."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import load_pem_x509_certificate

from sdrun.core.reference import Repository
from sdrun.errors import BadConfiguration, SdrunError, VerificationFailed
from sdrun.registry.client import Registry
from sdrun.registry.patience import ONCE
from sdrun.registry.pushing import push
from tests.registries.conftest import Place
from tests.registries.front import Fault, Front
from tests.registries.images import packed
from tests.registries.server import PASSWORD, USER, Authority, Pem, RegistryProcess, lay_down

BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class TokenService:
    """Gives out tokens as docker-registry wants them: JSON web tokens signed by a key whose certificate it trusts
    (distribution, spec/auth/jwt.md). Only for the user, or for whoever shows `identity`."""

    def __init__(self, pem: Pem) -> None:
        self._key = serialization.load_pem_private_key(pem.key.read_bytes(), None)
        certificate = load_pem_x509_certificate(pem.certificate.read_bytes())
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        self.asked: list[Mapping[str, list[str]]] = []
        self.lasts = 300
        self.identity = "identity token"
        self.answer: tuple[int, bytes] | None = None

    def __call__(self, form: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        asked = parse_qs(form)
        self.asked.append(asked)
        if self.answer is not None:
            return self.answer
        known = headers.get("Authorization") == BASIC or asked.get("refresh_token") == [self.identity]
        if not known:
            return 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}'
        kind, name, actions = asked["scope"][0].split(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        now = int(time.time())
        claims = {
            "iss": "tests",
            "aud": "registry",
            "sub": USER,
            "exp": now + self.lasts,
            "nbf": now - 10,
            "iat": now,
            "access": access,
        }
        # A service whose clock is wrong says a wrong issued_at; only expires_in counts.
        document = {"token": self._signed(claims), "expires_in": self.lasts, "issued_at": "1999-01-01T00:00:00Z"}
        return 200, json.dumps(document).encode()

    def _signed(self, claims: Mapping[str, object]) -> str:
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        text = ".".join(
            _b64(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT", "x5c": self._chain}, claims)
        )
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def tokens(authority: Authority) -> TokenService:
    return TokenService(authority.issue("tokens"))


@pytest.fixture
def guarded(tokens: TokenService, authority: Authority, tmp_path: Path) -> Iterator[tuple[Front, Path]]:
    """A registry that wants tokens, and a home with a login for it."""
    service = authority.issue("front-of-tokens")
    front = Front(0, service, tokens)
    settings = {
        "realm": f"https://{front.host}/token",
        "service": "registry",
        "issuer": "tests",
        "rootcertbundle": str(authority.certificate),
    }
    process = RegistryProcess(tmp_path / "guarded", None, settings)
    front.behind = process.port
    process.start()
    home = tmp_path / "home"
    home.mkdir()
    lay_down(home, front.host, authority.certificate)
    yield front, home
    front.close()
    process.stop()


def test_tokens_are_fetched_once_and_renewed(guarded: tuple[Front, Path], tokens: TokenService, tmp_path: Path) -> None:
    front, home = guarded
    registry = Registry(Repository(front.host, "team/sdrun"), ONCE, {"HOME": str(home), "PATH": "/nonexistent"})
    image = packed(tmp_path, "cpu")
    done = push(registry, image)
    assert registry.read_manifest(done.manifest.digest).body == image.manifest
    scopes = [asked["scope"][0] for asked in tokens.asked]
    assert sorted(set(scopes)) == ["repository:team/sdrun:pull", "repository:team/sdrun:pull,push"]
    assert len(scopes) <= 3
    tokens.lasts = 11  # with the margin of ten seconds it holds for one
    again = Registry(registry.repository, ONCE, {"HOME": str(home), "PATH": "/nonexistent"})
    again.read_manifest(done.manifest.digest)
    before = len(tokens.asked)
    time.sleep(1.1)
    again.read_manifest(done.manifest.digest)
    assert len(tokens.asked) == before + 1
    registry.close()
    again.close()


def test_an_identity_token_is_exchanged(guarded: tuple[Front, Path], tokens: TokenService) -> None:
    front, home = guarded
    store = home / ".docker/config.json"
    store.write_text(json.dumps({"auths": {front.host: {"identitytoken": tokens.identity}}}))
    registry = Registry(Repository(front.host, "team/sdrun"), ONCE, {"HOME": str(home), "PATH": "/nonexistent"})
    assert registry.tags() == []
    assert tokens.asked[-1]["grant_type"] == ["refresh_token"]
    registry.close()


@pytest.mark.parametrize(
    ("answer", "id"),
    [
        (None, "registry-refused"),
        ((200, b"{}"), "registry-failed"),
        ((200, b"nonsense"), "registry-failed"),
        ((200, b'{"token": "a\\nb"}'), "registry-failed"),
        ((418, b""), "registry-failed"),
        ((403, b""), "registry-refused"),
    ],
)
def test_services_that_give_no_token(
    guarded: tuple[Front, Path], tokens: TokenService, answer: tuple[int, bytes] | None, id: str
) -> None:
    front, home = guarded
    tokens.answer = answer
    if answer is None:
        (home / ".docker/config.json").unlink()
    registry = Registry(Repository(front.host, "team/sdrun"), ONCE, {"HOME": str(home), "PATH": "/nonexistent"})
    with pytest.raises(VerificationFailed) as caught:
        registry.tags()
    assert (caught.value.id, caught.value.exit_code) == (id, 7)
    registry.close()


@pytest.mark.parametrize("login", [None, (USER, "wrong"), ("nobody", PASSWORD)])
def test_without_the_right_login(place: Place, authority: Authority, login: tuple[str, str] | None) -> None:
    (place.home / ".docker/config.json").unlink()
    lay_down(place.home, place.repository.host, authority.certificate, login)
    registry = place.open()
    with pytest.raises(VerificationFailed, match="refuses") as caught:
        registry.tags()
    assert (caught.value.id, caught.value.exit_code) == ("registry-refused", 7)
    assert f"docker login {place.repository.host}" in caught.value.remedy
    assert ("no login is stored" in caught.value.message) == (login is None)
    assert place.waits == []


def failure(front: Front, home: Path) -> SdrunError:
    registry = Registry(Repository(front.host, "team/sdrun"), ONCE, {"HOME": str(home), "PATH": "/nonexistent"})
    with pytest.raises(SdrunError) as caught:
        registry.tags()
    registry.close()
    return caught.value


@pytest.mark.parametrize(
    ("begins", "lasts", "word"),
    [
        (timedelta(days=1), timedelta(days=1), "is not valid yet"),
        (timedelta(days=-2), timedelta(days=1), "has expired"),
    ],
)
def test_a_certificate_out_of_its_time_points_at_the_clock(
    server: RegistryProcess, authority: Authority, tmp_path: Path, begins: timedelta, lasts: timedelta, word: str
) -> None:
    front = Front(server.port, authority.issue(f"late{begins.days}", begins, lasts))
    lay_down(tmp_path, front.host, authority.certificate)
    error = failure(front, tmp_path)
    front.close()
    assert (error.id, word in error.message, "clock" in error.remedy) == ("registry-unreachable", True, True)


def test_an_authority_that_nobody_trusts(server: RegistryProcess, authority: Authority, tmp_path: Path) -> None:
    front = Front(server.port, authority.issue("untrusted"))
    error = failure(front, tmp_path)
    assert (error.id, "is not trusted" in error.message) == ("registry-unreachable", True)
    assert f"/etc/docker/certs.d/{front.host}/ca.crt" in error.remedy
    folder = tmp_path / ".config/docker/certs.d" / front.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("no certificate")
    error = failure(front, tmp_path)
    front.close()
    assert isinstance(error, BadConfiguration)
    assert "ca.crt" in error.message


def test_plain_http_on_this_machine_alone(tmp_path: Path) -> None:
    process = RegistryProcess(tmp_path / "plain", None, "none")
    process.start()
    registry = Registry(Repository(process.host, "team/sdrun"), ONCE, {"HOME": str(tmp_path), "PATH": "/nonexistent"})
    image = packed(tmp_path, "cpu")
    assert registry.find_manifest(push(registry, image).manifest.digest) is not None
    registry.close()
    process.stop()
    error = failure_of(Repository(process.host, "team/sdrun"), tmp_path)
    assert (error.id, "nobody listens" in error.message) == ("registry-unreachable", True)


def failure_of(repository: Repository, home: Path) -> SdrunError:
    registry = Registry(repository, ONCE, {"HOME": str(home), "PATH": "/nonexistent"})
    with pytest.raises(SdrunError) as caught:
        registry.tags()
    registry.close()
    return caught.value


def test_a_login_is_never_sent_without_tls(place: Place) -> None:
    place.front.script(Fault("GET", "/tags/", status=307, headers={"Location": "http://127.0.0.1:1/v2/x/tags/list"}))
    with pytest.raises(VerificationFailed, match="without TLS"):
        place.open().tags()


def test_a_login_stays_with_the_registry(place: Place, server: RegistryProcess, authority: Authority, tmp_path: Path) -> None:
    """Blobs often lie with a storage service, to which the registry redirects."""
    storage = Front(server.port, authority.issue("storage"))
    lay_down(place.home, storage.host, authority.certificate, None)
    registry = place.open()
    image = packed(tmp_path, "cpu")
    push(registry, image)
    where = f"https://{storage.host}/kept/elsewhere"
    place.front.script(Fault("GET", "/blobs/", status=307, headers={"Location": where}))
    storage.script(Fault("GET", "/kept/", status=200, body=image.config.data))
    assert registry.small_blob(image.config.digest) == image.config.data
    (seen,) = storage.seen
    assert "Authorization" not in seen.headers
    storage.close()


def test_a_wait_is_reckoned_by_the_servers_own_clock(place: Place) -> None:
    headers = {"Date": "Wed, 06 May 2099 10:00:00 GMT", "Retry-After": "Wed, 06 May 2099 10:00:07 GMT"}
    place.front.script(Fault("GET", "/tags/", status=503, headers=headers))
    assert place.open().tags() == []
    assert place.waits == [7.0]


def test_tags_come_in_pages(place: Place, tmp_path: Path) -> None:
    registry = place.open()
    image = packed(tmp_path, "cpu")
    manifest = push(registry, image).manifest
    for number in range(5):
        registry.put_manifest(manifest.body, manifest.media_type, f"t{number}")
    url = registry.session.path("tags", "list?n=2")
    first = json.dumps({"name": "x", "tags": ["t0", "t1"]}).encode()
    link = {"Link": f'<{url}&last=t1>; rel="next"', "Content-Type": "application/json"}
    place.front.script(Fault("GET", "/tags/list[?]n=1000", status=200, body=first, headers=link))
    assert registry.tags() == ["t0", "t1", "t2", "t3", "t4"]
