"""Logins from Docker's own store: config.json with `auths`, `credHelpers` and `credsStore` (docs.docker.com, `docker login`),
and from Podman's auth.json, which has the same form (containers-auth.json(5)).

A helper is a program `docker-credential-NAME` that reads a host on its standard input and answers in JSON
(docker/docker-credential-helpers).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdrun.core.reference import DOCKER_HUB
from sdrun.errors import BadConfiguration, VerificationFailed

_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # what helpers answer as user name where the secret is an identity token
_HELPER_WITHIN = 20


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password, or an identity token, which is exchanged for an access token."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


def login_for(host: str, environ: Mapping[str, str] = os.environ) -> Login | None:
    """The login stored for `host`, None where there is none. Raises BadConfiguration (`bad-config`) for a store that cannot be
    read, VerificationFailed (`registry-refused`) where a helper program fails."""
    names = [_HUB_KEY, "index.docker.io", DOCKER_HUB] if host == DOCKER_HUB else [host, f"https://{host}", f"http://{host}"]
    for path in _stores(environ):
        store = _read(path)
        helpers = store.get("credHelpers")
        for name in names:
            helper = helpers.get(name) if isinstance(helpers, dict) else None
            if isinstance(helper, str) and helper:
                return _ask(helper, name)
        if (found := _plain(store, names, path)) is not None:
            return found
        helper = store.get("credsStore")
        if isinstance(helper, str) and helper:
            for name in names[:1]:
                if (answer := _ask(helper, name)) is not None:
                    return answer
    return None


def _stores(environ: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environ.get("HOME", "/"))
    candidates = [Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"]
    if named := environ.get("REGISTRY_AUTH_FILE"):
        candidates.append(Path(named))
    if run := environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(run) / "containers" / "auth.json")
    candidates.append(home / ".config" / "containers" / "auth.json")
    yield from (path for path in candidates if path.is_file())


def _read(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise _unusable(path, f"cannot be read: {fault.strerror}") from None
    except (ValueError, RecursionError):
        raise _unusable(path, "is not JSON") from None
    if not isinstance(document, dict):
        raise _unusable(path, "holds no object")
    return document


def _unusable(path: Path, why: str) -> BadConfiguration:
    return BadConfiguration(
        f"{path}, where Docker keeps logins, {why}", "Mend it, or log in again: docker login", id="bad-config"
    )


def _plain(store: Mapping[str, object], names: list[str], path: Path) -> Login | None:
    auths = store.get("auths")
    if not isinstance(auths, dict):
        return None
    for name in names:
        row = auths.get(name)
        if not isinstance(row, dict):
            continue
        if token := row.get("identitytoken"):
            return Login(identity_token=str(token))
        if auth := row.get("auth"):
            try:
                user, colon, password = base64.b64decode(str(auth), validate=True).decode("utf-8").partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise _unusable(path, f"has a damaged login for {name}") from None
            if colon:
                return Login(user, password.rstrip("\0"))
        if row.get("username"):
            return Login(str(row["username"]), str(row.get("password", "")))
    return None


def _ask(helper: str, name: str) -> Login | None:
    """What `docker-credential-HELPER get` answers; None where it has no login for that host."""
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        raise _helper_failed(helper, "is not on PATH")
    try:
        done = subprocess.run([program, "get"], input=name.encode(), capture_output=True, timeout=_HELPER_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise _helper_failed(helper, f"does not answer: {fault}") from None
    if done.returncode != 0:
        text = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if "credentials not found" in text.lower():
            return None
        raise _helper_failed(helper, f"fails: {text[:200]}")
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise _helper_failed(helper, "answers no JSON with Username and Secret") from None
    return Login(identity_token=secret) if user == _TOKEN_USER else Login(user, secret)


def _helper_failed(helper: str, why: str) -> VerificationFailed:
    return VerificationFailed(
        f"the credential helper docker-credential-{helper} {why}",
        "Install or mend it, or take it out of Docker's config.json.",
        id="registry-refused",
    )
