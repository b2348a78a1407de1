"""A blob read as a stream: hashed on the way, continued where the connection breaks off."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from sdrun.errors import VerificationFailed
from sdrun.registry.faults import Broken, unreachable
from sdrun.registry.session import Session
from sdrun.registry.transport import Answer

_RANGE = re.compile(r"bytes ([0-9]+)-")


class Blob:
    """See Registry.blob. `size` in bytes where it is known; `done` bytes were read so far."""

    def __init__(self, digest: str, size: int | None, open: Callable[[str, int], Answer], session: Session) -> None:
        self._digest = digest
        self._size = size
        self._open = open
        self._session = session
        self._host = session.host
        self._hash = hashlib.sha256()
        self._answer: Answer | None = None
        self._failures = 0
        self._over = False
        self.done = 0

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes (all of them with -1), none at the end."""
        if count < 0:
            return self.read_all(1 << 62)
        while not self._over and count:
            try:
                piece = self._piece(count)
            except Broken as fault:
                self._break(fault)
                continue
            if piece:
                self._failures = 0
                return piece
            self._finish()
        return b""

    def read_all(self, most: int) -> bytes:
        """Everything, of at most `most` bytes; raises VerificationFailed (`hash-mismatch`) where it is more."""
        data = bytearray()
        while piece := self.read(1 << 16):
            data += piece
            if len(data) > most:
                raise self._wrong("is larger than such a thing ever is")
        return bytes(data)

    def close(self) -> None:
        """Done with it, however much was read."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _piece(self, count: int) -> bytes:
        if self._answer is None:
            self._answer = self._open(self._digest, self.done)
            self._pass_over(self._answer)
        piece = self._answer.read(count)
        self._hash.update(piece)
        self.done += len(piece)
        if self._size is not None and self.done > self._size:
            raise self._wrong(f"has more than its {self._size} bytes")
        return piece

    def _pass_over(self, answer: Answer) -> None:
        """A server that knows no ranges begins anew; what is known already is passed over."""
        match = _RANGE.match(answer.headers.get("content-range", "")) if answer.status == 206 else None
        behind = self.done - (int(match[1]) if match else 0)
        while behind > 0 and (piece := answer.read(min(behind, 1 << 16))):
            behind -= len(piece)
        if behind:
            raise Broken(f"{self._host} sends another part of the blob than was asked for")

    def _break(self, fault: Broken) -> None:
        self.close()
        self._failures += 1
        self._session.pause(self._failures, None, fault.why, unreachable(self._host, fault.why))

    def _finish(self) -> None:
        self._over = True
        self.close()
        if f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise self._wrong(f"came with sha256 {self._hash.hexdigest()[:12]}...")

    def _wrong(self, why: str) -> VerificationFailed:
        self._over = True
        return VerificationFailed(
            f"blob {self._digest[:19]}... of {self._host} {why}; nothing was used",
            "Do not use it: the registry's storage, or what stands between, has altered it. Publish the image again.",
            id="hash-mismatch",
        )
