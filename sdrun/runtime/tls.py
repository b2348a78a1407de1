"""TLS to a daemon, with the three files that Docker keeps in a folder: ca.pem, cert.pem, key.pem."""

from __future__ import annotations

import ssl
from pathlib import Path

from sdrun.runtime.endpoints import Endpoint


def client_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """None where the endpoint is spoken to in the clear. Raises OSError or ValueError, naming the file or folder, where the
    certificates cannot be used."""
    if endpoint.tls is None:
        return ssl.create_default_context() if endpoint.url.startswith("https://") else None
    try:
        if endpoint.verify:
            context = ssl.create_default_context(cafile=_there(endpoint.tls / "ca.pem"))
        else:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if (pair := client_certificate(endpoint.tls)) is not None:
            certificate, key = pair
            context.load_cert_chain(_there(certificate), _there(key))
    except ssl.SSLError as fault:
        raise ValueError(f"what is in {endpoint.tls} is no certificate with its key ({fault.reason or fault})") from None
    return context


def client_certificate(folder: Path) -> tuple[Path, Path] | None:
    """The client's certificate and its key; None where neither is there: as with Docker, the daemon says if it wants one."""
    pair = folder / "cert.pem", folder / "key.pem"
    return pair if any(path.exists() for path in pair) else None


def _there(path: Path) -> str:
    """The path of a file that can be read; ssl's own errors name none. Raises OSError."""
    path.open("rb").close()
    return str(path)
