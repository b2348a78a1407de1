"""Networks for a container that is to be reached and is to reach nobody. Docker only: of Podman's networks none was found that
both publishes and has no way out, so a published container has Podman's usual network there.

Measured with Docker 20.10.24: `--network none` and an internal network publish no port, but a container on an internal network
answers this host at its own address, and what it sends elsewhere is dropped. A bridge without masquerading does publish; what
its containers send out keeps their private address, so no answer finds its way back (a connection from one timed out, with
masquerading it was made). `enable_icc=false` keeps the containers of one such network from each other. The host's own addresses
are within reach in both: that is the host's firewall's to forbid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime.api import Api, Refused

LABEL = "io.sdrun.network"
_NO_NEIGHBOURS = ("com.docker.network.bridge.enable_icc", "false")
_NO_ANSWERS = ("com.docker.network.bridge.enable_ip_masquerade", "false")


@dataclass(frozen=True, slots=True)
class Network:
    """A bridge that sdrun makes once and leaves in place: `name`, whether it is internal, and the driver's options."""

    name: str
    internal: bool
    options: Mapping[str, str]

    def command(self, runtime: str) -> list[str]:
        """The command line that makes it."""
        options = [word for pair in self.options.items() for word in ("--opt", "=".join(pair))]
        return [runtime, "network", "create", *(["--internal"] if self.internal else []), *options, self.name]

    def body(self) -> dict[str, object]:
        """The same for Docker's API."""
        return {
            "Name": self.name,
            "Driver": "bridge",
            "Internal": self.internal,
            "Options": dict(self.options),
            "Labels": {LABEL: "true"},
            "CheckDuplicate": True,
        }


INTERNAL = Network("sdrun-internal", True, dict([_NO_NEIGHBOURS]))
PUBLISHED = Network("sdrun-published", False, dict([_NO_ANSWERS, _NO_NEIGHBOURS]))
NETWORKS: Mapping[str, Network] = {"internal": INTERNAL, "published": PUBLISHED}


def ensure(api: Api, network: Network) -> None:
    """Makes the network where it is not there yet; several may do so at once. Raises RuntimeUnavailable (`runtime-failed`)
    where one of that name is there and is something else, and what the calls raise."""
    try:
        found = api.inspect_network(network.name)
    except Refused as fault:
        if fault.status != 404:
            raise
        try:
            api.create_network(network.body())
        except Refused as taken:
            if taken.status != 409:  # another process made it in between
                raise
        found = api.inspect_network(network.name)
    options = found.get("Options") or {}
    if bool(found.get("Internal")) != network.internal or any(options.get(k) != v for k, v in network.options.items()):
        raise RuntimeUnavailable(
            f"the network {network.name} is there and is not the closed one that sdrun makes",
            f"Remove it: docker network rm {network.name}",
            id="runtime-failed",
        )


def addresses(details: Mapping[str, Any], port: int) -> tuple[tuple[str, int], ...]:
    """Where the container's `port` may answer, from its inspection: published on this host, then at its own addresses.

    >>> addresses({"NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}]},
    ...                                "Networks": {"sdrun-internal": {"IPAddress": "172.18.0.2"}}}}, 80)
    (('127.0.0.1', 32768), ('172.18.0.2', 80))
    """
    settings = details.get("NetworkSettings") or {}
    published = (settings.get("Ports") or {}).get(f"{port}/tcp") or []
    networks = (settings.get("Networks") or {}).values()
    own = [str(settings.get("IPAddress") or ""), *(str(row.get("IPAddress") or "") for row in networks)]
    return (
        *((str(row.get("HostIp") or "127.0.0.1"), int(row["HostPort"])) for row in published if row.get("HostPort")),
        *((address, port) for address in dict.fromkeys(own) if address),
    )
