"""Networks for a server: what is asked of the daemon, and where the container then answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import hardening
from sdrun.runtime.api import Api, Refused
from sdrun.runtime.hardening import DaemonTraits
from sdrun.runtime.network import INTERNAL, PUBLISHED, addresses, ensure
from sdrun.runtime.protocol import ContainerSpec


class Daemon(Api):
    """A daemon's networks; `rival`: what another process makes between the question and the order."""

    def __init__(self, known: dict[str, dict[str, Any]], rival: dict[str, Any] | None = None) -> None:
        self.known = known
        self.rival = rival
        self.made: list[Mapping[str, Any]] = []

    def inspect_network(self, name: str) -> dict[str, Any]:
        if name not in self.known:
            raise Refused(404, "no such network", True)
        return self.known[name]

    def create_network(self, body: Mapping[str, Any]) -> None:
        if self.rival is not None:
            self.known[body["Name"]] = self.rival
            raise Refused(409, "exists", True)
        self.made.append(body)
        self.known[body["Name"]] = {"Internal": body["Internal"], "Options": body["Options"]}


def test_it_is_made_once() -> None:
    api = Daemon({})
    for _ in range(2):
        ensure(api, INTERNAL)
        ensure(api, PUBLISHED)
    assert [(row["Name"], row["Internal"]) for row in api.made] == [("sdrun-internal", True), ("sdrun-published", False)]
    assert api.made[1]["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert all(row["Options"]["com.docker.network.bridge.enable_icc"] == "false" for row in api.made)


def test_another_process_may_be_first() -> None:
    ensure(Daemon({}, {"Internal": True, "Options": dict(INTERNAL.options)}), INTERNAL)


@pytest.mark.parametrize("found", [{"Internal": False, "Options": dict(INTERNAL.options)}, {"Internal": True, "Options": None}])
def test_an_open_network_of_that_name_is_not_used(found: dict[str, Any]) -> None:
    with pytest.raises(RuntimeUnavailable) as refused:
        ensure(Daemon({"sdrun-internal": found}), INTERNAL)
    assert refused.value.remedy == "Remove it: docker network rm sdrun-internal"
    with pytest.raises(RuntimeUnavailable):
        ensure(Daemon({}, found), INTERNAL)


def test_where_a_container_answers() -> None:
    published = {"Ports": {"1234/tcp": [{"HostIp": "127.0.0.1", "HostPort": "40000"}], "80/tcp": None}, "IPAddress": ""}
    assert addresses({"NetworkSettings": published}, 1234) == (("127.0.0.1", 40000),)
    assert addresses({"NetworkSettings": published}, 80) == ()
    own = {"Ports": {"1234/tcp": None}, "IPAddress": "10.1.0.2", "Networks": {"a": {"IPAddress": "10.1.0.2"}, "b": {}}}
    assert addresses({"NetworkSettings": own}, 1234) == (("10.1.0.2", 1234),)
    assert addresses({}, 1234) == ()


def test_how_each_runtime_names_it() -> None:
    internal = ContainerSpec("i", (), "1:1", network="internal")
    published = ContainerSpec("i", (), "1:1", network="published", ports={1234: 0})
    assert hardening.docker_spec(internal, "n", DaemonTraits())["HostConfig"]["NetworkMode"] == "sdrun-internal"
    config = hardening.docker_spec(published, "n", DaemonTraits())["HostConfig"]
    assert config["NetworkMode"] == "sdrun-published"
    assert config["PortBindings"] == {"1234/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    body = hardening.podman_spec(published, "n", DaemonTraits())
    assert (body["netns"], body["portmappings"][0]["host_port"]) == ({"nsmode": "bridge"}, 0)
    assert "127.0.0.1::1234" in hardening.command_line(published, DaemonTraits(), "docker")
    assert PUBLISHED.command("docker")[:3] == ["docker", "network", "create"]
    assert "--internal" in INTERNAL.command("docker")
