"""Requests to one repository: sent with its login, repeated while that may help, and judged by their status."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sdrun.core.reference import DOCKER_HUB, Repository
from sdrun.registry import faults
from sdrun.registry.authorization import Authorization
from sdrun.registry.body import Body, BytesBody
from sdrun.registry.credentials import login_for
from sdrun.registry.patience import AGAIN, Patience, retry_after
from sdrun.registry.transport import Answer, Transport

_HUB_HOST = "registry-1.docker.io"
PULL, PUSH = "pull", "pull,push"
MakeBody = Callable[[], Body]


@dataclass(slots=True)
class Count:
    """What was asked of the registry: `requests` (for tokens, too) and the `bytes` of documents it answered."""

    requests: int = 0
    bytes: int = 0


def transport_to(repository: Repository, environ: Mapping[str, str] = os.environ, limit: float | None = None) -> Transport:
    """Connections to the registry of `repository`; `limit` as Transport's."""
    trusted = _HUB_HOST if repository.host == DOCKER_HUB else repository.host
    return Transport(trusted, repository.is_loopback, environ, limit)


class Session:
    """Requests to the registry of `repository`. Not for several threads."""

    def __init__(self, repository: Repository, patience: Patience, environ: Mapping[str, str] = os.environ) -> None:
        self.repository = repository
        self.host = repository.host
        self.patience = patience
        self.count = Count()
        self._transport = transport_to(repository, environ)
        self.authorization = Authorization(repository, lambda: login_for(repository.host, environ), self._ask_token)

    def close(self) -> None:
        """Gives back the connections; a process that ends need not."""
        self._transport.close()

    def path(self, kind: str, what: str) -> str:
        """The address of something in the repository."""
        return f"/v2/{self.repository.path}/{kind}/{what}"

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: MakeBody | None = None, actions: str = PULL
    ) -> Answer:
        """One request, tried once; a 401 is answered with the login. Raises Broken."""
        for _ in range(3):
            known = self.authorization.header(actions, self._transport.scheme == "https")
            self.count.requests += 1
            answer = self._transport.request(method, url, {**headers, **known}, body() if body else None)
            if answer.status != 401 or not self.authorization.refused(answer, actions):
                break
            answer.whole()
        return answer

    @contextmanager
    def asked(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        what: str,
        body: MakeBody | None = None,
        actions: str = PULL,
    ) -> Iterator[Answer]:
        """One request, repeated while that may help; `what` names it in messages."""
        answer = self.patiently(lambda: self.send(method, url, headers, body, actions), what)
        try:
            yield answer
        except faults.Broken as fault:  # while its body was read
            raise faults.unreachable(self.host, fault.why) from None
        finally:
            answer.close()

    def patiently(self, attempt: Callable[[], Answer], what: str) -> Answer:
        """`attempt`, repeated after Broken, 429 and 5xx as long as patience lasts."""
        failures = 0
        while True:
            asked: float | None = None
            try:
                answer = attempt()
                if answer.status not in AGAIN:
                    return answer
                asked = retry_after(answer.headers)
                why = f"{self.host} answers {what} with {answer.status}"
                failure = faults.failed(answer.status, what, self.host, answer.whole())
            except faults.Broken as fault:
                why, failure = fault.why, faults.unreachable(self.host, fault.why)
            failures += 1
            self.pause(failures, asked, why, failure)

    def pause(self, failures: int, asked: float | None, why: str, failure: Exception) -> None:
        """Waits before the next attempt, or raises `failure` where patience is at its end."""
        seconds = self.patience.seconds(failures, asked)
        if seconds is None:
            raise failure
        self.patience.say(f"{why}; again in {seconds:.1f} s")
        self.patience.wait(seconds)

    def expect(self, answer: Answer, statuses: tuple[int, ...], what: str) -> None:
        """Raises the error for any other status."""
        if answer.status in statuses:
            return
        body = answer.whole()
        if answer.status in (401, 403):
            raise faults.refused(answer.status, what, self.host, self.authorization.login is not None, body)
        if answer.status == 404:
            raise faults.missing(what)
        raise faults.failed(answer.status, what, self.host, body)

    def json(self, answer: Answer, what: str) -> dict[str, Any]:
        """The JSON object in an answer."""
        return self.parsed(self.body(answer), what)

    def body(self, answer: Answer) -> bytes:
        """The document in an answer, counted."""
        body = answer.whole()
        self.count.bytes += len(body)
        return body

    def parsed(self, body: bytes, what: str) -> dict[str, Any]:
        """The JSON object in `body`; raises VerificationFailed (`registry-failed`) where it is none."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise faults.nonsense(what, self.host, "it is no JSON object")
        return document

    def _ask_token(self, method: str, url: str, headers: Mapping[str, str], body: BytesBody | None) -> Answer:
        def attempt() -> Answer:
            self.count.requests += 1
            return self._transport.request(method, url, headers, BytesBody(body.data) if body else None)

        return self.patiently(attempt, "a request for access")
