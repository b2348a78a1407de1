"""TLS with a registry: the system's authorities, and what Docker and Podman are told of one registry.

Docker reads /etc/docker/certs.d/HOST:PORT/ (`*.crt`: authorities; `*.cert` with `*.key`: a client's certificate), rootless
Docker ~/.config/docker/certs.d, Podman /etc/containers/certs.d (docs.docker.com, "Verify repository client with
certificates"; containers-certs.d(5)).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdrun.errors import BadConfiguration

_SYSTEM = ("/etc/docker/certs.d", "/etc/containers/certs.d")


def folders(host: str, environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The folders about `host` that there are."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    for top in (f"{home}/docker/certs.d", f"{home}/containers/certs.d", *_SYSTEM):
        folder = Path(top) / host
        if folder.is_dir():
            yield folder


def context(host: str, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """How to speak TLS with `host` (with its port where it has one). SSL_CERT_FILE and SSL_CERT_DIR name other authorities than
    the system's. Raises BadConfiguration (`bad-config`) for a certificate that cannot be read."""
    answer = ssl.create_default_context()
    answer.minimum_version = ssl.TLSVersion.TLSv1_2
    for folder in folders(host, environ):
        for path in sorted(folder.iterdir()):
            try:
                if path.suffix == ".crt":
                    answer.load_verify_locations(path)
                elif path.suffix == ".cert":
                    answer.load_cert_chain(path, path.with_suffix(".key"))
            except (OSError, ssl.SSLError) as fault:
                why = getattr(fault, "strerror", None) or fault
                raise BadConfiguration(
                    f"{path} cannot be used: {why}", "Replace it by a certificate in PEM form, or remove it.", id="bad-config"
                ) from None
    return answer
