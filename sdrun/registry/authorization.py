"""What a registry asks of a client before it answers: Basic, or a Bearer token from the service it names.

Sources: distribution's spec/auth/token.md and oauth.md; RFC 9110, 11.6.1, for the form of a challenge.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from sdrun.core.reference import Repository
from sdrun.registry.body import BytesBody
from sdrun.registry.credentials import Login
from sdrun.registry.faults import nonsense, refused
from sdrun.registry.transport import Answer

_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LEAST_S = 60  # token.md: a token without expires_in holds this long
_MARGIN_S = 10
_CLIENT = "sdrun"
Ask = Callable[[str, str, Mapping[str, str], BytesBody | None], Answer]  # method, url, headers, body


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate header: `scheme` in lower case with its parameters."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Challenge | None:
        """The challenge to take up, Bearer before Basic where both stand there; None for another scheme."""
        found: dict[str, Challenge] = {}
        for match in re.finditer(r"(?i)(?:^|,\s*)(bearer|basic)(?:\s+|$)", text):
            rest = text[match.end() :]
            end = re.search(r"(?i),\s*(?:bearer|basic)\s", rest)
            pairs = _PARAMETER.findall(rest[: end.start()] if end else rest)
            values = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in pairs}
            found.setdefault(match[1].lower(), cls(match[1].lower(), values))
        return found.get("bearer") or found.get("basic")

    @property
    def text(self) -> str:
        """The header it can be parsed from."""
        return f"{self.scheme} " + ",".join(f'{name}="{_quoted(value)}"' for name, value in self.parameters.items())


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@dataclass(slots=True)
class _Token:
    value: str
    until: float  # by the monotonic clock: neither a wrong clock here nor one there makes it older


class Authorization:
    """The Authorization header for one repository, found out when the registry asks and kept while it holds. `login` is looked
    up at most once. Not for several threads."""

    def __init__(self, repository: Repository, login: Callable[[], Login | None], ask: Ask) -> None:
        self._repository = repository
        self._find = login
        self._ask = ask
        self._known: tuple[Login | None] | None = None
        self._tokens: dict[str, _Token] = {}
        self.challenge: Challenge | None = None

    @property
    def login(self) -> Login | None:
        """The stored login."""
        if self._known is None:
            self._known = (self._find(),)
        return self._known[0]

    def header(self, actions: str, secure: bool) -> dict[str, str]:
        """What to send along; `actions`: `pull` or `pull,push`. Before the registry has asked, a stored password is sent over
        TLS alone: it saves a request with registries that want just that."""
        challenge = self.challenge
        if challenge is not None and challenge.scheme == "bearer":
            return {"Authorization": f"Bearer {self._token(challenge, actions)}"}
        login = self.login
        if login is None or not login.password or (challenge is None and not secure):
            return {}
        return {"Authorization": login.basic}

    def refused(self, answer: Answer, actions: str) -> bool:
        """Takes up the challenge of a 401; False where nothing new can be tried."""
        challenge = Challenge.parse(answer.headers.get("www-authenticate", ""))
        if challenge is None:
            return False
        again = challenge.scheme == "bearer" and challenge != self.challenge
        known = self._tokens.pop(self._scope(challenge, actions), None)
        first = self.challenge is None
        self.challenge = challenge
        if challenge.scheme == "bearer":
            return again or known is not None
        return first and self.login is not None

    def _scope(self, challenge: Challenge, actions: str) -> str:
        """What is asked for. The challenge's own scope may name less than is needed next, or be left out."""
        own = f"repository:{self._repository.path}:{actions}"
        return own if "push" in actions else challenge.parameters.get("scope") or own

    def _token(self, challenge: Challenge, actions: str) -> str:
        scope = self._scope(challenge, actions)
        token = self._tokens.get(scope)
        if token is None or token.until <= time.monotonic():
            token = self._tokens[scope] = self._fetch(challenge, scope)
        return token.value

    def _fetch(self, challenge: Challenge, scope: str) -> _Token:
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        if not realm.startswith(("https://", "http://" if self._repository.is_loopback else "https://")):
            raise nonsense("a request for access", self._repository.host, f"its token service is {realm[:80]!r}")
        answer = self._request(realm, service, scope)
        body = answer.whole()
        if answer.status in (400, 401, 403):
            raise refused(answer.status, "access", self._repository.host, self.login is not None, body)
        if answer.status != 200:
            raise nonsense("a request for access", self._repository.host, f"status {answer.status}")
        try:
            document = json.loads(body)
            value = document.get("token") or document["access_token"]
            lasts = float(document.get("expires_in") or _LEAST_S)
            if not isinstance(value, str) or not value.isprintable():
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise nonsense("a request for access", self._repository.host, "no token in it") from None
        return _Token(value, time.monotonic() + max(lasts - _MARGIN_S, 1.0))

    def _request(self, realm: str, service: str, scope: str) -> Answer:
        login = self.login
        if login is not None and login.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": _CLIENT}
            body = urlencode({**form, "service": service, "scope": scope}).encode()
            return self._ask("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, BytesBody(body))
        query = urlencode({**({"service": service} if service else {}), "scope": scope, "client_id": _CLIENT})
        headers = {"Authorization": login.basic} if login is not None and login.password else {}
        return self._ask("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers, None)
