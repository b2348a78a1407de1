"""docker-py, where its knowledge is needed: a pull hands the credentials of a registry over, from the docker configuration and
its credential helpers. Imported for that alone (see api.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdrun.runtime.endpoints import Endpoint
from sdrun.runtime.tls import client_certificate


@contextmanager
def client(endpoint: Endpoint, api_version: str, timeout: float) -> Iterator[Any]:
    """A client of docker-py for an endpoint that has answered."""
    import docker
    from docker.tls import TLSConfig

    tls: Any = False
    if endpoint.tls is not None:
        pair = client_certificate(endpoint.tls)
        certificate = None if pair is None else (str(pair[0]), str(pair[1]))
        tls = TLSConfig(client_cert=certificate, ca_cert=str(endpoint.tls / "ca.pem"), verify=endpoint.verify)
    api = docker.APIClient(endpoint.url, version=api_version, timeout=int(timeout), tls=tls)
    api.trust_env = False  # as in api.py: no proxy, and no authorities (REQUESTS_CA_BUNDLE) but the endpoint's own
    try:
        yield api
    finally:
        api.close()
