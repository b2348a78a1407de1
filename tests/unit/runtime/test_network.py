"""Networks for a server: what is asked of the daemon, and where the container then answers."""

from __future__ import annotations

from typing import Any

import docker.errors
import pytest
import requests

from sdrun.errors import RuntimeUnavailable
from sdrun.runtime import hardening
from sdrun.runtime.hardening import DaemonTraits
from sdrun.runtime.network import INTERNAL, PUBLISHED, addresses, ensure
from sdrun.runtime.protocol import ContainerSpec


class Api:
    """A daemon's networks; `rival`: what another process makes between the question and the order."""

    def __init__(self, known: dict[str, dict[str, Any]], rival: dict[str, Any] | None = None) -> None:
        self.known = known
        self.rival = rival
        self.made: list[dict[str, Any]] = []

    def inspect_network(self, name: str) -> dict[str, Any]:
        if name not in self.known:
            raise docker.errors.NotFound("no such network")
        return self.known[name]

    def create_network(self, name: str, **more: Any) -> None:
        if self.rival is not None:
            self.known[name] = self.rival
            answer = requests.Response()
            answer.status_code = 409
            raise docker.errors.APIError("exists", response=answer)
        self.made.append({"name": name, **more})
        self.known[name] = {"Internal": more["internal"], "Options": more["options"]}


def test_it_is_made_once() -> None:
    api = Api({})
    for _ in range(2):
        ensure(api, INTERNAL)
        ensure(api, PUBLISHED)
    assert [(row["name"], row["internal"]) for row in api.made] == [("sdrun-internal", True), ("sdrun-published", False)]
    assert api.made[1]["options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert all(row["options"]["com.docker.network.bridge.enable_icc"] == "false" for row in api.made)


def test_another_process_may_be_first() -> None:
    ensure(Api({}, {"Internal": True, "Options": dict(INTERNAL.options)}), INTERNAL)


@pytest.mark.parametrize("found", [{"Internal": False, "Options": dict(INTERNAL.options)}, {"Internal": True, "Options": None}])
def test_an_open_network_of_that_name_is_not_used(found: dict[str, Any]) -> None:
    with pytest.raises(RuntimeUnavailable) as refused:
        ensure(Api({"sdrun-internal": found}), INTERNAL)
    assert refused.value.remedy == "Remove it: docker network rm sdrun-internal"
    with pytest.raises(RuntimeUnavailable):
        ensure(Api({}, found), INTERNAL)


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
    assert hardening.docker_host_config(internal, DaemonTraits())["network_mode"] == "sdrun-internal"
    config = hardening.docker_host_config(published, DaemonTraits())
    assert (config["network_mode"], config["port_bindings"]) == ("sdrun-published", {"1234/tcp": ("127.0.0.1", None)})
    body = hardening.podman_spec(published, "n", DaemonTraits())
    assert (body["netns"], body["portmappings"][0]["host_port"]) == ({"nsmode": "bridge"}, 0)
    assert "127.0.0.1::1234" in hardening.command_line(published, DaemonTraits(), "docker")
    assert PUBLISHED.command("docker")[:3] == ["docker", "network", "create"]
    assert "--internal" in INTERNAL.command("docker")
