"""docker-py, where its knowledge is needed: a pull hands the credentials of a registry over, from the docker configuration and
its credential helpers. Imported for that alone (see api.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdrun.runtime.endpoints import Endpoint


@contextmanager
def client(endpoint: Endpoint, api_version: str, timeout: float) -> Iterator[Any]:
    """A client of docker-py for an endpoint that has answered."""
    import docker
    from docker.tls import TLSConfig

    tls: Any = False
    if endpoint.tls is not None:
        certificate = (str(endpoint.tls / "cert.pem"), str(endpoint.tls / "key.pem"))
        tls = TLSConfig(client_cert=certificate, ca_cert=str(endpoint.tls / "ca.pem"), verify=endpoint.verify)
    api = docker.APIClient(endpoint.url, version=api_version, timeout=int(timeout), tls=tls)
    try:
        yield api
    finally:
        api.close()
