"""Challenges, logins, waits and packed layers: what needs no registry."""

from __future__ import annotations

import base64
import gzip
import json
import random
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.errors import BadConfiguration, VerificationFailed
from sdrun.registry.archive import compressor, pack
from sdrun.registry.authorization import Challenge
from sdrun.registry.credentials import Login, login_for
from sdrun.registry.faults import told
from sdrun.registry.gzipping import GzipCompressor
from sdrun.registry.patience import Patience, retry_after
from sdrun.registry.published import age_text


@pytest.mark.parametrize(
    ("text", "scheme", "parameters"),
    [
        ('Basic realm="Registry Realm"', "basic", {"realm": "Registry Realm"}),
        (
            'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
            "bearer",
            {"realm": "https://auth.example/token", "service": "registry.example", "scope": "repository:a/b:pull,push"},
        ),
        ("BEARER Realm=https://auth.example/token", "bearer", {"realm": "https://auth.example/token"}),
        ('Basic realm="a", Bearer realm="https://b.example"', "bearer", {"realm": "https://b.example"}),
        (r'Basic realm="with \"quotes\" and \\"', "basic", {"realm": 'with "quotes" and \\'}),
        ("Basic", "basic", {}),
    ],
)
def test_challenges(text: str, scheme: str, parameters: dict[str, str]) -> None:
    challenge = Challenge.parse(text)
    assert challenge == Challenge(scheme, parameters)
    assert challenge is not None
    assert Challenge.parse(challenge.text) == challenge


@pytest.mark.parametrize("text", ["", "Negotiate", "Digest realm=x", "Basically realm=x"])
def test_challenges_that_are_not_understood(text: str) -> None:
    assert Challenge.parse(text) is None


@given(st.text())
def test_any_challenge_is_read_or_left(text: str) -> None:
    challenge = Challenge.parse(text)
    assert challenge is None or Challenge.parse(challenge.text) == challenge


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".docker").mkdir()
    return {"HOME": str(tmp_path)}


def store(environ: dict[str, str], document: object) -> None:
    (Path(environ["HOME"]) / ".docker/config.json").write_text(json.dumps(document))


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("document", "host", "login"),
    [
        ({}, "r.example", None),
        ({"auths": {}}, "r.example", None),
        ({"auths": {"r.example": {"auth": auth("u:p:q")}}}, "r.example", Login("u", "p:q")),
        ({"auths": {"https://r.example": {"auth": auth("u:p")}}}, "r.example", Login("u", "p")),
        ({"auths": {"r.example:5000": {"auth": auth("u:p")}}}, "r.example", None),
        ({"auths": {"https://index.docker.io/v1/": {"auth": auth("u:p")}}}, "docker.io", Login("u", "p")),
        ({"auths": {"r.example": {"username": "u", "password": "p"}}}, "r.example", Login("u", "p")),
        ({"auths": {"r.example": {"identitytoken": "t"}}}, "r.example", Login(identity_token="t")),
        ({"auths": {"r.example": {}}}, "r.example", None),
        ({"auths": {"r.example": 1}}, "r.example", None),
        ({"auths": 1}, "r.example", None),
    ],
)
def test_logins_in_dockers_file(environ: dict[str, str], document: object, host: str, login: Login | None) -> None:
    store(environ, document)
    assert login_for(host, environ) == login


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"auths": {"r.example": {"auth": "***"}}}'])
def test_stores_that_cannot_be_read(environ: dict[str, str], text: str) -> None:
    (Path(environ["HOME"]) / ".docker/config.json").write_text(text)
    with pytest.raises(BadConfiguration, match="where Docker keeps logins") as caught:
        login_for("r.example", environ)
    assert caught.value.id == "bad-config"


def test_podmans_store(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"r.example": {"auth": auth("u:p")}}}))
    assert login_for("r.example", environ | {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}) == Login("u", "p")


HELPERS = {
    "good": 'read host; test "$host" = r.example || { echo "credentials not found in native keychain"; exit 1; }\n'
    """echo '{"Username":"u","Secret":"p"}'""",
    "token": """echo '{"Username":"<token>","Secret":"t"}'""",
    "none": 'echo "credentials not found in native keychain"; exit 1',
    "broken": "echo locked; exit 2",
    "silly": "echo hello",
}


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "helpers"
    folder.mkdir()
    for name, script in HELPERS.items():
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize(
    ("document", "login"),
    [
        ({"credsStore": "good"}, Login("u", "p")),
        ({"credHelpers": {"r.example": "token"}, "credsStore": "broken"}, Login(identity_token="t")),
        ({"credHelpers": {"other.example": "broken"}, "auths": {"r.example": {"auth": auth("a:b")}}}, Login("a", "b")),
        ({"credsStore": "none", "auths": {"r.example": {}}}, None),
    ],
)
def test_helpers(environ: dict[str, str], document: object, login: Login | None) -> None:
    store(environ, document)
    assert login_for("r.example", environ) == login


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize(("name", "why"), [("broken", "locked"), ("silly", "no JSON"), ("absent", "not on PATH")])
def test_helpers_that_fail(environ: dict[str, str], name: str, why: str) -> None:
    store(environ, {"credsStore": name})
    with pytest.raises(VerificationFailed, match=why) as caught:
        login_for("r.example", environ)
    assert (caught.value.id, caught.value.exit_code) == ("registry-refused", 7)


def test_passwords_are_not_shown() -> None:
    assert "secret" not in repr(Login("u", "secret", "secret"))


NOON = datetime(2026, 5, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 12}, None),
        ({"retry-after": "Wed, 06 May 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 06 May 2026 11:00:30 GMT"}, 0.0),
        ({"retry-after": "Tue, 06 May 2031 12:00:05 GMT", "date": "Tue, 06 May 2031 12:00:00 GMT"}, 5.0),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, lambda: NOON) == seconds


def test_waits_double_and_end() -> None:
    patience = Patience(attempts=4, first=1.0, most=3.0, longest=60.0)
    assert [patience.seconds(n, None) for n in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, None]
    assert patience.seconds(1, 20.0) == 20.0
    assert patience.seconds(3, 0.0) == 3.0  # no sooner than without being asked
    assert patience.seconds(1, 61.0) is None


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 seconds"), (61, "1 minute"), (7300, "2 hours"), (90000, "1 day")])
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_001])
def test_gzip_is_gzip_on_any_number_of_cores(size: int) -> None:
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    packed = []
    for threads in (1, 3):
        packer = GzipCompressor(threads)
        packed.append(b"".join([*(packer.compress(data[at : at + 70_001]) for at in range(0, size, 70_001)), packer.flush()]))
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == data
    assert len(packed[0]) <= len(gzip.compress(data, 6)) + 200


def test_zstd_is_zstd() -> None:
    zstd = pytest.importorskip("backports.zstd", reason="Python 3.14 has it of its own")
    packer = compressor("zstd")
    assert zstd.decompress(packer.compress(b"abc" * 1000) + packer.flush()) == b"abc" * 1000


@pytest.mark.parametrize("data", [b"", b"no archive", bytes(1024)])
def test_what_is_no_saved_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(VerificationFailed) as caught:
        pack(tmp_path / "x.tar", tmp_path, "gzip")
    assert caught.value.id == "image-differs"


def test_what_a_registry_says_of_its_error() -> None:
    assert told(b'{"errors":[{"code":"DENIED","message":"no"}]}') == "DENIED: no"
    assert told(b"<html>\x00</html>") == "<html> </html>"
    assert told(b"") is None
    assert told(b'{"errors":7}') is not None
