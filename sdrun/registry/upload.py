"""Blobs into a registry: none that is there already, continued where the connection breaks off.

A blob goes in one piece, as Docker sends it: some registries take no second piece of an upload that was not interrupted. After
an interruption the registry is asked how much it has (OCI distribution specification, "Pushing a blob in chunks").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urlencode

from sdrun.core.reference import Repository
from sdrun.errors import VerificationFailed
from sdrun.registry import faults
from sdrun.registry.body import FileBody
from sdrun.registry.client import Registry
from sdrun.registry.patience import AGAIN, retry_after
from sdrun.registry.session import PUSH
from sdrun.registry.transport import Answer

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]+)")
_GONE = frozenset({400, 404, 410, 416})  # of an upload: the registry has forgotten it, or remembers it otherwise
How = Literal["there", "mounted", "sent"]


@dataclass(frozen=True, slots=True)
class LocalBlob:
    """A blob on this machine: in `path`, or `data` itself."""

    digest: str
    size: int
    media_type: str
    path: Path | None = None
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, data: bytes, media_type: str) -> LocalBlob:
        """The blob of these bytes."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data), media_type, data=data)

    def open(self) -> IO[bytes]:
        """Its bytes."""
        return self.path.open("rb") if self.path is not None else BytesIO(self.data)

    def descriptor(self) -> dict[str, object]:
        """How a manifest names it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def upload(
    registry: Registry, blob: LocalBlob, mount_from: Repository | None = None, told: Callable[[int], None] = lambda count: None
) -> How:
    """Makes sure that the registry has the blob, and says how that came about. `mount_from`: another repository of the same
    registry that may have it. `told` hears how many bytes were sent, a negative number where they must be sent again."""
    if registry.has_blob(blob.digest):
        return "there"
    return _Upload(registry, blob, told).run(mount_from)


class _Upload:
    def __init__(self, registry: Registry, blob: LocalBlob, told: Callable[[int], None]) -> None:
        self._registry = registry
        self._session = registry.session
        self._blob = blob
        self._what = f"blob {blob.digest[:19]}"
        self._told = told
        self._at = 0  # bytes the registry has, as far as is known
        self._sent = 0  # bytes told of

    def run(self, mount_from: Repository | None) -> How:
        failures, url = 0, ""
        with ExitStack() as opened:
            file = opened.enter_context(self._blob.open())
            while True:
                before, asked = self._at, None
                try:
                    url = self._resumed(url) if url else self._begin(mount_from)
                    if not url:
                        return "mounted"
                    answer = self._send(url, file)
                    if answer is None:
                        return "sent"
                    asked, why = retry_after(answer.headers), f"{self._session.host} answers {self._what} with {answer.status}"
                    url = "" if answer.status in _GONE else url
                    failure = faults.failed(answer.status, self._what, self._session.host, answer.whole())
                except faults.Broken as fault:
                    why, failure = fault.why, faults.unreachable(self._session.host, fault.why)
                failures = 1 if self._at > before else failures + 1
                self._session.pause(failures, asked, why, failure)

    def _begin(self, mount_from: Repository | None) -> str:
        """The address of a new upload; empty where the blob was mounted instead."""
        self._at = 0
        self._tell(0)
        query = urlencode({"mount": self._blob.digest, "from": mount_from.path}) if mount_from else ""
        url = f"{self._session.path('blobs', 'uploads/')}{f'?{query}' if query else ''}"
        with self._session.asked("POST", url, {}, self._what, actions=PUSH) as answer:
            if answer.status == 201 and mount_from:
                return ""
            self._session.expect(answer, (202,), self._what)
            return self._location(answer)

    def _resumed(self, url: str) -> str:
        """Where to go on; a new upload where the registry knows the old one no more."""
        answer = self._session.send("GET", url, {}, actions=PUSH)
        match = _RANGE.fullmatch(answer.headers.get("range", ""))
        answer.whole()
        if answer.status not in (200, 204) or match is None:
            if answer.status in AGAIN:
                raise faults.Broken(f"{self._session.host} answers {self._what} with {answer.status}")
            return self._begin(None)
        # `0-0` stands for one byte, and with the distribution project's registry also for none.
        last = int(match[1])
        self._at = last + 1 if last else 0
        self._tell(self._at)
        return answer.headers.get("location", url)

    def _send(self, url: str, file: IO[bytes]) -> Answer | None:
        """What is left of the blob, then its digest; None when it is stored, else the answer that was not hoped for."""
        left = self._blob.size - self._at
        if left:
            headers = {"Content-Type": "application/octet-stream"}
            if self._at:
                headers["Content-Range"] = f"{self._at}-{self._blob.size - 1}"
            answer = self._session.send("PATCH", url, headers, lambda: self._body(file), PUSH)
            if answer.status != 202:
                return self._judged(answer)
            answer.whole()
            self._at = self._blob.size
            url = self._location(answer)
        joint = "&" if "?" in url else "?"
        answer = self._session.send("PUT", f"{url}{joint}{urlencode({'digest': self._blob.digest})}", {}, None, PUSH)
        if answer.status != 201:
            return self._judged(answer)
        answer.whole()
        return None

    def _judged(self, answer: Answer) -> Answer:
        """An answer after which trying again may help; raises for any other."""
        if answer.status not in AGAIN and answer.status not in _GONE:
            self._session.expect(answer, (), self._what)
        return answer

    def _body(self, file: IO[bytes]) -> FileBody:
        file.seek(self._at)
        self._tell(self._at)
        return FileBody(file, self._blob.size - self._at, self._count)

    def _count(self, count: int) -> None:
        self._sent += count
        self._told(count)

    def _tell(self, at: int) -> None:
        self._told(at - self._sent)
        self._sent = at

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("location", "")
        answer.whole()
        if not location:
            raise VerificationFailed(
                f"{self._session.host} opens an upload and does not say where",
                "The registry does not follow the OCI distribution specification; choose another.",
                id=faults.FAILED,
            )
        return location
