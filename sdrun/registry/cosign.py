"""The program cosign: signs with a key or with the identity of a CI job, and checks signatures that only it can check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sdrun.core.reference import Repository
from sdrun.core.signing import SIGNED_AT, SignaturePolicy, moment_text
from sdrun.errors import UsageProblem, VerificationFailed
from sdrun.registry.trust import folders

_WITHIN = 180  # keyless signing asks three services for something
_LOG_LESS = ("--use-signing-config=false", "--new-bundle-format=false")  # from cosign 3 on needed for --tlog-upload=false
MISSING = "cosign-missing"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: `key` is a file or an address that cosign knows (env://NAME, a key service); None: keyless, with the identity
    token of the CI job."""

    program: str
    key: str | None

    def sign(self, repository: Repository, digest: str) -> None:
        """Signs the image or index of that digest. The moment goes into what is signed, so that a policy can ask for it."""
        argv = [self.program, "sign", "--yes", "-a", f"{SIGNED_AT}={moment_text(datetime.now(UTC))}", *_registry(repository)]
        if self.key is not None:
            argv += ["--key", self.key, "--tlog-upload=false", *self._newer("sign")]
        self._run([*argv, repository.at(digest)], f"sign {digest[:19]}...")

    def public_key(self) -> bytes | None:
        """The key that checks what is signed here, in PEM form; None without one."""
        if self.key is None:
            return None
        return self._run([self.program, "public-key", "--key", self.key], "read the key").encode()

    def _newer(self, verb: str) -> tuple[str, ...]:
        """The options that cosign 3 needs besides and cosign 2 does not know."""
        told = subprocess.run([self.program, verb, "--help"], capture_output=True, text=True, timeout=_WITHIN, check=False)
        return tuple(option for option in _LOG_LESS if option.partition("=")[0] in told.stdout)

    def _run(self, argv: Sequence[str], what: str) -> str:
        done = run(argv)
        if done.returncode != 0:
            raise VerificationFailed(
                f"cosign cannot {what}",
                "Check the key and COSIGN_PASSWORD, or the job's identity token.",
                id="signing-failed",
                detail=_tail(done.stderr),
            )
        return done.stdout


def find_program(why: str) -> str:
    """Where cosign is. Raises UsageProblem (`cosign-missing`) where it is not; `why` says what it is needed for."""
    program = shutil.which("cosign")
    if program is None:
        raise UsageProblem(
            f"the program cosign is not on PATH, and {why}",
            "Install it: apt-get install cosign (from Debian 13 on).",
            id=MISSING,
        )
    return program


def check(program: str, policy: SignaturePolicy, repository: Repository, digest: str) -> datetime | str | None:
    """Lets cosign look for a signature by the policy's key or identity; the newest moment of one, None where it says none, or,
    as text, why there is none that counts."""
    argv = [program, "verify", "--output", "json", *_registry(repository)]
    if policy.key is not None:
        argv += ["--key", policy.key, "--insecure-ignore-tlog=true"]
    else:
        option = "--certificate-identity-regexp" if (policy.identity or "").startswith("^") else "--certificate-identity"
        argv += [option, policy.identity or "", "--certificate-oidc-issuer", policy.issuer or ""]
    done = run([*argv, repository.at(digest)])
    if done.returncode != 0:
        return _tail(done.stderr) or "cosign finds no signature that counts"
    try:
        rows = json.loads(done.stdout)
        moments = [moment for row in rows if (moment := _moment(row.get("optional") or {}, policy)) is not None]
    except (ValueError, TypeError, AttributeError):
        return "cosign answers something else than JSON"
    return max(moments, default=None)


def _moment(optional: Mapping[str, Any], policy: SignaturePolicy) -> datetime | None:
    """When it was signed: without a key by the transparency log's entry, with one by what the signer signed along."""
    from sdrun.core.signing import parse_moment

    if policy.key is None:
        payload = (optional.get("Bundle") or {}).get("Payload") or {}
        logged = payload.get("integratedTime")
        return datetime.fromtimestamp(logged, UTC) if isinstance(logged, int) else None
    try:
        return parse_moment(str(optional[SIGNED_AT]))
    except (KeyError, ValueError):
        return None


def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """One call of the program, with nobody to ask a question."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_WITHIN, check=False, env={**os.environ}
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise VerificationFailed(
            f"cosign does not end: {fault}", "Check the network; then run again.", id="signing-failed"
        ) from None


def _registry(repository: Repository) -> list[str]:
    """The registry's own authority, which cosign does not look for where Docker does."""
    for folder in folders(repository.host):
        for path in sorted(folder.glob("*.crt")):
            return ["--registry-cacert", str(path)]
    return []


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-4:])
