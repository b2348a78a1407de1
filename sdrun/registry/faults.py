"""What goes wrong with a registry, as errors of sdrun.errors."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPException, IncompleteRead

from sdrun.errors import SdrunError, VerificationFailed

UNREACHABLE = "registry-unreachable"
REFUSED = "registry-refused"
FAILED = "registry-failed"
MISSING = "not-in-registry"
_CLOCK = {9: "is not valid yet", 10: "has expired"}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_SHOWN = 300


class Broken(Exception):
    """The connection failed or broke off; trying again may help."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def broken(fault: Exception, host: str) -> Exception:
    """What a failed request means: Broken where trying again may help, else the error to raise."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _certificate(fault, host)
    if isinstance(fault, ssl.SSLError):
        return Broken(f"TLS with {host} fails: {fault.reason or fault}")
    if isinstance(fault, socket.gaierror):
        return Broken(f"{host.rsplit(':', 1)[0]} has no address: {fault.strerror}")
    if isinstance(fault, TimeoutError):
        return Broken(f"{host} does not answer in time")
    if isinstance(fault, ConnectionRefusedError):
        return Broken(f"nobody listens at {host}")
    if isinstance(fault, IncompleteRead | ConnectionError):
        return Broken(f"the connection to {host} broke off")
    if isinstance(fault, HTTPException):
        return Broken(f"{host} does not speak HTTP: {type(fault).__name__}")
    return Broken(f"{host} cannot be reached: {getattr(fault, 'strerror', None) or fault}")


def _certificate(fault: ssl.SSLCertVerificationError, host: str) -> SdrunError:
    if fault.verify_code in _CLOCK:
        return VerificationFailed(
            f"the certificate of {host} {_CLOCK[fault.verify_code]} by this machine's clock",
            "Check the clock (timedatectl); if it is right, the registry needs a new certificate.",
            id=UNREACHABLE,
        )
    return VerificationFailed(
        f"the certificate of {host} is not trusted: {fault.verify_message}",
        f"If the registry has its own authority, put its certificate at /etc/docker/certs.d/{host}/ca.crt.",
        id=UNREACHABLE,
    )


def unreachable(host: str, why: str) -> VerificationFailed:
    """Tried often enough."""
    return VerificationFailed(
        f"the registry cannot be used: {why}",
        f"Check the network, the proxy and the name of the registry ({host}); then run again.",
        id=UNREACHABLE,
    )


def refused(status: int, what: str, host: str, logged_in: bool, body: bytes) -> VerificationFailed:
    """401 and 403. Registries also answer so where there is no such repository."""
    seen = "the login that is stored for it does not suffice" if logged_in else "no login is stored for it"
    return VerificationFailed(
        f"{host} refuses {what} ({status}): {seen}", f"Log in: docker login {host}", id=REFUSED, detail=told(body)
    )


def missing(what: str) -> VerificationFailed:
    """404."""
    return VerificationFailed(f"{what} is not in the registry", "Check its name, or publish it.", id=MISSING)


def failed(status: int, what: str, host: str, body: bytes) -> VerificationFailed:
    """Any other status that was not hoped for."""
    return VerificationFailed(
        f"{host} answers {what} with {status}",
        "Run again later; if it stays, the registry's own log says why.",
        id=FAILED,
        detail=told(body),
    )


def nonsense(what: str, host: str, why: str) -> VerificationFailed:
    """An answer that is none."""
    return VerificationFailed(
        f"{host} answers {what} with something else: {why}",
        "Check that the name is a registry's and that no proxy stands in for it.",
        id=FAILED,
    )


def told(body: bytes) -> str | None:
    """What the registry says of its own error (`{"errors":[{"code":...,"message":...}]}`), else the beginning of its answer."""
    try:
        document = json.loads(body)
        rows = document["errors"] if isinstance(document, Mapping) else []
        texts = [f"{row.get('code', '')}: {row.get('message', '')}" for row in rows if isinstance(row, Mapping)]
        return "\n".join(texts)[:_SHOWN] or None
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:_SHOWN].decode("utf-8", "replace").strip()
        return "".join(c if c.isprintable() else " " for c in text) or None
